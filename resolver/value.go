package resolver

import (
	"maps"
	"sync/atomic"
	"time"

	"github.com/credresolve/credresolve/backend"
)

// Value is what a ref resolved to. It is shared and immutable, safe for concurrent use, and prints no secret.
type Value struct {
	secret backend.Secret
	fields map[string]backend.Secret
	known  *known
	stale  bool
}

// known is what all values of one fetch have in common.
type known struct {
	typ          backend.Type
	version      string
	revision     string
	expires      time.Time
	refreshAfter time.Time
	metadata     map[string]string
	fetched      time.Time
	failure      atomic.Pointer[failure] // of the last fetch of a successor; nil: it did not fail
}

// ValueFacts are what a Value is made of.
type ValueFacts struct {
	Secret                         backend.Secret
	Fields                         map[string]backend.Secret
	Type                           backend.Type
	Version, Revision              string
	Expires, RefreshAfter, Fetched time.Time
	Stale                          bool
	RefreshError                   error
	Metadata                       map[string]string
}

// NewValue gives a Value of f, whose maps it keeps; it is for who answers in the place of a Resolver, as a sidecar's client
// does.
func NewValue(f ValueFacts) *Value {
	v := &Value{secret: f.Secret, fields: f.Fields, stale: f.Stale, known: &known{
		typ: f.Type, version: f.Version, revision: f.Revision, expires: f.Expires, refreshAfter: f.RefreshAfter,
		metadata: f.Metadata, fetched: f.Fetched,
	}}
	if f.RefreshError != nil {
		v.known.failure.Store(&failure{err: f.RefreshError})
	}
	return v
}

// String gives backend.Redacted.
func (v *Value) String() string { return backend.Redacted }

// Secret is the one secret that the ref selects; zero of a secret with several fields that was asked for whole.
func (v *Value) Secret() backend.Secret { return v.secret }

// Fields are the parts of a structured secret, for a ref that names none; nil otherwise. The map is the caller's.
func (v *Value) Fields() map[string]backend.Secret { return maps.Clone(v.fields) }

// HasFields reports whether Fields has any.
func (v *Value) HasFields() bool { return len(v.fields) > 0 }

// Type says how the credential is used; it is never empty.
func (v *Value) Type() backend.Type { return v.known.typ }

// Version is the store's own name of what was read; opaque, empty without versions.
func (v *Value) Version() string { return v.known.version }

// Revision tells one content from another: it is an HMAC over type, secret and all fields, whichever of them the ref
// selects. Opaque, only for equality, safe to log.
func (v *Value) Revision() string { return v.known.revision }

// Expires is when the store stops to accept the credential; zero: never, or unknown.
func (v *Value) Expires() time.Time { return v.known.expires }

// RefreshAfter is when the store advised to fetch a successor; zero: no advice.
func (v *Value) RefreshAfter() time.Time { return v.known.refreshAfter }

// Stale reports whether v was served past its time to live.
func (v *Value) Stale() bool { return v.stale }

// RefreshError is why the last fetch of a successor failed, nil when it did not: the value is served, and may be used, but the
// next may not come in time. It may change while the value is held.
func (v *Value) RefreshError() error { return v.known.refreshError() }

func (k *known) refreshError() error {
	if f := k.failure.Load(); f != nil {
		return f.err
	}
	return nil
}

// Fetched is when the store gave it: of a stale one too, and of one whose lease was renewed since.
func (v *Value) Fetched() time.Time { return v.known.fetched }

// HasMetadata reports whether Metadata has any.
func (v *Value) HasMetadata() bool { return len(v.known.metadata) > 0 }

// Metadata tells about the secret and is never secret itself. The map is the caller's.
func (v *Value) Metadata() map[string]string { return maps.Clone(v.known.metadata) }
