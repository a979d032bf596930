package env

import "github.com/credresolve/credresolve/backend"

// The errors of this adapter, all of them.
var (
	errInvalidName = backend.Errorf(backend.CodeInvalidID, "the id is not the name of an environment variable: letters, digits, _, - and ., not starting with a digit")
	errNotAllowed  = &backend.Error{Code: backend.CodeDenied, Reason: "the variable is not on the provider's allow-list", Remedy: "add its name to allow"}
	errNotSet      = backend.Errorf(backend.CodeNotFound, "the environment variable is not set")
	errBlank       = &backend.Error{Code: backend.CodeNotFound, Reason: "the environment variable is blank", Remedy: "set it, or set allow_blank: true"}
	errVersion     = backend.Errorf(backend.CodeUnsupported, "environment variables have no versions")
	errNoList      = &backend.Error{Code: backend.CodeInvalidConfig, Reason: "allow: no variable is allowed", Remedy: `list the names to allow, "APP_*" for all that start with APP_`}
)

func errPattern(i int) error {
	return backend.Errorf(backend.CodeInvalidConfig, `allow[%d] is neither a variable's name nor a name's start with "*" behind it`, i)
}
