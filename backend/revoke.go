package backend

import "context"

// Revoker is a Backend whose store can end a credential before its time.
type Revoker interface {
	Backend
	// Revoke ends c, which Get gave for req. A credential that has ended already is no error.
	Revoke(ctx context.Context, req Request, c *Credential) error
}

// Revoke ends c at the store; errors.ErrUnsupported when b cannot.
func Revoke(ctx context.Context, b Backend, req Request, c *Credential) error {
	if r, ok := b.(Revoker); ok {
		return r.Revoke(ctx, req, c)
	}
	return unsupported("revoke a credential")
}

// KeptGetter is a Revoker that keeps what it gives: what logins gave.
type KeptGetter interface {
	Revoker
	// GetKept gives what is kept for req, over or not, and asks nobody else for it: to be revoked. ErrNotFound when nothing is.
	GetKept(ctx context.Context, req Request) (*Credential, error)
}
