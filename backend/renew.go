package backend

import (
	"context"
	"time"
)

// Renewer is a Backend whose leases can be prolonged.
type Renewer interface {
	Backend
	// Renew prolongs lease by increment, or by what the store prefers when increment is zero, and gives the lease as
	// it is then. The store may grant less, and nothing past the lease's greatest life. ErrExpired when it is gone.
	Renew(ctx context.Context, lease Lease, increment time.Duration) (Lease, error)
}

// Renew prolongs lease; errors.ErrUnsupported when b cannot, or the lease is not renewable.
func Renew(ctx context.Context, b Backend, lease Lease, increment time.Duration) (Lease, error) {
	if r, ok := b.(Renewer); ok && lease.Renewable {
		return r.Renew(ctx, lease, increment)
	}
	return Lease{}, unsupported("renew this lease")
}
