package resolver

import (
	"errors"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// RefError is the error of one ref. backend.CodeOf and errors.Is see through it.
type RefError struct {
	Ref credref.Ref
	Err error
}

// Error names the ref once, unless it is malformed: then it may be anything, a secret too.
func (e *RefError) Error() string {
	if e.Ref.Validate() != nil {
		return e.Err.Error()
	}
	return e.Ref.String() + ": " + e.Err.Error()
}

func (e *RefError) Unwrap() error { return e.Err }

func refError(ref credref.Ref, err error) error {
	var already *RefError
	if errors.As(err, &already) && already.Ref == ref {
		return err
	}
	return &RefError{ref, err}
}

var (
	errClosed error = &backend.Error{Code: backend.CodeUnavailable, Reason: "the resolver is closed"}
	// errReplaced ends the fetches of a provider that Apply took away; who waits asks again.
	errReplaced error = &backend.Error{Code: backend.CodeUnavailable, Reason: "the provider was replaced"}
	// errEnded is for who waits for a fetch whose credential was ended before it was there.
	errEnded error = &backend.Error{Code: backend.CodeDenied, Reason: "it was ended while it was being fetched"}
	// errNotAsked tells watchers of what such a provider had served.
	errNotAsked error = &backend.Error{Code: backend.CodeUnavailable, Reason: "the provider was replaced, and its successor was not asked yet"}
)

// unavailable reports whether err leaves a value that is known already as good as it was.
func unavailable(err error) bool { return errors.Is(err, backend.ErrUnavailable) }
