package resolver

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/cenkalti/backoff/v5"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/cache"
	"github.com/credresolve/credresolve/credref"
)

// flight is the one fetch of a key that is under way, for all who wait. It belongs to none of them: it goes on when they
// leave, and ends with its provider.
type flight struct {
	p       *provider
	target  *target
	chain   []string            // the providers whose calls led to this one
	cause   context.Context     // of the caller for whom it began, without its end; nil: of nobody
	renew   *record             // the record whose lease is to be renewed, nil: fetch
	began   int64               // when its call went out, by the clock; set by who makes the call
	window  *window             // of a report that refused: nil, no report began it
	refused *backend.Credential // by that report
	check   *entry              // that is to be looked at for a new version, and nothing fetched; it is not among the flights
	told    bool                // the backend's watch told of a change

	// Set before it has landed, not changed after.
	entry *entry
	err   error

	waiters atomic.Int32

	// Guarded by Resolver.mu.
	done     chan struct{} // closed when it has landed; nil as long as nobody waits
	detached bool          // its result is not kept
	ends     bool          // it is detached, and what it brings is to be revoked
	again    bool          // it is detached, and who waits for it asks anew
	asked    bool          // by a caller
	landed   bool
	out      int64 // when it went out, by the clock; zero: it is queued, or waits to be tried again
	renewed  bool  // what it brought is the same credential with a longer lease
	outdated bool  // the backend's watch told of a change since it went out
	quiet    bool  // nobody waits for it: what somebody waits for goes out before it
	queued   bool
	others   []*backend.Credential // beside what it brings, if that was refused
	tries    int
	fails    int32 // fetches before it that failed, in a row, for want of a record
	backoff  *backoff.ExponentialBackOff
}

// takeOff starts a flight for t, on behalf of the caller of ctx. Called with r.mu
// held; p is to be dispatched after.
func (r *Resolver) takeOff(ctx context.Context, p *provider, t *target, chain []string) *flight {
	f := &flight{p: p, target: t, chain: chain}
	if r.onCall != nil {
		f.cause = context.WithoutCancel(ctx)
	}
	r.begins(t.key)
	r.flights[t.key] = f
	p.enqueue(f)
	return f
}

// takeOffQuietly is takeOff on behalf of nobody.
func (r *Resolver) takeOffQuietly(p *provider, t *target) *flight {
	f := &flight{p: p, target: t, quiet: true}
	r.begins(t.key)
	r.flights[t.key] = f
	p.enqueue(f)
	return f
}

// hurry makes f one that somebody waits for. Called with r.mu held; its provider is to be dispatched after.
func (f *flight) hurry() {
	if f.quiet {
		f.quiet = false
		if f.queued {
			f.p.enqueue(f) // where it was, it is passed over
		}
	}
}

// land ends f. Called with r.mu held.
func (r *Resolver) land(f *flight, c *backend.Credential, err error) {
	if f.landed {
		return
	}
	f.landed = true
	k := f.target.key
	switch {
	case f.p.retired:
		f.err = errReplaced
	case f.check != nil:
		r.checked(f, c, err)
	case f.detached || r.flights[k] != f:
		if f.err = err; err == nil {
			var rec record
			if rec, f.err = r.newRecord(f, c, nil, r.clock.exact()); f.err == nil {
				f.entry = cache.NewEntry[record, Value](rec, 0) // kept nowhere
			}
			if c.Lease != nil && (f.ends || f.again || !f.asked && !f.renewed) {
				r.disown(f, rec)
			}
		}
		switch {
		case f.again && (f.err == nil || f.renew != nil): // else the store says no
			f.entry, f.err = nil, errReplaced
		case f.ends && !f.again:
			f.entry, f.err = nil, errEnded
		}
	default:
		delete(r.flights, k)
		f.entry, f.err = r.landed(f.p, f, c, err)
		if f.outdated {
			r.told(f.p, k)
		}
	}
	if f.done != nil {
		close(f.done)
	}
}

