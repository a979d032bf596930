package backend

import "context"

// Prober is a Backend that can tell whether Get would work, without reading a secret.
type Prober interface {
	Backend
	// Probe reaches the store and logs in. It reads no secret, and fails as Get would for every secret: a store that refuses
	// single secrets is no failure of Probe.
	Probe(ctx context.Context) error
}

// Probe reaches the store of b and logs in; errors.ErrUnsupported when b cannot do so without reading a secret.
func Probe(ctx context.Context, b Backend) error {
	if p, ok := b.(Prober); ok {
		return p.Probe(ctx)
	}
	return unsupported("be probed without reading a secret")
}

// CredentialProber is a Backend that can tell whether one credential is still in force at its store.
type CredentialProber interface {
	Backend
	// ProbeCredential asks the store about have, by introspection or a harmless call with it: nil when it is in force,
	// ErrExpired when it has ended, ErrDenied when it is refused.
	ProbeCredential(ctx context.Context, req Request, have *Credential) error
}

// ProbeCredential asks the store of b whether have is in force; errors.ErrUnsupported when b cannot tell.
func ProbeCredential(ctx context.Context, b Backend, req Request, have *Credential) error {
	if p, ok := b.(CredentialProber); ok {
		return p.ProbeCredential(ctx, req, have)
	}
	return unsupported("tell whether a credential is in force")
}
