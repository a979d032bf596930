package backend

import (
	"context"
	"errors"
)

// Refresher is a Backend that makes a successor of a credential from the credential itself, as a refresh token does.
type Refresher interface {
	Backend
	// Refresh gives the successor of have; ErrAuthRequired when only a new login can.
	Refresh(ctx context.Context, req Request, have *Credential) (*Credential, error)
}

// Refresh gives the successor of have; where b is no Refresher it fetches the secret again.
func Refresh(ctx context.Context, b Backend, req Request, have *Credential) (*Credential, error) {
	if r, ok := b.(Refresher); ok {
		c, err := r.Refresh(ctx, req, have)
		if !errors.Is(err, errors.ErrUnsupported) {
			return c, err
		}
	}
	return b.Get(ctx, req)
}
