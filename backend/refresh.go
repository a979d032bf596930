package backend

import (
	"context"
	"errors"
)

// Refresher is a Backend that makes a successor of a grant from the grant itself, as a refresh token does. What a grant
// holds may be spent by that, whether or not an answer came: the caller lets nobody else use the same grant meanwhile, and
// keeps the successor before it uses it.
type Refresher interface {
	Backend
	// Refresh gives the successor of have, which it does not change; ErrAuthRequired when only a new login can give one.
	Refresh(ctx context.Context, req Request, have *Grant) (*Grant, error)
}

// Refresh gives the successor of have; where b is no Refresher it fetches the secret again.
func Refresh(ctx context.Context, b Backend, req Request, have *Grant) (*Grant, error) {
	if r, ok := b.(Refresher); ok {
		g, err := r.Refresh(ctx, req, have)
		if !errors.Is(err, errors.ErrUnsupported) {
			return g, err
		}
	}
	c, err := b.Get(ctx, req)
	if err != nil {
		return nil, err
	}
	return &Grant{Credential: c}, nil
}
