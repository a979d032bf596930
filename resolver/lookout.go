package resolver

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/credresolve/credresolve/backend"
)

// lookout is what tells a provider of new versions before the time of a value is over: its backend's watch, where it has one, and
// checks. It is guarded by Resolver.mu.
type lookout struct {
	watcher backend.Watcher // nil: the backend has none
	checker backend.Checker // nil: the backend is none
	keys    map[key]*target // that are watched, or will be
	more    bool            // some of keys are not watched yet
	cancel  context.CancelFunc
	began   time.Time // when the watch last did
	timer   *time.Timer
	fails   int32           // watches that ended by themselves, in a row
	asked   map[key]*flight // checks since the watch told of a change
}

const (
	// watchAfter is how long a value is held before it is watched: a program that resolves and ends starts no watch.
	watchAfter = time.Second
	// rewatch is the least time between two watches of one provider, for each secret: each secret is looked at as a watch begins.
	rewatch = time.Millisecond
	// leastRewatch is the least time at all. What comes meanwhile is watched together.
	leastRewatch = 100 * time.Millisecond
	// tending is how often it is seen whether what is watched is still held.
	tending = time.Minute
)

func newLookout(b backend.Backend) (l lookout) {
	l.watcher, _ = b.(backend.Watcher)
	l.checker, _ = b.(backend.Checker)
	return l
}

// firstLook is when to see that a new version of t's secret is noticed, of which c was fetched now; zero: never.
func (p *provider) firstLook(t *target, c *backend.Credential, now int64) int64 {
	if p.lookout.watcher != nil && t.key.version == "" && p.lookout.keys[t.key] == nil {
		return now + int64(watchAfter)
	}
	return p.nextCheck(c, now)
}

// nextCheck is when to check c next; zero: never.
func (p *provider) nextCheck(c *backend.Credential, now int64) int64 {
	if p.Check == 0 || p.lookout.checker == nil || c.Version == "" {
		return 0
	}
	return now + int64(float64(p.Check)*(0.9+0.1*rand.Float64()))
}

// look sees that a new version of e is noticed, whose time for that has come. Called with r.mu held; p is to be dispatched after.
func (r *Resolver) look(p *provider, e *entry, now int64) {
	rec := &e.Payload
	if l := &p.lookout; l.watcher != nil && rec.target.key.version == "" && l.keys[rec.target.key] == nil {
		p.watch(rec.target)
		rec.look = p.nextCheck(rec.cred, now)
		return
	}
	rec.look = 0 // until it has landed
	p.enqueue(&flight{p: p, target: rec.target, check: e, quiet: true})
}

// inUse is wanted for a look, which a refresh that comes later does not count as.
func (r *Resolver) inUse(p *provider, e *entry, now int64) bool {
	if p.Idle > 0 {
		return r.wanted(p, e, now)
	}
	return e.WasUsed() || r.pins[e.Payload.target.key] != nil
}

// checked takes over what a check brought, a credential with a version alone. An error leaves what is served as it is. Called with
// r.mu held; f.p is to be dispatched after.
func (r *Resolver) checked(f *flight, c *backend.Credential, err error) {
	p, e, k := f.p, f.check, f.target.key
	if f.told {
		delete(p.lookout.asked, k)
	}
	switch now := r.clock.exact(); {
	case r.cache.Peek(k) != e: // it has a successor
	case err == nil && c.Version == e.Payload.storeVersion():
		e.Payload.look = p.nextCheck(e.Payload.cred, now)
		r.schedule(e, now)
	case err == nil, f.told, backend.CodeOf(err) == backend.CodeNotFound:
		r.outdated(p, e, now)
	case !errors.Is(err, errors.ErrUnsupported):
		e.Payload.look = max(p.nextCheck(e.Payload.cred, now), now+int64(backend.RetryAfter(err)))
		r.schedule(e, now)
	}
	if f.outdated {
		r.told(p, k)
	}
}

// storeVersion is the version that the store called the current one when rec was fetched.
func (rec *record) storeVersion() string {
	if w := rec.window; w != nil && w.current != nil {
		return w.current.Version
	}
	return rec.cred.Version
}

// outdated has the successor of e fetched, of whose secret there is a new version, or lets go of it if nobody uses it. Called
// with r.mu held; p is to be dispatched after.
func (r *Resolver) outdated(p *provider, e *entry, now int64) {
	k := e.Payload.target.key
	switch f := r.flights[k]; {
	case f != nil:
		f.outdated = f.outdated || f.out != 0
	case r.wanted(p, e, now):
		r.count.refreshes.Add(1)
		r.takeOffQuietly(p, e.Payload.target)
		r.schedule(e, now)
	default:
		r.cache.Remove(k)
		delete(r.kept, k)
		r.ended(k)
		r.lapsed(k)
	}
}