// find gives what is known of t: an entry, or an error that is remembered, or else the flight to wait for. With force it
// is always a flight, and where d refuses what is known. Called with r.mu held; p is to be dispatched after.
func (r *Resolver) find(ctx context.Context, p *provider, t *target, force bool, d *Demand) (*entry, *flight, error) {
	switch {
	case r.closed:
		return nil, nil, errClosed
	case p.retired:
		return nil, nil, errReplaced
	}
	// Looked for again under the lock: a flight may have landed since the caller missed.
	refused := d != nil && d.NoCache
	if e := r.cache.Peek(t.key); e != nil && !force {
		now := r.clock.exact()
		rec := &e.Payload
		switch refused = d.refuses(rec, now); {
		case refused:
		case rec.cred == nil:
			if now < rec.fresh {
				r.count.negative.Add(1)
				return nil, nil, rec.err
			}
		case now < rec.limit():
			switch {
			case now >= rec.refresh:
				r.renewOrFetch(p, e)
				r.schedule(e, now)
			case rec.look > 0 && now >= rec.look && r.flights[t.key] == nil:
				r.look(p, e, now)
				r.schedule(e, now)
			}
			if rec.stale {
				r.count.stale.Add(1)
			}
			e.MarkUsed()
			return e, nil, nil
		case now < rec.end() && !rec.stale:
			if now >= rec.refresh {
				r.renewOrFetch(p, e)
			}
			r.count.stale.Add(1)
			e = r.toStale(e, now, nil)
			e.MarkUsed()
			return e, nil, nil
		}
	}
	f := r.flights[t.key]
	switch {
	case f != nil && f.renew != nil && (force || refused && d.anew()): // it prolongs what is refused
		f.detached = true
		f = nil
	case f != nil:
		r.count.shared.Add(1)
		f.hurry()
	case refused:
		if e := r.cache.Peek(t.key); e != nil && e.Payload.known != nil {
			if f := e.Payload.known.failure.Load(); f != nil && r.clock.exact()-f.at < int64(demandEvery) {
				return nil, nil, f.err
			}
		}
	}
	if f == nil {
		r.count.misses.Add(1)
		// The caller's id may be a part of a large document, and a cached key must not keep that in memory.
		t.key.provider, t.key.id, t.key.version = p.name, strings.Clone(t.key.id), strings.Clone(t.key.version)
		if t.id == t.key.id {
			t.id = t.key.id
		}
		f = r.takeOff(ctx, p, t, chainOf(ctx))
	}
	f.asked = true
	return nil, f, nil
}

// wait waits for f as long as ctx allows.
func (r *Resolver) wait(ctx context.Context, f *flight) (*entry, error) {
	r.mu.Lock()
	if !f.landed && f.done == nil {
		f.done = make(chan struct{})
	}
	landed, done := f.landed, f.done
	r.mu.Unlock()
	if landed {
		return f.entry, f.err
	}
	f.waiters.Add(1)
	defer f.waiters.Add(-1)
	chain := chainOf(ctx)
	if len(chain) > 0 {
		leave, err := r.enter(chain, f.p.name)
		if err != nil {
			return nil, err
		}
		defer leave()
	}
	select {
	case <-done:
		return f.entry, f.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-f.p.ctx.Done():
		return nil, errReplaced
	}
}

// resolve is Resolve after the first look into the cache. subject is that of ctx when nil; h is the handle that asks, or
// nil.
func (r *Resolver) resolve(ctx context.Context, ref credref.Ref, subject *credref.Subject, h *Handle) (*Value, error) {
	for {
		v, err := r.attempt(ctx, ref, subject, h)
		if err == nil {
			return v, nil
		}
		if !isReplaced(err) {
			return nil, refError(ref, err)
		}
	}
}

func (r *Resolver) attempt(ctx context.Context, ref credref.Ref, subject *credref.Subject, h *Handle) (*Value, error) {
	if v := r.again(ref, h); v != nil { // the clock may only have been asleep
		return v, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err // nobody would wait for what begins now
	}
	p, targets, err := r.aim(ctx, ref, subject)
	if err != nil {
		return nil, err
	}
	var errs []error
	for i := range targets {
		t := &targets[i]
		r.mu.Lock()
		if h != nil {
			h.pin(t)
		}
		e, f, err := r.find(ctx, p, t, false, nil)
		p.dispatch()
		r.mu.Unlock()
		if f != nil {
			e, err = r.wait(ctx, f)
		}
		if err == nil {
			return r.answer(p, e, ref, h, nil)
		}
		if !backend.Missing(err) {
			return nil, err
		}
		errs = append(errs, err)
	}
	return nil, p.nobody(ctx, targets, errs)
}

