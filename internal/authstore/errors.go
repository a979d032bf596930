package authstore

import (
	"errors"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/safefile"
	"github.com/credresolve/credresolve/internal/sqliteread"
)

// fileCodes is what a file's problem means; safefile has the texts.
var fileCodes = map[safefile.Problem]backend.Code{
	safefile.NotFound:      backend.CodeNotFound,
	safefile.NoAccess:      backend.CodeDenied,
	safefile.BadPath:       backend.CodeInvalidConfig,
	safefile.Symlink:       backend.CodeDenied,
	safefile.HardLink:      backend.CodeDenied,
	safefile.Directory:     backend.CodeInvalidConfig,
	safefile.NotADirectory: backend.CodeInvalidConfig,
	safefile.Special:       backend.CodeDenied,
	safefile.Owner:         backend.CodeDenied,
	safefile.Mode:          backend.CodeDenied,
	safefile.Parent:        backend.CodeDenied,
	safefile.TooBig:        backend.CodeInvalidConfig,
	safefile.Changed:       backend.CodeUnavailable,
	safefile.Broken:        backend.CodeUnavailable,
}

// databaseCodes is what a database's problem means; sqliteread has the texts.
var databaseCodes = map[sqliteread.Problem]backend.Code{
	sqliteread.Busy:      backend.CodeUnavailable,
	sqliteread.Malformed: backend.CodeUnavailable,
	sqliteread.Foreign:   backend.CodeUnsupported,
}

// storeError translates an error of safefile or sqliteread.
func storeError(err error) error {
	var file *safefile.Error
	var database *sqliteread.Error
	switch {
	case errors.As(err, &file):
		return &backend.Error{Code: code(fileCodes, file.Problem), Reason: file.Path + " " + file.Reason, Remedy: file.Remedy}
	case errors.As(err, &database):
		return &backend.Error{Code: code(databaseCodes, database.Problem), Reason: database.Error()}
	}
	return err // nil, or the context's
}

func code[P comparable](codes map[P]backend.Code, p P) backend.Code {
	if c, ok := codes[p]; ok {
		return c
	}
	return backend.CodeInternal
}

func missing(err error) bool {
	var e *safefile.Error
	return errors.As(err, &e) && (e.Problem == safefile.NotFound || e.Problem == safefile.NotADirectory)
}
