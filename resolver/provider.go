package resolver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/semaphore"

	"github.com/credresolve/credresolve/backend"
)

// provider is a Provider at work: its queue of flights, and the calls that take them to the store.
type provider struct {
	Provider // with defaults

	r          *Resolver
	name       string
	ctx        context.Context // of its calls; ends when it is replaced
	cancel     context.CancelCauseFunc
	guard      *guard
	calls      *semaphore.Weighted
	running    sync.WaitGroup
	batch      backend.BatchGetter // nil: none
	maxBatch   int
	noVersions bool

	// Guarded by Resolver.mu.
	lookout lookout
	queue   []*flight // that callers wait for
	quietly []*flight // that nobody waits for, and some that are in queue meanwhile
	active  int       // calls under way
	quiet   int       // of them, those for nobody
	retired bool
	single  bool // the batch call turned out not to be one
	repeats bool // a revocation that had failed is tried again
}

func newProvider(r *Resolver, name string, p Provider, ignoreFailures bool) *provider {
	p.Scope = slices.Clone(p.Scope)
	p.Types = slices.Clone(p.Types)
	out := &provider{Provider: p.withDefaults(), r: r, name: name}
	out.ctx, out.cancel = context.WithCancelCause(r.ctx)
	out.guard = newGuard(out.Provider, r.failures, ignoreFailures)
	out.calls = semaphore.NewWeighted(int64(out.Concurrency))
	if d, ok := p.Backend.(backend.Describer); ok {
		about := d.Describe()
		out.maxBatch, out.noVersions = about.MaxBatch, !about.Versions
	}
	out.batch, _ = p.Backend.(backend.BatchGetter)
	out.lookout = newLookout(p.Backend)
	return out
}

// dispatch starts as many calls as may be under way at once, and the queues need. Called with r.mu held.
func (p *provider) dispatch() {
	for {
		group, quiet := p.take()
		if group == nil {
			return
		}
		p.running.Add(1)
		p.r.calls.Add(1)
		go p.work(group, quiet)
	}
}

// enqueue puts f where its like wait. Called with r.mu held.
func (p *provider) enqueue(f *flight) {
	f.queued = true
	if f.quiet {
		p.quietly = append(p.quietly, f)
	} else {
		p.queue = append(p.queue, f)
	}
}

// take gives what goes to the store next, and holds a call for it; nil: nothing goes now. What callers wait for comes first, and
// has half of the calls for itself. Called with r.mu held.
func (p *provider) take() (group []*flight, quiet bool) {
	for len(p.quietly) > 0 && !p.quietly[0].quiet { // somebody waits for it meanwhile
		p.quietly[0] = nil
		p.quietly = p.quietly[1:]
	}
	queue := &p.queue
	switch {
	case p.retired:
		return nil, false
	case len(p.queue) > 0:
	case len(p.quietly) == 0, p.quiet >= max(p.Concurrency/2, 1):
		return nil, false
	case p.r.quiet >= p.r.workers:
		p.r.starved = true
		return nil, false
	default:
		queue, quiet = &p.quietly, true
	}
	if !p.calls.TryAcquire(1) {
		return nil, false
	}
	p.active++
	if quiet {
		p.quiet++
		p.r.quiet++
	}
	return p.next(queue, quiet), quiet
}

// next takes from queue what goes to the store in one call: as much as its batch call carries, else one. Called with r.mu held.
func (p *provider) next(queue *[]*flight, quiet bool) []*flight {
	var group []*flight
	now := p.r.clock.exact()
	q := *queue
	for len(q) > 0 {
		f := q[0]
		if f.quiet == quiet {
			if len(group) > 0 && (p.batch == nil || p.single || p.maxBatch > 0 && len(group) == p.maxBatch || f.alone() || group[0].alone()) {
				break
			}
			f.out, f.queued = now, false
			group = append(group, f)
		}
		q[0] = nil // else the queue's array keeps in memory what it brings
		q = q[1:]
	}
	*queue = q
	return group
}

