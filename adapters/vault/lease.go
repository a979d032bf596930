package vault

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/credresolve/credresolve/backend"
)

// leases remembers under which session a lease was given: Vault ends a lease with the token that got it, however long the
// lease itself was to last. It is safe for concurrent use.
type leases struct {
	mu    sync.Mutex
	under map[string]*session
	sweep int // look for ended sessions when there are that many
}

// took records a new lease of s and gives it with a duration that does not outlast the session.
func (l *leases) took(lease backend.Lease, s *session) backend.Lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.under) >= l.sweep {
		for id, s := range l.under {
			if !s.live() {
				delete(l.under, id)
			}
		}
		l.sweep = max(64, 2*len(l.under))
	}
	if l.under == nil {
		l.under = make(map[string]*session)
	}
	l.under[lease.ID] = s
	return bounded(lease, s)
}

// bound gives a renewed lease with a duration that does not outlast the session under which it was given.
func (l *leases) bound(lease backend.Lease) backend.Lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s, ok := l.under[lease.ID]; ok {
		return bounded(lease, s)
	}
	return lease
}

func (l *leases) forget(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.under, id)
}

func bounded(lease backend.Lease, s *session) backend.Lease {
	lease.Duration = min(lease.Duration, max(s.left(), 0))
	return lease
}

// Renew implements backend.Renewer.
func (b *Backend) Renew(ctx context.Context, lease backend.Lease, increment time.Duration) (backend.Lease, error) {
	body, err := json.Marshal(struct {
		ID        string `json:"lease_id"`
		Increment int64  `json:"increment"`
	}{lease.ID, int64((max(increment, 0) + time.Second - 1) / time.Second)})
	if err != nil {
		return backend.Lease{}, backend.Errorf(backend.CodeInternal, "the lease id could not be encoded")
	}
	a, err := b.do(ctx, call{method: http.MethodPut, path: "sys/leases/renew", body: body})
	if err != nil {
		return backend.Lease{}, err
	}
	defer a.wipe()
	if err := b.failure(a, "sys/leases/renew"); err != nil {
		switch {
		case errors.Is(err, backend.ErrExpired):
			b.leases.forget(lease.ID)
			return backend.Lease{}, errLeaseGone
		case errors.Is(err, errors.ErrUnsupported):
			return backend.Lease{}, errNotRenewed
		}
		return backend.Lease{}, err
	}
	renewed := backend.Lease{ID: lease.ID, Duration: time.Duration(a.LeaseDuration) * time.Second, Renewable: a.Renewable}
	if renewed.Duration <= 0 {
		return backend.Lease{}, errLeaseGone
	}
	return b.leases.bound(renewed), nil
}

// Revoke implements backend.Revoker: the store ends the credential before Revoke returns.
func (b *Backend) Revoke(ctx context.Context, _ backend.Request, c *backend.Credential) error {
	if c.Lease == nil {
		return errNoLease
	}
	body, err := json.Marshal(struct {
		ID   string `json:"lease_id"`
		Sync bool   `json:"sync"`
	}{c.Lease.ID, true})
	if err != nil {
		return backend.Errorf(backend.CodeInternal, "the lease id could not be encoded")
	}
	a, err := b.do(ctx, call{method: http.MethodPut, path: "sys/leases/revoke", body: body})
	if err != nil {
		return err
	}
	if err := b.failure(a, "sys/leases/revoke"); err != nil && !errors.Is(err, backend.ErrExpired) {
		return err
	}
	b.leases.forget(c.Lease.ID)
	return nil
}
