package resolver

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// maxOwed is how many credentials are kept whose revocation failed at their store.
const maxOwed = 1000

// Revoke ends the credential of ref that is known here, at once for every holder of a handle, and then at its store. It
// returns ErrNotFound when none is known, errors.ErrUnsupported when the store cannot end one. One that failed at the store
// stays known for that, until its end, and can be tried again, beside what was fetched of ref meanwhile.
func (r *Resolver) Revoke(ctx context.Context, ref credref.Ref) error {
	return r.revoke(ctx, ref, credref.SubjectFrom(ctx))
}

// revoke is Revoke for subject.
func (r *Resolver) revoke(ctx context.Context, ref credref.Ref, subject credref.Subject) error {
	p, targets, err := r.aim(ctx, ref, &subject)
	if err != nil {
		return refError(ref, err)
	}
	r.mu.Lock()
	switch {
	case r.closed:
		r.mu.Unlock()
		return refError(ref, errClosed)
	case p.retired:
		r.mu.Unlock()
		return r.revoke(ctx, ref, subject) // to its successor
	}
	var recs []*record
	for _, t := range targets {
		f := r.flights[t.key]
		if f != nil {
			f.detached, f.ends = true, f.renew != nil
			delete(r.flights, t.key)
		}
		delete(r.kept, t.key)
		if f != nil && !r.served(t.key) {
			r.publishEnd(t.key, EventRevoked, nil)
		}
		recs = r.take(t.key)
		r.ended(t.key)
		if len(recs) > 0 {
			break // what wider subjects share is another one
		}
	}
	p.running.Add(len(recs))
	r.calls.Add(len(recs))
	r.mu.Unlock()
	if len(recs) == 0 {
		return refError(ref, backend.Errorf(backend.CodeNotFound, "no credential of it is known here, so that there is none to revoke"))
	}
	var first error
	for _, rec := range recs {
		if err := r.atStore(ctx, p, rec); err != nil && first == nil {
			first = refError(ref, err)
		}
	}
	return first
}

// take ends what is known of k, and gives what is to be ended at the store. Called with r.mu held.
func (r *Resolver) take(k key) []*record {
	var out []*record
	if e := r.cache.Peek(k); e != nil && e.Payload.cred != nil {
		out = append(out, &e.Payload)
		r.cache.Remove(k)
		r.publishEnd(k, EventRevoked, nil)
	}
	for _, rec := range r.owed[k] {
		if len(out) == 0 || !sameAtStore(rec, out[0]) {
			out = append(out, rec)
		}
	}
	return out
}

// sameAtStore reports whether two records of one key are one thing to revoke.
func sameAtStore(a, b *record) bool {
	if a.cred.Lease == nil || b.cred.Lease == nil {
		return a.cred.Lease == b.cred.Lease && a.known.revision == b.known.revision
	}
	return a.cred.Lease.ID == b.cred.Lease.ID
}

// owe keeps rec, whose revocation failed, until it is done or the credential's life is over. Called with r.mu held.
func (r *Resolver) owe(rec *record) {
	k := rec.target.key
	r.settle(rec) // the one before a renewal ends sooner
	if r.owing >= maxOwed {
		return
	}
	r.owed[k] = append(r.owed[k], rec)
	r.owing++
	if end := rec.known.expires; !end.IsZero() {
		r.lapses[rec] = time.AfterFunc(max(time.Until(end), 0), func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.settle(rec)
		})
	}
}

// settle lets go of what is owed of rec. Called with r.mu held.
func (r *Resolver) settle(rec *record) {
	k := rec.target.key
	r.owed[k] = slices.DeleteFunc(r.owed[k], func(o *record) bool {
		if !sameAtStore(o, rec) {
			return false
		}
		if t := r.lapses[o]; t != nil {
			t.Stop()
			delete(r.lapses, o)
		}
		r.owing--
		return true
	})
	if len(r.owed[k]) == 0 {
		delete(r.owed, k)
	}
}

// disown ends at its store what f brought, which is kept nowhere and was given to nobody. Called with r.mu held.
func (r *Resolver) disown(f *flight, rec record) {
	if r.closed || f.p.retired {
		return
	}
	f.p.running.Add(1)
	r.calls.Add(1)
	go func() { _ = r.atStore(r.ctx, f.p, &rec) }() // one that fails is owed
}

