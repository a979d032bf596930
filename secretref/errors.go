package secretref

import "fmt"

// Code is the code of an Error, as OpenClaw 2026.9.6 has it.
type Code string

// The codes.
const (
	ProviderNotConfigured Code = "SECRET_PROVIDER_NOT_CONFIGURED"             // no provider of that name
	ProviderInvalid       Code = "SECRET_PROVIDER_INVALID"                    // it has another source, or a limit is exceeded
	ProviderUnavailable   Code = "SECRET_PROVIDER_UNAVAILABLE"                // every other failure of a provider
	PathUnverifiable      Code = "SECRET_PROVIDER_PATH_SECURITY_UNVERIFIABLE" // nobody can tell who else may use its file
	RefNotFound           Code = "SECRET_REF_NOT_FOUND"
	RefInvalid            Code = "SECRET_REF_INVALID" // the provider cannot have such an id
	RefPolicyDenied       Code = "SECRET_REF_POLICY_DENIED"
	RefProviderError      Code = "SECRET_REF_PROVIDER_ERROR"
	RefProviderContract   Code = "SECRET_REF_PROVIDER_CONTRACT"
	RefRedactedValue      Code = "SECRET_REF_REDACTED_VALUE"
	SurfaceUnavailable    Code = "SECRET_SURFACE_UNAVAILABLE" // what a runtime says of an owner without a value
)

// Scope says how far an Error reaches.
type Scope string

// The scopes.
const (
	ScopeProvider Scope = "provider" // all refs of the provider
	ScopeRef      Scope = "ref"      // one ref
)

// Error tells why a ref has no value. It holds neither a value nor anything that a program wrote.
type Error struct {
	Scope    Scope
	Code     Code
	Source   Source
	Provider string
	RefID    string // of ScopeRef; without the white space around it
	Reason   string // OpenClaw's sentence
}

func (e *Error) Error() string { return e.Reason }

// The reasons that a log may hold, as OpenClaw words them.
const (
	reasonProvider = "secret provider failed"
	reasonMissing  = "secret reference was not found"
	reasonPolicy   = "secret provider policy denied resolution"
	reasonContract = "secret provider response violated its contract"
	reasonRedacted = "resolved secret value is a redaction placeholder"
	reasonInvalid  = "resolved secret value was invalid"
	reasonOther    = "secret resolution failed"
)

// logReasons is the one table from code to what a log may hold; a code that is not in it is reasonOther.
var logReasons = map[Code]string{
	ProviderUnavailable: reasonProvider,
	PathUnverifiable:    reasonProvider,
	RefProviderError:    reasonProvider,
	RefNotFound:         reasonMissing,
	RefPolicyDenied:     reasonPolicy,
	RefProviderContract: reasonContract,
	RefRedactedValue:    reasonRedacted,
}

// LogReason is the reason in the few words that a log may hold: they name no provider, path or id.
func (e *Error) LogReason() string {
	if reason, ok := logReasons[e.Code]; ok {
		return reason
	}
	return reasonOther
}

// Retryable reports whether another try may succeed, so that an owner may go on with the value it had: the provider failed,
// or the reference was not found.
func (e *Error) Retryable() bool {
	reason := e.LogReason()
	return reason == reasonProvider || reason == reasonMissing
}

// ValueError says that a value is none that its consumer takes. It holds no value.
type ValueError struct {
	Path        string   // of the consumer
	Expected    Expected // what it takes
	Placeholder bool     // the value is what a redacted output has in the place of a secret
}

func (e *ValueError) Error() string {
	switch {
	case e.Placeholder:
		return e.Path + " resolved to a redaction placeholder; store the real credential."
	case e.Expected == StringOrObject:
		return e.Path + " resolved to an unsupported value type."
	}
	return e.Path + " resolved to a non-string or empty value."
}

// LogReason is the reason in the few words that a log may hold.
func (e *ValueError) LogReason() string {
	if e.Placeholder {
		return reasonRedacted
	}
	return reasonInvalid
}

// group is the refs of one source and provider, which are asked for together.
type group struct {
	source   Source
	provider string
	ids      []string
}

// failf gives an Error of the whole provider.
func (g *group) failf(code Code, format string, args ...any) *Error {
	return &Error{Scope: ScopeProvider, Code: code, Source: g.source, Provider: g.provider, Reason: fmt.Sprintf(format, args...)}
}

// refuse gives an Error of one ref.
func (g *group) refuse(code Code, id, format string, args ...any) *Error {
	return &Error{Scope: ScopeRef, Code: code, Source: g.source, Provider: g.provider, RefID: id, Reason: fmt.Sprintf(format, args...)}
}
