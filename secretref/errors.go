package secretref

// Code is the code of an Error, as OpenClaw 2026.9.6 has it.
type Code string

// The codes.
const (
	ProviderNotConfigured Code = "SECRET_PROVIDER_NOT_CONFIGURED"
	ProviderInvalid       Code = "SECRET_PROVIDER_INVALID"
	ProviderUnavailable   Code = "SECRET_PROVIDER_UNAVAILABLE"
	PathUnverifiable      Code = "SECRET_PROVIDER_PATH_SECURITY_UNVERIFIABLE"
	RefNotFound           Code = "SECRET_REF_NOT_FOUND"
	RefInvalid            Code = "SECRET_REF_INVALID"
	RefPolicyDenied       Code = "SECRET_REF_POLICY_DENIED"
	RefProviderError      Code = "SECRET_REF_PROVIDER_ERROR"
	RefProviderContract   Code = "SECRET_REF_PROVIDER_CONTRACT"
	RefRedactedValue      Code = "SECRET_REF_REDACTED_VALUE"
	SurfaceUnavailable    Code = "SECRET_SURFACE_UNAVAILABLE"
)

// Scope says how far an Error reaches.
type Scope string

// The scopes.
const (
	ScopeProvider Scope = "provider" // all refs of the provider
	ScopeRef      Scope = "ref"      // one ref
)

// Error tells why a ref has no value. It never holds one.
type Error struct {
	Scope    Scope
	Code     Code
	Source   Source
	Provider string
	RefID    string // of ScopeRef
	Reason   string // OpenClaw's text, a sentence
}

func (e *Error) Error() string { return e.Reason }

// Retryable reports whether another try may succeed, so that an owner may go on with what it had.
func (e *Error) Retryable() bool { return e.Code == ProviderUnavailable || e.Code == RefNotFound }

// LogReason is the reason in the few words that a log may hold.
func (e *Error) LogReason() string { return "secret resolution failed" }
