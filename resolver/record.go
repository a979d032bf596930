package resolver

import (
	"math/rand/v2"
	"path"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/cache"
	"github.com/credresolve/credresolve/credref"
)

// record is what is known of one secret: a credential, or that there is none. Points in time are the clock's.
type record struct {
	cred   *backend.Credential // nil: err says why
	err    error               // ErrNotFound
	known  *known
	target *target
	stale  bool // served past fresh

	got     int64 // when the call went out that read it, or found it to be missing
	fresh   int64 // until then it is served as it is
	last    int64 // until then it may be served stale
	noStale bool  // the store was heard, and did not confirm it
	due     bool  // the time for a successor has come, and watchers were told
	refresh int64 // when to fetch a successor
	look    int64 // when to see that a new version is noticed; zero: not by a look
	used    int64 // when it was last found to have been read, or a caller had it fetched; zero: never
	length  time.Duration
	window  *window // nil: no value was refused where it was used
	fails   int32   // fetches of a successor that failed, in a row
	overdue int32   // how often in a row the store advised to fetch a successor at once
	place   int32   // in the schedule, counted from one; zero: none
	capped  bool    // the lease cannot be renewed to its full length again
	halted  bool    // its store wants a login: no successor is fetched until somebody asks
}

// failure is how the last fetch of a successor failed.
type failure struct {
	at  int64
	err error
}

// limit is until when the record may be served in its present state.
func (rec *record) limit() int64 {
	if rec.stale {
		return rec.last
	}
	return rec.fresh
}

// end is when nothing about the record is of use any more.
func (rec *record) end() int64 {
	if rec.cred == nil || rec.noStale && !rec.halted {
		return rec.fresh
	}
	return max(rec.fresh, rec.last)
}

// event is a step in the life of rec, which is served. Called with r.mu held.
func (r *Resolver) event(rec *record, ref credref.Ref, kind EventKind, err error) Event {
	ev := Event{Ref: ref, Kind: kind, State: r.state(rec.target.key), Time: time.Now(), Err: err}
	if rec.known != nil {
		ev.Revision, ev.Version, ev.Expires = rec.known.revision, rec.known.version, rec.known.expires
	}
	return ev
}

const (
	maxSkew      = time.Minute
	entryCost    = 512 // bookkeeping of an entry, in bytes, about
	slotCost     = 192
	reportEvery  = 10 * time.Second
	minRefresh   = time.Second // between two fetches of a successor
	maxRefresh   = 30 * time.Second
	leastRefresh = 2 * tick         // where a life is shorter than that
	pastRefresh  = 30 * time.Second // at first, where a store advises again and again to fetch a successor at once
	leaseSlack   = 2 * time.Second  // by which the same point in time may be told differently
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 5 * time.Second // a store that asks for more is not waited for
)

// slack is leaseSlack for a lease of that length.
func slack(length time.Duration) time.Duration {
	if length < time.Second { // not told in seconds
		return length / 10
	}
	return min(leaseSlack, length/2)
}

// newRecord gives what is known after f brought c, where old, which may be nil, was known before. It fails with ErrExpired
// when c's life is over. Called with r.mu held.
func (r *Resolver) newRecord(f *flight, c *backend.Credential, old *entry, now int64) (record, error) {
	p, t := f.p, f.target
	wall := time.Now().Round(0) // what leaves here is compared by the wall clock, which goes on while the machine sleeps
	rec := record{cred: c, target: t, got: f.began, known: &known{
		typ: c.Type, version: c.Version, expires: c.Expires, refreshAfter: c.RefreshAfter, metadata: c.Metadata, fetched: wall,
	}}
	if rec.known.typ == "" {
		rec.known.typ = p.typeOf(t.key.id)
	}
	rec.known.revision = r.revise.revision(rec.known.typ, c)

	ttl := p.TTL
	if c.Lease != nil && c.Lease.Duration > 0 {
		rec.length = c.Lease.Duration
		ttl = maxTTL
		// It runs from when the store gave it, which was after the call went out.
		if end := wall.Add(c.Lease.Duration - time.Duration(now-f.began)); c.Expires.IsZero() || end.Before(c.Expires) {
			rec.known.expires = end
		}
	}
	hard := maxTTL // until the store refuses it, less skew
	if !rec.known.expires.IsZero() {
		life := rec.known.expires.Sub(wall)
		if life <= 0 {
			return rec, backend.Errorf(backend.CodeExpired, "the store gave a credential whose life is over")
		}
		hard = max(min(life-min(maxSkew, life/10)-tick, maxTTL), 0)
	}
	life := min(ttl, hard)
	rec.fresh = now + int64(life)
	rec.last = now + int64(min(life+p.MaxStale, hard))

	// A third is left for the successor, and not all of them are fetched at the same moment.
	wait := time.Duration(float64(life) * (0.60 + 0.066*rand.Float64()))
	if !c.RefreshAfter.IsZero() {
		switch advice := c.RefreshAfter.Sub(wall); {
		case advice < minRefresh:
			// A store that always says so must not make us ask all the time.
			rec.overdue = 1
			if old != nil {
				rec.overdue += old.Payload.overdue
			}
			pause := float64(pastRefresh<<min(rec.overdue-1, 10)) * (1 + rand.Float64()/10)
			wait = min(time.Duration(pause), wait)
		case advice < life-life/10: // else the successor would come too late
			// Somewhat later, so that many that are due at one moment do not come together.
			wait = advice + rand.N(min(advice/10, time.Second)+1)
		}
	}
	rec.refresh = now + int64(min(max(wait, leastRefresh), life))
	rec.look = p.firstLook(t, c, now)
	return rec, nil
}

