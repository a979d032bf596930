package memory

import "github.com/credresolve/credresolve/backend"

// The errors of this adapter, all of them.
var (
	errNoSecret  = backend.Errorf(backend.CodeNotFound, "the secret does not exist")
	errNoVersion = backend.Errorf(backend.CodeNotFound, "the secret has no such version")
	errExists    = backend.Errorf(backend.CodeConflict, "the secret exists already")
	errChanged   = backend.Errorf(backend.CodeConflict, "the secret has changed since that version")
	errPinned    = backend.Errorf(backend.CodeUnsupported, "a version cannot be written or watched, only read")
	errClosed    = backend.Errorf(backend.CodeUnavailable, "the store is closed")
)
