package resolver

import (
	"context"
	"errors"
	"sync"

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
	var rec *record
	r.mu.Lock()
	if p.retired && !r.closed {
		r.mu.Unlock()
		return r.revoke(ctx, ref, subject) // to its successor
	}
	for _, t := range targets {
		if f := r.flights[t.key]; f != nil {
			f.detached = true
			delete(r.flights, t.key)
		}
		delete(r.kept, t.key)
		if rec == nil {
			rec = r.take(t.key)
		}
	}
	if rec != nil {
		p.running.Add(1)
		r.calls.Add(1)
	}
	r.changed(ChangeEnded)
	closed := r.closed
	r.mu.Unlock()
	switch {
	case closed:
		if rec != nil {
			p.running.Done()
			r.calls.Done()
		}
		return refError(ref, errClosed)
	case rec == nil:
		return refError(ref, backend.Errorf(backend.CodeNotFound, "no credential of it is known here, so that there is none to revoke"))
	}
	if err := r.atStore(ctx, p, rec); err != nil {
		return refError(ref, err)
	}
	return nil
}

// take ends what is known of k, and gives it; nil when there is none. Called with r.mu held.
func (r *Resolver) take(k key) *record {
	if e := r.cache.Peek(k); e != nil && e.Payload.cred != nil {
		rec := &e.Payload
		r.cache.Remove(k)
		r.publish(rec, EventRevoked, nil)
		return rec
	}
	return r.owed[k]
}

// atStore ends rec, which was taken, at its store. The caller has counted the call in p.running and Resolver.calls.
func (r *Resolver) atStore(ctx context.Context, p *provider, rec *record) error {
	place := rec.target.key
	err := p.revoke(ctx, rec)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil, errors.Is(err, errors.ErrUnsupported):
		delete(r.owed, place)
	case len(r.owed) < maxOwed && !p.retired:
		r.owed[place] = rec
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
		r.changed(ChangeEnded)
	}
	return nil
}

// EndSession ends everything that is known for subjects of that session, and its leases at their stores. The error is the
// first of a store; all are tried.
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
// tells how many were ended; the error is the first of a store; all are tried.
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
		if p := r.owner(k); p != nil && !p.retired && rec.cred.Lease != nil {
			p.running.Add(1)
			r.calls.Add(1)
			leases = append(leases, lease{p, rec})
		}
	}
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
	for k, rec := range r.owed {
		if ends, _ := which(k); ends {
			add(k, rec)
		}
	}
	for _, k := range forget { // apart from the walk, since what leaves is told of
		if e := r.cache.Peek(k); e != nil {
			r.cache.Remove(k)
			r.publish(&e.Payload, EventRevoked, nil)
		}
	}
	for k, f := range r.flights {
		if _, forgets := which(k); forgets {
			f.detached = true
			delete(r.flights, k)
		}
	}
	for k := range r.kept {
		if _, forgets := which(k); forgets {
			delete(r.kept, k)
		}
	}
	r.changed(ChangeEnded)
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
