package authprofiles

import (
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/authstore"
)

// The errors of this adapter: these, and those of the files, which authstore has.
var (
	errPathAlone = &backend.Error{Code: backend.CodeInvalidConfig, Reason: "path is set beside state_dir or agent", Remedy: "name one store by path, or an agent by state_dir and agent"}
	errHome      = &backend.Error{Code: backend.CodeInvalidConfig, Reason: "a path starts with ~, which only a shell expands", Remedy: "write the home directory out"}
	errPathNUL   = backend.Errorf(backend.CodeInvalidConfig, "a path holds a NUL byte")
	errAgent     = backend.Errorf(backend.CodeInvalidConfig, "agent is not the id of an agent: letters, digits, _, - and .")
	errMaxBytes  = backend.Errorf(backend.CodeInvalidConfig, "max_bytes is not within 0 and 67108864")
	errWriteAs   = backend.Errorf(backend.CodeInvalidConfig, "write_as must be one of api_key, token")
	errNoHome    = &backend.Error{Code: backend.CodeInvalidConfig, Reason: "OpenClaw's state directory is unknown: there is no absolute OPENCLAW_STATE_DIR, OPENCLAW_HOME or HOME", Remedy: "set state_dir"}

	errVersion = backend.Errorf(backend.CodeUnsupported, "auth profiles have no versions")
	errEmptyID = &backend.Error{Code: backend.CodeInvalidID, Reason: "the id is empty", Remedy: "name a profile, such as openai:default"}
	errWriteID = &backend.Error{Code: backend.CodeInvalidID, Reason: "the id of a profile that is written is PROVIDER:NAME, without control characters", Remedy: "such as openai:shared"}
	errNoID    = backend.Errorf(backend.CodeNotFound, "there is no such auth profile")
	errNothing = backend.Errorf(backend.CodeNotFound, "the auth profile holds no secret (missing_credential)")
	errMasked  = backend.Errorf(backend.CodeNotFound, "the auth profile holds what a redaction left of a secret")
	errInvalid = &backend.Error{Code: backend.CodeExpired, Reason: "the auth profile's expires is no time in milliseconds (invalid_expires)", Remedy: "sign in again: openclaw models auth login"}
	errExpired = &backend.Error{Code: backend.CodeExpired, Reason: "the auth profile's token is past its end (expired)", Remedy: "paste a new one: openclaw models auth paste-token"}
	errOAuth   = &backend.Error{Code: backend.CodeExpired, Reason: "the auth profile's access token is past its end (expired), and only OpenClaw refreshes it", Remedy: "let its agent run once, or sign in again: openclaw models auth login"}
	errFence   = backend.Errorf(backend.CodeUnavailable, "OpenClaw is just refreshing the auth profile")
	errFailed  = &backend.Error{Code: backend.CodeAuthRequired, Reason: "OpenClaw could not refresh the auth profile", Remedy: "sign in again: openclaw models auth login"}

	errFields  = backend.Errorf(backend.CodeUnsupported, "an auth profile holds fields in UTF-8 alone")
	errExists  = backend.Errorf(backend.CodeConflict, "the auth profile exists already")
	errNone    = backend.Errorf(backend.CodeConflict, "there is no such auth profile of the agent's own")
	errChanged = backend.Errorf(backend.CodeConflict, "the auth profiles have changed since that version")
	errPinned  = backend.Errorf(backend.CodeUnsupported, "a version cannot be written")
)

// errRef refuses a profile whose secret is a SecretRef.
func errRef(r authstore.Ref) error {
	if r.Source == "exec" && r.Provider == authstore.ManagedBy {
		return &backend.Error{
			Code:   backend.CodeUnsupported,
			Reason: "the auth profile takes its secret from credresolve, by the SecretRef " + r.String() + ": reading it here would be a loop",
			Remedy: "point at " + r.ID + " itself",
		}
	}
	return &backend.Error{
		Code:   backend.CodeUnsupported,
		Reason: "the auth profile takes its secret from the SecretRef " + r.String() + ", which OpenClaw resolves (unresolved_ref)",
		Remedy: "point at that secret itself",
	}
}

// errDatabase refuses to write where profiles are in a database.
func errDatabase(path string) error {
	return &backend.Error{
		Code:   backend.CodeUnsupported,
		Reason: "this OpenClaw keeps auth profiles in the database " + path + ", which is read alone",
		Remedy: "let the profile point here: credresolve secretref install --profile ID --ref REF",
	}
}
