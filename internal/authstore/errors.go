package authstore

import (
	"errors"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/safefile"
	"github.com/credresolve/credresolve/internal/sqliteread"
)

// storeError translates an error of safefile or sqliteread.
func storeError(err error) error {
	var file *safefile.Error
	var database *sqliteread.Error
	switch {
	case errors.As(err, &file):
		return &backend.Error{Code: file.Problem.Code(), Reason: file.Path + " " + file.Reason, Remedy: file.Remedy}
	case errors.As(err, &database):
		code := backend.CodeUnavailable
		if database.Problem == sqliteread.Foreign {
			code = backend.CodeUnsupported
		}
		return &backend.Error{Code: code, Reason: database.Error()}
	}
	return err // nil, or the context's
}

func missing(err error) bool {
	var e *safefile.Error
	return errors.As(err, &e) && (e.Problem == safefile.NotFound || e.Problem == safefile.NotADirectory)
}
