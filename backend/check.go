package backend

import (
	"context"
	"errors"
)

// Checker is a Backend that can cheaply tell the current version of a secret, without reading the secret.
type Checker interface {
	Backend
	// CurrentVersion gives what Get would give as Credential.Version now. It fails as Get would, or with ErrUnsupported where it
	// cannot tell: then the resolver does not ask again before it has read the secret.
	CurrentVersion(ctx context.Context, req Request) (string, error)
}

// Changed reports whether the secret differs from have. Where b is no Checker, or have has no version, it fetches the
// secret and compares; what it fetched is returned too, else the *Credential is nil.
func Changed(ctx context.Context, b Backend, req Request, have *Credential) (bool, *Credential, error) {
	if c, ok := b.(Checker); ok && have.Version != "" {
		version, err := c.CurrentVersion(ctx, req)
		if !errors.Is(err, errors.ErrUnsupported) {
			return err == nil && version != have.Version, nil, err
		}
	}
	got, err := b.Get(ctx, req)
	if err != nil {
		return false, nil, err
	}
	return !sameValue(got, have), got, nil
}

func sameValue(a, b *Credential) bool {
	if a.Type != b.Type || a.Version != b.Version || !a.Secret.Equal(b.Secret) || len(a.Fields) != len(b.Fields) {
		return false
	}
	for name, f := range a.Fields {
		if g, ok := b.Fields[name]; !ok || !f.Equal(g) {
			return false
		}
	}
	return true
}