// again looks for an answer at the exact time.
func (r *Resolver) again(ref credref.Ref, h *Handle) *Value {
	now := r.clock.exact()
	if h != nil {
		return h.slot.Get(now)
	}
	return r.cache.Get(&ref, now)
}

// aim gives the provider of ref and where to look for it.
func (r *Resolver) aim(ctx context.Context, ref credref.Ref, subject *credref.Subject) (*provider, []target, error) {
	p, err := r.lookup(ref)
	if err != nil {
		return nil, nil, err
	}
	var s credref.Subject
	if len(p.Scope) > 0 {
		if s = credref.SubjectFrom(ctx); subject != nil {
			s = *subject
		}
		if err := s.Validate(); err != nil {
			return nil, nil, backend.Errorf(backend.CodeUsage, "the subject is malformed")
		}
	}
	targets, err := p.targets(ref, s)
	return p, targets, err
}

// answer gives the part of e that ref selects, and lets later hits find it. A demand d is heeded for what it says of parts.
func (r *Resolver) answer(p *provider, e *entry, ref credref.Ref, h *Handle, d *Demand) (*Value, error) {
	rec := &e.Payload
	if v := r.again(ref, h); v != nil && (d.plain() || v.known == rec.known && v.stale == rec.stale) {
		return v, nil // another who waited was faster
	}
	secret, err := selectSecret(rec.cred, ref.Field)
	if err != nil {
		if d != nil && d.Whole && ref.Field == "" && errors.Is(err, backend.ErrFieldRequired) {
			return &Value{fields: rec.cred.Fields, known: rec.known, stale: rec.stale}, nil // an error to who asks for one secret
		}
		return nil, err
	}
	v := &Value{secret: secret, known: rec.known, stale: rec.stale}
	if ref.Field == "" {
		v.fields = rec.cred.Fields
	}
	cost := int64(slotCost + len(ref.Field))
	if strings.HasPrefix(ref.Field, "/") {
		cost += int64(secret.Len()) // a copy
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if h != nil {
		r.cache.Show(e, h.slot, v, cost)
		r.crowdedOut()
	} else if len(p.Scope) == 0 {
		k := rec.target.key
		ref.Provider, ref.ID, ref.Version = k.provider, k.id, k.version // equal, and kept already
		ref.Field = strings.Clone(ref.Field)
		r.cache.Show(e, r.cache.Slot(ref), v, cost)
		r.crowdedOut()
	}
	return v, nil
}

// resolveAll is ResolveAll for subject, that of ctx when nil, with a demand that may be nil.
func (r *Resolver) resolveAll(ctx context.Context, refs []credref.Ref, subject *credref.Subject, d *Demand) []Outcome {
	// item is a ref that the cache does not answer. Those of one secret find the same flight.
	type item struct {
		i       int // of its ref
		p       *provider
		targets []target // all that are left
		tried   []target
		missing []error // of tried
		entry   *entry
		flight  *flight
		before  bool // the flight had gone out too long ago for d: it may have read before it was asked for
		after   bool // the flight is that after such a one
		err     error
	}
	outcomes := make([]Outcome, len(refs))
	var items []item
	now := r.clock.now.Load()
	if now == asleep {
		now = r.clock.exact()
	}
	for i, ref := range refs {
		outcomes[i].Ref = ref
		if d.plain() {
			if outcomes[i].Value = r.cache.Get(&ref, now); outcomes[i].Value != nil {
				continue
			}
		}
		p, targets, err := r.aim(ctx, ref, subject)
		if err != nil {
			outcomes[i].Err = refError(ref, err)
			continue
		}
		if d != nil && d.Exact {
			targets = targets[:1]
		}
		if items == nil {
			items = make([]item, 0, len(refs)-i)
		}
		items = append(items, item{i: i, p: p, targets: targets})
	}
	round := make([]*item, len(items))
	for i := range items {
		round[i] = &items[i]
	}
	if err := ctx.Err(); err != nil { // nobody would wait for what begins now
		for _, it := range round {
			it.err = err
		}
		round = nil
	}
	for len(round) > 0 {
		r.mu.Lock()
		if len(r.flights) == 0 && len(round) > fewFlights {
			r.flights = make(map[key]*flight, len(round)) // growing to it would take twice the memory
		}
		for _, it := range round {
			it.entry, it.flight, it.err = r.find(ctx, it.p, &it.targets[0], false, d)
			it.before = it.flight != nil && d != nil && d.NoCache && !it.after && it.flight.out != 0 &&
				r.clock.exact()-it.flight.out >= int64(demandEvery)
		}
		for _, it := range round { // only now, so that they go out together
			it.p.dispatch()
		}
		r.mu.Unlock()
		next := round[:0]
		for _, it := range round {
			if it.flight != nil {
				outcomes[it.i].Waited = true
				if it.entry, it.err = r.wait(ctx, it.flight); it.err == nil && !it.before {
					it.err = d.tooStale(&it.entry.Payload, r.clock.exact())
				}
			}
			missing := backend.Missing(it.err)
			if missing && !it.before {
				it.tried, it.missing = append(it.tried, it.targets[0]), append(it.missing, it.err)
			}
			switch {
			case it.before && (it.err == nil || missing):
				it.after = true
				next = append(next, it)
			case missing && len(it.targets) > 1:
				it.targets, it.after = it.targets[1:], false
				next = append(next, it)
			case missing:
				it.err = it.p.nobody(ctx, it.tried, it.missing)
			}
		}
		round = next
	}
	for k := range items {
		it := &items[k]
		out := &outcomes[it.i]
		err := it.err
		if err == nil {
			out.Value, err = r.answer(it.p, it.entry, out.Ref, nil, d)
		} else if isReplaced(err) {
			*out = r.resolveAll(ctx, []credref.Ref{out.Ref}, subject, d)[0] // of its successor
			continue
		}
		if err != nil {
			out.Err = refError(out.Ref, err)
		}
	}
	return outcomes
}

const fewFlights = 64

func isReplaced(err error) bool { return err == errReplaced }

type chainKey struct{}

// chainOf gives the providers in whose calls ctx is, the outermost first: one provider's login may need another's secret.
func chainOf(ctx context.Context) []string {
	chain, _ := ctx.Value(chainKey{}).([]string)
	return chain
}

type edge struct{ from, to string }

// enter notes that a call of the last provider of chain waits for the provider to, until leave is called. It fails when
// that would make them wait for each other.
func (r *Resolver) enter(chain []string, to string) (leave func(), err error) {
	from := chain[len(chain)-1]
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.Index(chain, to); i >= 0 {
		return nil, circle(append(slices.Clone(chain[i:]), to))
	}
	if way := r.way(to, from, nil); way != nil {
		return nil, circle(append([]string{from}, way...))
	}
	e := edge{from, to}
	r.waits[e]++
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.waits[e]--; r.waits[e] == 0 {
			delete(r.waits, e)
		}
	}, nil
}

// way gives the providers by which at waits for to, nil when it does not.
func (r *Resolver) way(at, to string, seen []string) []string {
	seen = append(seen, at)
	if at == to {
		return seen
	}
	for e := range r.waits {
		if e.from == at && !slices.Contains(seen, e.to) {
			if way := r.way(e.to, to, seen); way != nil {
				return way
			}
		}
	}
	return nil
}

func circle(names []string) error {
	return &backend.Error{
		Code:   backend.CodeInvalidConfig,
		Reason: "the providers' settings wait for each other: " + strings.Join(names, " -> "),
		Remedy: "give one of them its secret from elsewhere",
	}
}

// alone reports whether f cannot share a call with others.
func (f *flight) alone() bool { return f.renew != nil || f.window != nil || f.check != nil }