// queued is how many flights wait for a call. Called with r.mu held.
func (p *provider) queued() int {
	n := len(p.queue)
	for _, f := range p.quietly {
		if f.quiet {
			n++
		}
	}
	return n
}

// work takes group, and what has queued behind it meanwhile, to the store.
func (p *provider) work(group []*flight, quiet bool) {
	defer p.r.calls.Done()
	defer p.running.Done()
	for group != nil {
		p.fetch(group)
		p.r.mu.Lock()
		p.calls.Release(1)
		p.active--
		if quiet {
			p.quiet--
			p.r.quiet--
			p.r.nextStarved()
		}
		// Others who wait for a call come first: TryAcquire fails while there are any, and they dispatch when done.
		group, quiet = p.take()
		p.r.mu.Unlock()
	}
}

// nextStarved lets other providers have a worker that is free again. Called with r.mu held.
func (r *Resolver) nextStarved() {
	if !r.starved {
		return
	}
	r.starved = false
	for _, p := range *r.providers.Load() {
		p.dispatch()
	}
}

// fetch makes one call for group and hands out its results.
func (p *provider) fetch(group []*flight) {
	wait, done, err := p.guard.admit()
	if err != nil {
		// A pause that the store asked for may be waited for; a failing store is not.
		p.settle(group, nil, err, backend.CodeOf(err) == backend.CodeThrottled)
		return
	}
	if wait > 0 {
		turn := time.NewTimer(wait)
		select {
		case <-turn.C:
		case <-p.ctx.Done():
			turn.Stop()
		}
	}
	began := p.r.clock.exact()
	for _, f := range group {
		f.began = began
	}
	ctx, cancel := context.WithTimeout(p.ctx, p.Timeout)
	defer cancel()
	ctx = context.WithValue(ctx, chainKey{}, append(slices.Clone(group[0].chain), p.name))
	if len(p.Scope) > 0 {
		ctx = backend.WithoutLogin(ctx) // a wider subject may be logged in
	}
	results, err := p.call(ctx, group)
	if errors.Is(err, errNoBatch) {
		done(errNotCalled)
		p.r.mu.Lock()
		p.single = true
		rest, quietly := p.queue, p.quietly
		p.queue, p.quietly = nil, nil
		for _, f := range group { // before the rest
			f.out = 0
			p.enqueue(f)
		}
		p.queue, p.quietly = append(p.queue, rest...), append(p.quietly, quietly...)
		p.dispatch()
		p.r.mu.Unlock()
		return
	}
	again := ctx.Err() == nil // a call that took all its time is not repeated
	err = p.judge(ctx, err)
	for i := range results {
		results[i].Err = p.judge(ctx, results[i].Err)
	}
	if p.ctx.Err() != nil {
		done(errNotCalled) // cut off by us, whatever the backend made of it
	} else {
		done(verdict(results, err))
	}
	p.settle(group, results, err, again)
}

var errNoBatch = errors.New("no batch call")