// cost is the size of rec's content in bytes, about.
func (rec *record) cost() int64 {
	n := int64(entryCost + 2*len(rec.target.key.id))
	if rec.cred == nil {
		return n
	}
	n += int64(rec.cred.Secret.Len())
	for name, f := range rec.cred.Fields {
		n += int64(len(name)+f.Len()) + 64
	}
	for name, value := range rec.cred.Metadata {
		n += int64(len(name) + len(value))
	}
	return n
}

// typeOf gives the type of secrets about which the store says nothing.
func (p *provider) typeOf(id string) backend.Type {
	for _, rule := range p.Types {
		if ok, _ := path.Match(rule.Pattern, id); ok {
			return rule.Type
		}
	}
	return backend.TypeUserValue
}

// install keeps rec in place of what is known of its secret, if its life allows, and gives its entry either way. Called
// with r.mu held.
func (r *Resolver) install(rec record, now int64) *entry {
	k := rec.target.key
	e := cache.NewEntry[record, Value](rec, now)
	if rec.end() <= now || !r.cache.Put(k, e, e.Payload.cost()) {
		r.ended(k) // who keeps its predecessor
		r.cache.Remove(k)
		return e
	}
	r.entries[k.provider]++
	r.crowdedOut()
	r.schedule(e, now)
	if !rec.stale && r.lasting(k, &e.Payload) {
		r.changed(ChangeKept)
	}
	return e
}

func (r *Resolver) owner(k key) *provider { return (*r.providers.Load())[k.provider] }

func (r *Resolver) publish(rec *record, kind EventKind, err error) {
	if r.hub.watching.Load() == 0 { // before the event is made
		return
	}
	k := rec.target.key
	r.hub.publish(r, r.scope(k), k, r.event(rec, k.ref(), kind, err))
}

// publishEnd tells that nothing is served of k any more.
func (r *Resolver) publishEnd(k key, kind EventKind, err error) {
	if r.hub.watching.Load() == 0 {
		return
	}
	r.hub.publish(r, r.scope(k), k, Event{Ref: k.ref(), Kind: kind, State: endState(kind), Time: time.Now(), Err: err})
	if r.flights[k] != nil { // a refresh goes on as a fetch
		r.hub.publish(r, r.scope(k), k, Event{Ref: k.ref(), Kind: EventResolving, State: StateResolving, Time: time.Now()})
	}
}

// scope is that of k's provider.
func (r *Resolver) scope(k key) []Scope {
	if p := r.owner(k); p != nil {
		return p.Scope
	}
	return nil
}

// renewOrFetch starts a flight for e's successor, if there is none. Called with r.mu held; p is to be dispatched after.
func (r *Resolver) renewOrFetch(p *provider, e *entry) {
	rec := &e.Payload
	if r.flights[rec.target.key] != nil {
		return
	}
	r.count.refreshes.Add(1)
	f := r.takeOffQuietly(p, rec.target)
	if l := rec.cred.Lease; l != nil && l.Renewable && !rec.capped {
		f.renew = rec
	}
}

// toStale puts a record in place of e's that is served as stale. Called with r.mu held.
func (r *Resolver) toStale(e *entry, now int64, err error) *entry {
	rec := e.Payload
	rec.stale, rec.place, rec.look = true, 0, 0 // its refresh tells what there is
	out := r.install(rec, now)
	r.publish(&out.Payload, EventStale, err)
	return out
}