// atStore ends rec, which was taken, at its store. The caller has counted the call in p.running and Resolver.calls.
func (r *Resolver) atStore(ctx context.Context, p *provider, rec *record) error {
	place := rec.target.key
	err := p.revoke(ctx, rec)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil, errors.Is(err, errors.ErrUnsupported):
		r.settle(rec)
	case !p.retired:
		r.owe(rec)
	}
	if err != nil {
		return err
	}
	// Who asked while the store was at it may have been given it once more.
	if f := r.flights[place]; f != nil && rec.cred.Lease == nil { // a lease is never given twice
		f.detached = true
		delete(r.flights, place)
		switch e := r.cache.Peek(place); {
		case e == nil || e.Payload.cred == nil:
			r.publishEnd(place, EventRevoked, nil)
		case e.Payload.known.revision != rec.known.revision:
			now := r.clock.exact()
			e.Payload.due, e.Payload.refresh = false, now+int64(minRefresh)
			r.publish(&e.Payload, EventFailed, errEnded)
			r.schedule(e, now)
		}
	}
	if e := r.cache.Peek(place); e != nil && e.Payload.cred != nil && e.Payload.known.revision == rec.known.revision {
		r.cache.Remove(place)
		r.publishEnd(place, EventRevoked, nil)
		r.ended(place)
	}
	return nil
}

// EndSession ends everything that is known for subjects of that session, and its leases at their stores, those too that a fetch
// under way brings: who waits for it is denied. The error is the first of a store; all are tried, and what failed can be again.
func (r *Resolver) EndSession(ctx context.Context, session string) error {
	if session == "" {
		return nil
	}
	return r.endScope(ctx, func(s credref.Subject) bool { return s.Session == session })
}

// EndPlugin is EndSession for subjects of that plugin.
func (r *Resolver) EndPlugin(ctx context.Context, plugin string) error {
	if plugin == "" {
		return nil
	}
	return r.endScope(ctx, func(s credref.Subject) bool { return s.Plugin == plugin })
}

func (r *Resolver) endScope(ctx context.Context, within func(credref.Subject) bool) error {
	_, err := r.endLeases(ctx, func(k key) (ends, forgets bool) {
		of := within(k.whom())
		return of, of
	})
	return err
}

// RevokeLeases ends every leased credential that is known, here and at its store, as a program that ends may want to; what is
// fetched after it is not among them. It tells how many were ended; the error is the first of a store; all are tried.
func (r *Resolver) RevokeLeases(ctx context.Context) (revoked int, err error) {
	return r.endLeases(ctx, func(key) (bool, bool) { return true, false })
}

// endLeases ends leases of the keys that which says to end, and forgets what else is known of those that it says to forget.
func (r *Resolver) endLeases(ctx context.Context, which func(key) (ends, forgets bool)) (revoked int, first error) {
	type lease struct {
		p   *provider
		rec *record
	}
	var leases []lease
	over := map[key]bool{} // whether there was a credential, or one was being fetched
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return 0, errClosed
	}
	add := func(k key, rec *record) {
		if p := r.owner(k); p != nil && !p.retired {
			p.running.Add(1)
			r.calls.Add(1)
			leases = append(leases, lease{p, rec})
		}
	}
	r.cache.RemoveIf(func(k key, e *entry) bool {
		ends, forgets := which(k)
		rec := &e.Payload
		if ends = ends && rec.cred != nil && rec.cred.Lease != nil; ends {
			add(k, rec)
		}
		if ends || forgets {
			over[k] = rec.cred != nil
		}
		return ends || forgets
	})
	for k, recs := range r.owed {
		if ends, _ := which(k); ends {
			for _, rec := range recs {
				add(k, rec)
			}
		}
	}
	for k, f := range r.flights {
		_, ended := over[k] // a renewal of it, or its successor
		if _, forgets := which(k); ended || forgets {
			f.detached, f.ends = true, true
			delete(r.flights, k)
			over[k] = true
		}
	}
	for k, had := range over {
		if had {
			r.publishEnd(k, EventRevoked, nil)
		}
	}
	r.mu.Unlock()

	var mu sync.Mutex
	var calls sync.WaitGroup
	for _, l := range leases {
		calls.Go(func() { // the provider's concurrency bounds them
			err := r.atStore(ctx, l.p, l.rec)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				revoked++
			} else if first == nil {
				first = refError(l.rec.target.key.ref(), err)
			}
		})
	}
	calls.Wait()
	return revoked, first
}