// call makes the call. What a backend's panic says is not known to be without secrets, and is lost.
func (p *provider) call(ctx context.Context, group []*flight) (results []backend.Result, err error) {
	op, began := "", time.Now()
	defer func() { // after the next, which makes an error of a panic
		all := err
		if all == nil && len(group) == 1 && len(results) == 1 {
			all = results[0].Err
		}
		if op != "" && !errors.Is(err, errNoBatch) {
			p.observe(group[0].cause, op, len(group), began, p.judge(ctx, all))
		}
	}()
	defer func() {
		if recover() != nil {
			results, err = nil, backend.Errorf(backend.CodeInternal, "the backend panicked")
		}
	}()
	f := group[0]
	if f.check != nil {
		op = OpCheck
		p.r.count.checks.Add(1)
		version, err := p.lookout.checker.CurrentVersion(ctx, f.target.request())
		return []backend.Result{{Credential: &backend.Credential{Version: version}, Err: err}}, nil
	}
	p.r.count.calls.Add(1)
	if len(group) > 1 {
		op = OpBatch
		p.r.count.batches.Add(1)
		reqs := make([]backend.Request, len(group))
		for i, f := range group {
			reqs[i] = f.target.request()
		}
		results, err = p.batch.GetBatch(ctx, reqs)
		if errors.Is(err, errors.ErrUnsupported) {
			return nil, errNoBatch
		}
		if err == nil && len(results) != len(group) {
			return nil, backend.Errorf(backend.CodeInternal, "the backend gave %d results for %d requests", len(results), len(group))
		}
		return slices.Clone(results), err
	}
	if f.renew != nil {
		c, err := p.renew(ctx, f)
		if err != nil || c != nil {
			return []backend.Result{{Credential: c, Err: err}}, nil
		}
	}
	op, began = OpGet, time.Now()
	var c *backend.Credential
	if f.window != nil {
		c, err = p.replace(ctx, f)
	} else {
		c, err = p.Backend.Get(ctx, f.target.request())
	}
	return []backend.Result{{Credential: c, Err: err}}, nil
}

// renew prolongs the lease of f.renew, and gives its credential with the new lease; nil when only a new credential helps.
func (p *provider) renew(ctx context.Context, f *flight) (*backend.Credential, error) {
	if _, can := p.Backend.(backend.Renewer); !can {
		return nil, nil
	}
	was := f.renew.cred
	began := time.Now()
	var told error = backend.Errorf(backend.CodeInternal, "the backend panicked") // unless it returns
	defer func() { p.observe(f.cause, OpRenew, 1, began, told) }()
	lease, err := backend.Renew(ctx, p.Backend, *was.Lease, f.renew.length)
	told = p.judge(ctx, err)
	switch {
	case err == nil && lease.Duration > 0:
	case err != nil && (unavailable(err) || ctx.Err() != nil):
		return nil, err
	default:
		return nil, nil
	}
	p.r.count.renewals.Add(1)
	c := *was
	c.Lease, c.RefreshAfter = &lease, time.Time{}
	// An expiry that was the end of the lease moves with it; one beyond is the end of all renewals.
	if !c.Expires.After(f.renew.known.expires.Add(slack(f.renew.length))) {
		c.Expires = time.Time{}
	}
	p.r.mu.Lock()
	f.renewed = true
	p.r.mu.Unlock()
	return &c, nil
}

// judge gives err as callers may see it. Only the contract's errors are known to hold no secret.
func (p *provider) judge(ctx context.Context, err error) error {
	switch err.(type) {
	case nil, *backend.Error, *RefError: // the latter is that of a secret which the provider's settings name
		return err
	}
	var known *backend.Error
	switch {
	case errors.As(err, &known):
		return known
	case p.ctx.Err() != nil:
		return context.Cause(p.ctx)
	case ctx.Err() != nil:
		return backend.Errorf(backend.CodeUnavailable, "the store did not answer within %s", p.Timeout)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return backend.Errorf(backend.CodeUnavailable, "the call to the store was cut off")
	case errors.Is(err, errors.ErrUnsupported):
		return backend.Errorf(backend.CodeUnsupported, "the store does not support this")
	}
	return backend.Errorf(backend.CodeInternal, "the backend failed with an error of no known kind")
}

// verdict is what a call says about its store as a whole.
func verdict(results []backend.Result, err error) error {
	if err != nil {
		return err
	}
	var bad error
	for _, res := range results {
		if !unavailable(res.Err) && backend.CodeOf(res.Err) != backend.CodeAuthRequired {
			return nil
		}
		bad = res.Err
	}
	return bad
}