// told sees to it that what the watch tells of k comes to be known: what is under way may have read before. Called with r.mu held;
// p is to be dispatched after.
func (r *Resolver) told(p *provider, k key) {
	l := &p.lookout
	t, e := l.keys[k], r.cache.Peek(k)
	if t == nil || p.retired {
		return
	}
	for _, f := range []*flight{r.flights[k], l.asked[k]} {
		if f != nil {
			f.outdated = f.outdated || f.out != 0
			return
		}
	}
	switch {
	case e == nil || e.Payload.cred == nil:
		if r.pins[k] != nil {
			r.takeOffQuietly(p, t)
		} else {
			r.cache.Remove(k)
		}
	case e.Payload.halted: // its store is left alone
	case l.checker != nil && e.Payload.cred.Version != "":
		f := &flight{p: p, target: t, check: e, told: true, quiet: true}
		if l.asked == nil {
			l.asked = map[key]*flight{}
		}
		l.asked[k] = f
		p.enqueue(f)
	default:
		r.outdated(p, e, r.clock.exact())
	}
}

// watch makes p's backend watch t's secret, with others that come soon, until nobody holds it. Called with r.mu held.
func (p *provider) watch(t *target) {
	l := &p.lookout
	if l.watcher == nil || l.keys[t.key] != nil {
		return
	}
	if l.keys == nil {
		l.keys = map[key]*target{}
	}
	l.keys[t.key] = t
	if !l.more {
		l.more = true
		pause := max(leastRewatch, rewatch*time.Duration(len(l.keys)))
		p.tendIn(max(pause-time.Since(l.began), leastRewatch))
	}
}

func (p *provider) tendIn(d time.Duration) {
	if l := &p.lookout; l.timer == nil {
		l.timer = time.AfterFunc(d, p.tend)
	} else {
		l.timer.Reset(d)
	}
}

// tend lets go of what nobody holds, and begins a watch of the rest if there is more than is watched.
func (p *provider) tend() {
	r, l := p.r, &p.lookout
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.retired || l.watcher == nil {
		return
	}
	for k := range l.keys {
		if r.cache.Peek(k) == nil && r.pins[k] == nil && r.flights[k] == nil {
			delete(l.keys, k)
		}
	}
	switch {
	case len(l.keys) == 0:
		l.unwatch()
		l.more = false
		return
	case l.more:
		p.beginWatch()
	}
	p.tendIn(tending)
}

func (l *lookout) unwatch() {
	if l.cancel != nil {
		l.cancel()
		l.cancel = nil
	}
}

// stop ends all of l. Called with r.mu held.
func (l *lookout) stop() {
	l.unwatch()
	if l.timer != nil {
		l.timer.Stop()
	}
	l.keys, l.asked = nil, nil
}

// beginWatch watches all of keys, in place of what was watched. Called with r.mu held.
func (p *provider) beginWatch() {
	r, l := p.r, &p.lookout
	l.unwatch()
	ctx, cancel := context.WithCancel(context.WithValue(p.ctx, chainKey{}, []string{p.name}))
	if len(p.Scope) > 0 {
		ctx = backend.WithoutLogin(ctx)
	}
	l.cancel, l.began, l.more = cancel, time.Now(), false
	of := make(map[backend.Request][]key, len(l.keys)) // an id_template may give two keys one request
	reqs := make([]backend.Request, 0, len(l.keys))
	for k, t := range l.keys {
		req := t.request()
		if of[req] == nil {
			reqs = append(reqs, req)
		}
		of[req] = append(of[req], k)
	}
	watcher := l.watcher
	p.running.Add(1)
	r.calls.Add(1)
	go func() {
		defer r.calls.Done()
		defer p.running.Done()
		err := watch(ctx, watcher, reqs, func(req backend.Request) {
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, k := range of[req] {
				r.told(p, k)
			}
			p.dispatch()
		})
		r.mu.Lock()
		defer r.mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		// Until it is tried again there are checks, and the time of each value.
		cancel()
		l.cancel = nil
		if errors.Is(err, errors.ErrUnsupported) {
			l.stop()
			l.watcher = nil
			return
		}
		if time.Since(l.began) > tending { // it had worked
			l.fails = 0
		}
		l.fails++
		l.more = true
		p.tendIn(patience(l.fails, err))
	}()
}

func watch(ctx context.Context, w backend.Watcher, reqs []backend.Request, changed func(backend.Request)) (err error) {
	defer func() {
		if recover() != nil {
			err = backend.Errorf(backend.CodeInternal, "the backend panicked")
		}
	}()
	return w.Watch(ctx, reqs, changed)
}
