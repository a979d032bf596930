package conformance

import (
	"time"

	"github.com/credresolve/credresolve/backend"
)

const (
	leaseTime    = 10 * time.Minute
	longestLease = 30 * time.Minute
	leaseSlack   = 5 * time.Second // what a store may round, and a call may take
)

func leaseCases() []Case {
	return []Case{
		{
			Name: "lease/none", Rule: "a secret that lives until it is removed has no lease and no expiry", Needs: []string{"get/value"},
			run: func(t *trial) {
				b := t.open()
				id, v := t.stored()
				t.check(b, id, v)
				if c := t.mustGet(b, request(id)); c.Lease != nil || !c.Expires.IsZero() {
					t.Errorf("a plain secret: expected neither Lease nor Expires, saw one")
				}
			},
		},
		{
			Name: "lease/expires", Capability: "lease", Rule: "a leased credential says when it ends: Expires is when it was given plus the lease's duration",
			Needs: []string{"get/value"},
			run: func(t *trial) {
				b, req := t.leased()
				start := time.Now()
				t.wantExpiry(t.mustGet(b, req), start)
			},
		},
		{
			Name: "lease/skew", Capability: "lease", Rule: "Expires is in this host's time, also when the store's clock is off", Needs: []string{"lease/expires"},
			run: func(t *trial) {
				b, req := t.leased()
				t.fault(Fault{Kind: FaultSkew})
				start := time.Now()
				t.wantExpiry(t.mustGet(b, req), start)
			},
		},
		{
			Name: "lease/renew", Capability: "renew", Rule: "Renew gives the lease as it is then", Needs: []string{"lease/expires"},
			run: func(t *trial) {
				r, _, lease := t.renewable()
				got, err := t.renew(r, lease, leaseTime+time.Minute)
				switch {
				case err != nil:
					t.Errorf("Renew: expected a lease, saw %s", t.sawErr(err))
				case got.ID != lease.ID:
					t.Errorf("the renewed lease: expected the same id, saw another")
				case got.Duration < leaseTime-leaseSlack || got.Duration > leaseTime+time.Minute:
					t.Errorf("the renewed lease: expected about %v, saw %v", leaseTime+time.Minute, got.Duration)
				}
			},
		},
		{
			Name: "lease/longest", Capability: "renew", Rule: "a renewed lease tells no more time than its greatest life leaves", Needs: []string{"lease/renew"},
			run: func(t *trial) {
				r, _, lease := t.renewable()
				got, err := t.renew(r, lease, 100*longestLease)
				if err != nil || got.Duration <= 0 || got.Duration > longestLease {
					t.Errorf("Renew by far more than the store allows: expected a lease of %v at most, saw %v and %s", longestLease, got.Duration, t.sawErr(err))
				}
			},
		},
		{
			Name: "lease/expired", Capability: "renew", Rule: "a lease that is over cannot be renewed: expired", Needs: []string{"lease/renew"},
			run: func(t *trial) {
				r, _, lease := t.renewable()
				t.fault(Fault{Kind: FaultExpire})
				_, err := t.renew(r, lease, 0)
				t.wantErr("Renew of a lease that is over", err, backend.CodeExpired)
			},
		},
		{
			Name: "lease/revoke", Capability: "revoke", Rule: "Revoke ends the lease at the store", Needs: []string{"lease/expires", "lease/expired"},
			run: func(t *trial) {
				b, req := t.leased()
				c := t.mustGet(b, req)
				t.revoke(b, req, c)
				r, ok := b.(backend.Renewer)
				t.need(ok, "the capability renew", "only a Renew shows here that the lease is gone")
				_, err := t.renew(r, *c.Lease, 0)
				t.wantErr("Renew of a lease that was revoked", err, backend.CodeExpired)
			},
		},
		{
			Name: "lease/revoke-twice", Capability: "revoke", Rule: "revoking what has ended already is no error", Needs: []string{"lease/expires"},
			run: func(t *trial) {
				b, req := t.leased()
				c := t.mustGet(b, req)
				t.revoke(b, req, c)
				t.revoke(b, req, c)
			},
		},
	}
}

// leased gives a backend and the request for a credential with a lease, or skips the case.
func (t *trial) leased() (backend.Backend, backend.Request) {
	t.need(t.h.Lease != nil, "the capability lease", "set Harness.Lease")
	b := t.open()
	t.at("making a lease through the harness")
	return b, request(t.h.Lease(t, leaseTime, longestLease))
}

func (t *trial) wantExpiry(c *backend.Credential, start time.Time) {
	if c.Lease == nil {
		t.Fatalf("a leased credential: expected a Lease, saw none")
	}
	if c.Lease.ID == "" || c.Lease.Duration <= 0 || c.Lease.Duration > leaseTime+leaseSlack {
		t.Errorf("the lease: expected an id and a duration of about %v, saw an id of %d bytes and %v", leaseTime, len(c.Lease.ID), c.Lease.Duration)
	}
	if ends := start.Add(c.Lease.Duration); c.Expires.Before(ends.Add(-leaseSlack)) || c.Expires.After(time.Now().Add(c.Lease.Duration+leaseSlack)) {
		t.Errorf("Expires: expected about %v from now, saw %v", c.Lease.Duration, time.Until(c.Expires).Round(time.Second))
	}
	if c.RefreshAfter.After(c.Expires) {
		t.Errorf("RefreshAfter: expected it before Expires, saw it %v after", c.RefreshAfter.Sub(c.Expires))
	}
}

func (t *trial) renewable() (backend.Renewer, backend.Request, backend.Lease) {
	b, req := t.leased()
	r := capability[backend.Renewer](t, b, "renew")
	c := t.mustGet(b, req)
	if c.Lease == nil || !c.Lease.Renewable {
		t.Fatalf("a credential of Harness.Lease: expected a lease that is renewable, saw none")
	}
	return r, req, *c.Lease
}

func (t *trial) renew(r backend.Renewer, lease backend.Lease, increment time.Duration) (backend.Lease, error) {
	t.at("in Renew")
	got, err := r.Renew(t.ctx, lease, increment)
	t.supported(err, "renew")
	return got, err
}

func (t *trial) revoke(b backend.Backend, req backend.Request, c *backend.Credential) {
	r := capability[backend.Revoker](t, b, "revoke")
	t.at("in Revoke")
	err := r.Revoke(t.ctx, req, c)
	t.supported(err, "revoke")
	if err != nil {
		t.Errorf("Revoke: expected no error, saw %s", t.sawErr(err))
	}
}
