package jsonstore

import "github.com/credresolve/credresolve/backend"

// The errors of this adapter, all of them.
var (
	errNoPath    = backend.Errorf(backend.CodeInvalidConfig, "path is missing")
	errNoSecret  = backend.Errorf(backend.CodeNotFound, "the secret does not exist")
	errNoVersion = backend.Errorf(backend.CodeUnsupported, "a JSON file has no versions")
	errUnread    = backend.Errorf(backend.CodeUnavailable, "the file cannot be read")
	errNoJSON    = backend.Errorf(backend.CodeUnavailable, "the file is not a JSON object")
	errDenied    = backend.Errorf(backend.CodeDenied, "the file may not be read")
)