// settle lands each flight of group, or queues it again. err is all theirs; again says whether repeating may help.
func (p *provider) settle(group []*flight, results []backend.Result, err error, again bool) {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	var retry []*flight
	var delay time.Duration
	for i, f := range group {
		res := backend.Result{Err: err}
		if err == nil {
			res = results[i]
		}
		if res.Err == nil && res.Credential == nil {
			res.Err = backend.Errorf(backend.CodeInternal, "the backend gave neither a credential nor an error")
		}
		if d, ok := p.retry(f, res.Err); ok && again {
			f.out = 0
			retry = append(retry, f)
			delay = max(delay, d)
			continue
		}
		if res.Err == nil && f.check == nil {
			p.r.count.fetched.Add(1)
		}
		p.r.land(f, res.Credential, res.Err)
	}
	if len(retry) == 0 {
		return
	}
	// Together, so that what went out in one call does again. The wait takes no call's place.
	p.r.count.retries.Add(uint64(len(retry)))
	time.AfterFunc(delay, func() {
		p.r.mu.Lock()
		defer p.r.mu.Unlock()
		if !p.retired {
			for _, f := range retry {
				p.enqueue(f)
			}
			p.dispatch()
		}
	})
}

// retry tells how long to wait before f is tried again, if it is. Called with r.mu held.
func (p *provider) retry(f *flight, err error) (time.Duration, bool) {
	if !unavailable(err) || p.retired || f.tries >= p.Retries || f.check != nil {
		return 0, false
	}
	if f.backoff == nil {
		f.backoff = backoff.NewExponentialBackOff()
		f.backoff.InitialInterval, f.backoff.MaxInterval = firstBackoff, maxBackoff
		f.backoff.Multiplier = 3
		f.backoff.Reset()
	}
	f.tries++
	delay := max(f.backoff.NextBackOff(), backend.RetryAfter(err))
	return delay, delay <= maxBackoff
}

// revoke ends rec's credential at the store. The caller has counted the call in p.running and Resolver.calls.
func (p *provider) revoke(ctx context.Context, rec *record) (err error) {
	defer p.r.calls.Done()
	defer p.running.Done()
	caller := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	held := int64(0)
	var began time.Time
	defer func() {
		if recover() != nil {
			err = backend.Errorf(backend.CodeInternal, "the backend panicked")
		}
		if _, can := p.Backend.(backend.Revoker); can && held > 0 {
			p.observe(context.WithoutCancel(caller), OpRevoke, 1, began, p.judge(ctx, err))
		}
		p.r.mu.Lock()
		p.calls.Release(held)
		p.dispatch() // also after waiting in vain: who dispatched meanwhile left a free call to us
		p.r.mu.Unlock()
	}()
	if err = p.calls.Acquire(ctx, 1); err == nil {
		held, began = 1, time.Now()
		var ended context.CancelFunc
		ctx, ended = context.WithTimeout(ctx, p.Timeout) // of the call alone: many may wait for their turn
		defer ended()
		err = backend.Revoke(ctx, p.Backend, rec.target.request(), rec.cred)
	}
	if err != nil && caller.Err() != nil {
		return caller.Err()
	}
	return p.judge(ctx, err)
}

// kept gives what keeper keeps at t. The caller has counted the call in p.running and Resolver.calls.
func (p *provider) kept(ctx context.Context, keeper backend.KeptGetter, t *target) (c *backend.Credential, err error) {
	defer p.r.calls.Done()
	defer p.running.Done()
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	defer func() {
		if recover() != nil {
			c, err = nil, backend.Errorf(backend.CodeInternal, "the backend panicked")
		}
	}()
	if c, err = keeper.GetKept(ctx, t.request()); err == nil && c == nil {
		err = backend.Errorf(backend.CodeInternal, "the backend gave neither a credential nor an error")
	}
	return c, p.judge(ctx, err)
}

func closeBackend(b backend.Backend) (err error) {
	c, ok := b.(io.Closer)
	if !ok {
		return nil
	}
	defer func() {
		if recover() != nil {
			err = fmt.Errorf("the backend panicked: %w", backend.Errorf(backend.CodeInternal, "closing it"))
		}
	}()
	return c.Close()
}
