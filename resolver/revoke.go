package resolver

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

const (
	maxOwed   = 1000                   // credentials that are kept whose revocation failed at their store
	firstOwed = 5 * time.Second        // until one is tried again, doubled each time
	heedTime  = 100 * time.Millisecond // for a call to end after its context
	mostOwed  = 5 * time.Minute
)

// debt is a credential that is ended here and not yet at its store.
type debt struct {
	rec   *record
	tries int         // that failed
	timer *time.Timer // of the next one, or of the credential's end
}

// Revoke ends the credential of ref that is known here, at once for every holder of a handle, and then at its store; of a provider
// that keeps what logins gave, also what nobody has asked for yet. Who waits for a fetch of it gets what another one brings. It
// returns ErrNotFound when none is known, errors.ErrUnsupported when the store cannot end one. One that failed at the store stays
// known for that, beside what was fetched of ref meanwhile, and is tried again until its end, as FinishRevocations does.
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
	for i := range targets { // what wider subjects share is another one
		recs, err = r.takeFrom(ctx, p, &targets[i])
		if err != nil && isReplaced(err) {
			return r.revoke(ctx, ref, subject) // to its successor
		}
		if err != nil || len(recs) > 0 {
			break
		}
	}
	if err == nil && len(recs) == 0 {
		err = backend.Errorf(backend.CodeNotFound, "no credential of it is known here, so that there is none to revoke")
	}
	if err != nil {
		return refError(ref, err)
	}
	var first error
	for _, rec := range recs {
		if err := r.atStore(ctx, p, rec); err != nil && first == nil {
			first = refError(ref, err)
		}
	}
	return first
}

// takeFrom ends what is known of t, a place of p, and gives what is to be ended at the store, each counted for atStore.
func (r *Resolver) takeFrom(ctx context.Context, p *provider, t *target) ([]*record, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.gone(p); err != nil {
		return nil, err
	}
	var unasked *record
	if keeper, ok := p.Backend.(backend.KeptGetter); ok && !r.served(t.key) && r.kept[t.key] == nil {
		p.running.Add(1)
		r.calls.Add(1)
		r.mu.Unlock()
		c, err := p.kept(ctx, keeper, t)
		r.mu.Lock()
		switch gone := r.gone(p); {
		case gone != nil:
			return nil, gone
		case errors.Is(err, backend.ErrNotFound):
		case err != nil:
			return nil, err
		default:
			unasked = r.unknown(p, t, c)
		}
	}
	if f := r.flights[t.key]; f != nil && (f.out != 0 || f.renew != nil) { // else what it brings is read later
		f.detached, f.again = true, true
		delete(r.flights, t.key)
		if !r.served(t.key) {
			r.publishEnd(t.key, EventRevoked, nil)
		}
	}
	recs := r.take(p, t)
	if unasked != nil && !slices.ContainsFunc(recs, func(one *record) bool { return sameAtStore(one, unasked) }) {
		recs = append(recs, unasked)
		r.publishEnd(t.key, EventRevoked, nil)
	}
	for range recs {
		r.ending(p)
	}
	return recs, nil
}

// gone says why nothing begins at p. Called with r.mu held.
func (r *Resolver) gone(p *provider) error {
	switch {
	case r.closed:
		return errClosed
	case p.retired:
		return errReplaced
	}
	return nil
}

// unknown gives a record of c, which is given to nobody. Called with r.mu held.
func (r *Resolver) unknown(p *provider, t *target, c *backend.Credential) *record {
	return &record{cred: c, target: t, known: &known{expires: c.Expires, revision: r.revisionOf(p, t, c)}}
}

// ending counts a call of atStore that is to come. Called with r.mu held.
func (r *Resolver) ending(p *provider) {
	p.running.Add(1)
	r.calls.Add(1)
	r.under++
}

// take ends what is known of t, and gives what is to be ended at the store. Called with r.mu held.
func (r *Resolver) take(p *provider, t *target) []*record {
	var out []*record
	k := t.key
	if e := r.cache.Peek(k); e != nil && e.Payload.cred != nil {
		out = append(out, &e.Payload)
		r.cache.Remove(k)
		r.publishEnd(k, EventRevoked, nil)
	} else if one := r.kept[k]; one != nil {
		out = append(out, r.unknown(p, t, one.Credential))
	}
	delete(r.kept, k)
	for _, d := range r.owed[k] {
		if len(out) == 0 || !sameAtStore(d.rec, out[0]) {
			out = append(out, d.rec)
		}
		d.timer.Stop() // it is tried now
	}
	r.ended(k)
	return out
}

// sameAtStore reports whether two records of one key are one thing to revoke.
func sameAtStore(a, b *record) bool {
	if a.cred.Lease == nil || b.cred.Lease == nil {
		return a.cred.Lease == b.cred.Lease && a.known.revision == b.known.revision
	}
	return a.cred.Lease.ID == b.cred.Lease.ID
}

// owe keeps rec, whose revocation failed with err, and has it tried again until it is done or the credential's life is over.
// Called with r.mu held.
func (r *Resolver) owe(rec *record, err error) {
	d := &debt{rec: rec, tries: r.settle(rec) + 1} // the one before a renewal ends sooner
	if r.owing >= maxOwed {
		return
	}
	k := rec.target.key
	r.owed[k] = append(r.owed[k], d)
	r.owing++
	pause := min(firstOwed<<min(d.tries-1, 10), mostOwed)
	wait := max(time.Duration(float64(pause)*(0.75+0.5*rand.Float64())), min(backend.RetryAfter(err), mostOwed))
	end := rec.known.expires
	if p := r.owner(k); p != nil {
		if _, keeps := p.Backend.(backend.KeptGetter); keeps { // what a login gave goes on after that
			end = time.Time{}
		}
	}
	over := !end.IsZero() && time.Until(end) <= wait
	if over {
		wait = max(time.Until(end), 0)
	}
	d.timer = time.AfterFunc(wait, func() { r.due(d, over) })
}

