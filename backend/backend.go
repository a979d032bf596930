package backend

import (
	"context"
	"time"
)

// Backend reads credentials from one configured store.
type Backend interface {
	// Get fetches the credential that req names. It returns ErrNotFound when the secret or its version does not
	// exist, ErrDenied when the store refuses, ErrInvalidID when the id can never exist here, ErrUnsupported for a
	// version or subject the store has no notion of, ErrUnavailable or ErrThrottled when another try may succeed,
	// ErrLocked when a person must unlock the store first, ErrAuthRequired when a login is missing, and the
	// context's error when ctx ends first.
	Get(ctx context.Context, req Request) (*Credential, error)
}

// Request names one secret of one store.
type Request struct {
	// ID is the secret's name in the store's own words; the adapter's documentation gives its form.
	ID string
	// Version pins a version or stage. A backend without versions answers ErrUnsupported, it never ignores one.
	Version string
	// Subject is whom the credential is for; zero unless the provider is scoped. The resolver has already put its
	// parts into ID where the provider has an id_template, so most backends need not look at it.
	Subject Subject
}

// Subject is whom a credential is for. It has the fields of credref.Subject, to which it converts.
type Subject struct {
	Tenant  string
	EndUser string
	Session string
	Plugin  string
}

// Type says how a credential is used.
type Type string

// The types of credentials. TypeUserValue is the type of a secret about which nothing else is known.
const (
	TypeAPIKey      Type = "api_key"
	TypeOAuth2      Type = "oauth2"
	TypeToken       Type = "token"
	TypeUserValue   Type = "user_value"
	TypeBasic       Type = "basic"
	TypeAWS         Type = "aws"
	TypeCertificate Type = "certificate"
)

// Types lists every Type.
func Types() []Type {
	return []Type{TypeAPIKey, TypeOAuth2, TypeToken, TypeUserValue, TypeBasic, TypeAWS, TypeCertificate}
}

// Credential is what a Request yields. It is immutable once returned.
type Credential struct {
	// Type is empty when the store does not say; the resolver then takes the provider's mapping, or
	// TypeUserValue.
	Type Type
	// Secret is the whole secret. It is the zero Secret when the store has fields only.
	Secret Secret
	// Fields are the parts of a structured secret, nil for a plain one.
	Fields map[string]Secret
	// Version is the store's own name of what was read; opaque, empty without versions.
	Version string
	// Expires is when the store stops to accept the credential, by this host's clock; zero: never, or unknown.
	Expires time.Time
	// RefreshAfter is when the store advises to fetch a successor; zero: no advice.
	RefreshAfter time.Time
	// Lease is set when the credential lives only as long as a lease does.
	Lease *Lease
	// Metadata tells about the secret and is never secret itself.
	Metadata map[string]string
}

// Lease bounds the life of a credential that the store made for us.
type Lease struct {
	ID        string
	Duration  time.Duration // from when it was given or renewed
	Renewable bool
}
