package sidecar

import "github.com/credresolve/credresolve/backend"

// The errors of this adapter, beside those that the sidecar gives.
var (
	errNoProvider = &backend.Error{Code: backend.CodeInvalidID, Reason: "the id must be PROVIDER/ID: a provider of the sidecar, a slash, and its id"}
	errMalformed  = backend.Errorf(backend.CodeInvalidID, "the id or the version can be none of a sidecar")
	errClosed     = backend.Errorf(backend.CodeUnavailable, "the provider is closed")
)