// due tries again to end what is owed by d, or lets go of it when its life is over.
func (r *Resolver) due(d *debt, over bool) {
	k := d.rec.target.key
	r.mu.Lock()
	p := r.owner(k)
	if p == nil || r.gone(p) != nil || !slices.Contains(r.owed[k], d) {
		r.mu.Unlock()
		return
	}
	if over {
		r.settle(d.rec)
		r.mu.Unlock()
		return
	}
	if p.repeats { // one after the other: the store may be slow
		d.timer.Reset(minRefresh)
		r.mu.Unlock()
		return
	}
	p.repeats = true
	r.ending(p)
	r.mu.Unlock()
	_ = r.atStore(r.ctx, p, d.rec) // one that fails is owed again
	r.mu.Lock()
	p.repeats = false
	r.mu.Unlock()
}

// settle lets go of what is owed of rec, and tells how often it was tried. Called with r.mu held.
func (r *Resolver) settle(rec *record) (tries int) {
	k := rec.target.key
	r.owed[k] = slices.DeleteFunc(r.owed[k], func(d *debt) bool {
		if !sameAtStore(d.rec, rec) {
			return false
		}
		d.timer.Stop()
		r.owing--
		tries = max(tries, d.tries)
		return true
	})
	if len(r.owed[k]) == 0 {
		delete(r.owed, k)
	}
	return tries
}

// FinishRevocations tries again and again to end at their stores what is ended here and failed there, until ctx ends, as a program
// that ends may want to. It tells how many are left.
func (r *Resolver) FinishRevocations(ctx context.Context) (left int) {
	for pause := firstBackoff; ; pause = min(2*pause, maxBackoff) {
		var calls sync.WaitGroup
		r.mu.Lock()
		for k, debts := range r.owed {
			p := r.owner(k)
			if p == nil || r.gone(p) != nil {
				continue
			}
			for _, d := range debts {
				r.ending(p)
				d.timer.Stop()
				calls.Go(func() { _ = r.atStore(ctx, p, d.rec) })
			}
		}
		r.mu.Unlock()
		finished := wait(ctx, &calls)
		r.mu.Lock()
		left = r.owing + r.under
		closed := r.closed
		r.mu.Unlock()
		if left == 0 || closed || !finished {
			return left
		}
		select {
		case <-ctx.Done():
			return left
		case <-time.After(pause):
		}
	}
}

// disown ends at its store what f brought, which is kept nowhere and was given to nobody. Called with r.mu held.
func (r *Resolver) disown(f *flight, rec record) {
	if r.gone(f.p) != nil {
		return
	}
	r.ending(f.p)
	go func() { _ = r.atStore(r.ctx, f.p, &rec) }() // one that fails is owed
}

// atStore ends rec, which was taken, at its store. The caller has counted it by ending.
func (r *Resolver) atStore(ctx context.Context, p *provider, rec *record) error {
	place := rec.target.key
	err := p.revoke(ctx, rec)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.under--
	late := false // it is ended by another try than the first
	switch {
	case err == nil, errors.Is(err, errors.ErrUnsupported):
		late = r.settle(rec) > 0
	case r.gone(p) == nil:
		r.owe(rec, err)
		r.publishUnended(place, p.judge(ctx, err))
	}
	if err != nil {
		return err
	}
	if late && r.state(place) == StateConfigured {
		r.publishEnd(place, EventRevoked, nil)
	}
	// Who asked while the store was at it may have been given it once more.
	if f := r.flights[place]; f != nil && rec.cred.Lease == nil { // a lease is never given twice
		f.detached, f.again = true, true
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

// publishUnended tells that the store has not ended what was revoked of k. Called with r.mu held.
func (r *Resolver) publishUnended(k key, err error) {
	if r.hub.watching.Load() == 0 {
		return
	}
	ev := Event{Ref: k.ref(), Kind: EventRevokeFailed, State: StateRevoked, Time: time.Now(), Err: err}
	switch state := r.state(k); {
	case r.served(k):
		ev = r.event(&r.cache.Peek(k).Payload, k.ref(), EventRevokeFailed, err)
	case state != StateConfigured:
		ev.State = state
	}
	r.hub.publish(r, r.scope(k), k, ev)
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
			r.ending(p)
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
	for k, debts := range r.owed {
		if ends, _ := which(k); ends {
			for _, d := range debts {
				add(k, d.rec)
				d.timer.Stop() // it is tried now
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
	finished := wait(ctx, &calls)
	mu.Lock()
	defer mu.Unlock()
	if !finished && first == nil {
		first = ctx.Err()
	}
	return revoked, first
}

// wait waits for calls, and after ctx has ended no longer than who takes notice of that needs; it reports whether all are done.
func wait(ctx context.Context, calls *sync.WaitGroup) (finished bool) {
	done := make(chan struct{})
	go func() {
		calls.Wait()
		close(done)
	}()
	select {
	case <-done:
		return true
	case <-ctx.Done():
	}
	select {
	case <-done:
		return true
	case <-time.After(heedTime):
		return false
	}
}