// landed takes over the outcome of f, which was not detached. Called with r.mu held.
func (r *Resolver) landed(p *provider, f *flight, c *backend.Credential, err error) (*entry, error) {
	now := r.clock.exact()
	k := f.target.key
	old := r.cache.Peek(k)
	if err == nil {
		var rec record
		if rec, err = r.newRecord(f, c, old, now); err == nil {
			return r.succeed(p, f, old, r.choose(f, old, rec, now), now), nil
		}
	}
	r.count.failed.Add(1)
	if old == nil || old.Payload.cred == nil {
		if e := r.recall(p, f.target, err, now); e != nil {
			return e, nil
		}
		switch code := backend.CodeOf(err); {
		case backend.Missing(err) && (code == backend.CodeNotFound || len(p.Scope) > 0):
			r.installNegative(p, f, err, now)
			r.ended(k)
		case code == backend.CodeDenied, code == backend.CodeExpired, backend.Missing(err):
			r.ended(k)
		}
		r.publishEnd(k, failed(err), err)
		r.insist(f, err)
		return nil, err
	}
	rec := &old.Payload
	rec.due, rec.halted, rec.look = false, false, 0
	switch code := backend.CodeOf(err); {
	case code == backend.CodeNotFound:
		delete(r.kept, k)
		r.installNegative(p, f, err, now)
		r.publishEnd(k, EventFailed, err)
		r.ended(k)
		return nil, err
	case code == backend.CodeDenied, code == backend.CodeExpired, backend.Missing(err): // logged out
		delete(r.kept, k)
		r.cache.Remove(k)
		r.publishEnd(k, EventFailed, err)
		r.ended(k)
		return nil, err
	case !unavailable(err):
		rec.noStale = true
		delete(r.kept, k)
		r.ended(k)
		if code == backend.CodeAuthRequired {
			r.halt(rec, now)
		}
	}
	if now >= rec.end() {
		r.cache.Remove(k)
		r.publishEnd(k, failed(err), err)
		r.insist(f, err)
		return nil, err
	}
	rec.known.failure.Store(&failure{now, err})
	rec.fails++
	rec.refresh = now + int64(patience(rec.fails, err))
	switch {
	case rec.halted:
		r.halted(old, now, err)
	case now >= rec.fresh && !rec.stale:
		r.toStale(old, now, err)
	case rec.stale:
		r.publish(rec, EventStale, err)
		r.schedule(old, now)
	default:
		r.publish(rec, EventFailed, err)
		r.schedule(old, now)
	}
	return nil, err
}

// patience is how long to wait with another fetch after that many, in a row, have failed, at last with err.
func patience(fails int32, err error) time.Duration {
	pause := min(minRefresh<<min(fails-1, 10), maxRefresh)
	return max(time.Duration(float64(pause)*(0.75+0.5*rand.Float64())), min(backend.RetryAfter(err), maxOpen))
}

// insist fetches again, after a while, what f did not bring and an open handle holds, if its store is unavailable: nothing else
// would tell a watcher that it is back. Called with r.mu held.
func (r *Resolver) insist(f *flight, err error) {
	k := f.target.key
	pin := r.pins[k]
	if !unavailable(err) || pin == nil || pin.insists {
		return
	}
	pin.insists = true // one timer for each
	fails := f.fails + 1
	time.AfterFunc(patience(fails, err), func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		pin.insists = false
		p := r.owner(k)
		if r.closed || p == nil || r.pins[k] != pin || pin.target == nil || r.flights[k] != nil || r.cache.Peek(k) != nil {
			return
		}
		r.takeOffQuietly(p, pin.target).fails = fails
		p.dispatch()
	})
}

// succeed installs rec, which f brought, after old, which may be nil.
func (r *Resolver) succeed(p *provider, f *flight, old *entry, rec record, now int64) *entry {
	delete(r.kept, f.target.key) // what was given of it since is in the cache
	kind := EventResolved
	if old != nil && old.Payload.cred != nil {
		kind = EventRotated
		if old.Payload.known.revision == rec.known.revision {
			kind = EventRefreshed
		}
		rec.window, rec.used = old.Payload.window, old.Payload.used
		if old.Used() {
			rec.used = now
		}
	}
	if f.asked {
		rec.used = now
	}
	if was := f.renew; was != nil && f.renewed {
		rec.got = was.got // it was not read
		// A store that grants less than what it first gave has come near the lease's greatest life: the successor must be
		// there before the end.
		granted := rec.length
		rec.length = was.length
		rec.capped = granted+slack(was.length) < was.length
		rec.known.fetched = was.known.fetched
		kind = EventRefreshed
	}
	e := r.install(rec, now)
	r.publish(&e.Payload, kind, nil)
	return e
}

func (r *Resolver) installNegative(p *provider, f *flight, err error, now int64) {
	r.install(record{err: err, target: f.target, got: f.began, fresh: now + int64(p.NegativeTTL)}, now)
	if k := f.target.key; k.version == "" && r.pins[k] != nil {
		p.watch(f.target) // it may come
	}
}
