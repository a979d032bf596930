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
// can be tried again.
func (r *Resolver) Revoke(ctx context.Context, ref credref.Ref) error {
	return r.revoke(ctx, ref, credref.SubjectFrom(ctx))
}

// revoke is Revoke for subject.
func (r *Resolver) revoke(ctx context.Context, ref credref.Ref, subject credref.Subject) error {
	p, targets, err := r.aim(ctx, ref, &subject)
	if err != nil {
		return refError(ref, err)
	}
	var recs []*record
	r.mu.Lock()
	switch {
	case r.closed:
		r.mu.Unlock()
		return refError(ref, errClosed)
	case p.retired:
		r.mu.Unlock()
		return r.revoke(ctx, ref, subject) // to its successor
	}
	for _, t := range targets {
		if f := r.flights[t.key]; f != nil {
			f.detached = true
			delete(r.flights, t.key)
		}
		r.ended(t.key)
		if recs == nil {
			recs = r.take(t.key)
		}
	}
	p.running.Add(len(recs))
	r.calls.Add(len(recs))
	r.mu.Unlock()
	if recs == nil {
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

// take ends what is known of k, and gives it with what is owed. Called with r.mu held.
func (r *Resolver) take(k key) []*record {
	var out []*record
	if e := r.cache.Peek(k); e != nil && e.Payload.cred != nil {
		rec := &e.Payload
		r.cache.Remove(k)
		r.publish(rec, EventRevoked, nil)
		out = append(out, rec)
	}
	for _, rec := range r.owed[k] {
		if out == nil || !sameAtStore(rec, out[0]) {
			out = append(out, rec)
		}
	}
	return out
}

// sameAtStore reports whether two records of one key are one thing to revoke.
func sameAtStore(a, b *record) bool {
	if a.cred.Lease == nil || b.cred.Lease == nil {
		return a.cred.Lease == b.cred.Lease
	}
	return a.cred.Lease.ID == b.cred.Lease.ID
}

// owe keeps rec, whose revocation failed. Called with r.mu held.
func (r *Resolver) owe(rec *record) {
	n, now := 0, time.Now()
	for k, list := range r.owed {
		// What is over has ended at its store.
		if list = slices.DeleteFunc(list, func(o *record) bool { return !o.known.expires.IsZero() && o.known.expires.Before(now) }); len(list) == 0 {
			delete(r.owed, k)
			continue
		}
		r.owed[k] = list
		n += len(list)
	}
	r.paid(rec)
	if k := rec.target.key; n < maxOwed {
		r.owed[k] = append(r.owed[k], rec)
	}
}

// paid forgets what was owed of rec. Called with r.mu held.
func (r *Resolver) paid(rec *record) {
	k := rec.target.key
	list := slices.DeleteFunc(r.owed[k], func(o *record) bool { return sameAtStore(o, rec) })
	if len(list) == 0 {
		delete(r.owed, k)
	} else {
		r.owed[k] = list
	}
}

// atStore ends rec, which was taken, at its store. The caller has counted the call in p.running and Resolver.calls.
func (r *Resolver) atStore(ctx context.Context, p *provider, rec *record) error {
	place := rec.target.key
	err := p.revoke(ctx, rec)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil, errors.Is(err, errors.ErrUnsupported):
		r.paid(rec)
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
	}
	if e := r.cache.Peek(place); e != nil && e.Payload.cred != nil && e.Payload.known.revision == rec.known.revision {
		r.cache.Remove(place)
		r.publish(rec, EventRevoked, nil)
		r.ended(place)
	}
	return nil
}

// EndSession ends everything that is known for subjects of that session, and its leases at their stores. The error is the
// first of a store; all are tried, and those that failed are again when it is called again. What is being fetched for the
// session is given to nobody, and a lease among it is ended when it comes.
func (r *Resolver) EndSession(ctx context.Context, session string) error {
	if session == "" {
		return nil
	}
	_, err := r.endLeases(ctx, func(k key) (ends, forgets bool) {
		of := k.whom().Session == session
		return of, of
	})
	return err
}

// RevokeLeases ends every leased credential that is known, here and at its store, as a program that ends may want to. It
// tells how many were ended; the error is the first of a store; all are tried. What is being fetched meanwhile is not among
// them.
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
	var forget []key
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return 0, errClosed
	}
	add := func(k key, rec *record) {
		if p := r.owner(k); p != nil && rec.cred.Lease != nil {
			p.running.Add(1)
			r.calls.Add(1)
			leases = append(leases, lease{p, rec})
		}
	}
	some := false
	r.cache.RemoveIf(func(k key, e *entry) bool {
		ends, forgets := which(k)
		if rec := &e.Payload; ends && rec.cred != nil && rec.cred.Lease != nil {
			add(k, rec)
			forget = append(forget, k)
		} else if forgets {
			forget = append(forget, k)
		}
		return false
	})
	for k, list := range r.owed {
		ends, forgets := which(k)
		if !ends {
			continue
		}
		for _, rec := range list {
			add(k, rec)
		}
		if forgets { // what has a lease is owed again if its store fails again
			delete(r.owed, k)
		}
	}
	for _, k := range forget { // apart from the walk, since what leaves is told of
		if e := r.cache.Peek(k); e != nil {
			if r.cache.Remove(k); e.Payload.cred != nil {
				r.publish(&e.Payload, EventRevoked, nil)
			}
			some = true
		}
	}
	for k, f := range r.flights {
		if _, forgets := which(k); forgets {
			f.detached, f.unwanted = true, true
			delete(r.flights, k)
		}
	}
	if some {
		r.changed(ChangeEnded)
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

// discard takes what f brought from who waits for it, and ends its lease. Called with r.mu held, by a call of f's provider or
// its queue.
func (r *Resolver) discard(f *flight) {
	e := f.entry
	f.entry, f.err = nil, errSessionEnded
	if e == nil || e.Payload.cred.Lease == nil {
		return
	}
	f.p.running.Add(1)
	r.calls.Add(1)
	go func() { _ = r.atStore(f.p.ctx, f.p, &e.Payload) }()
}

var errSessionEnded error = &backend.Error{Code: backend.CodeDenied, Reason: "the session has ended"}
