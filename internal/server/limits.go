package server

import (
	"cmp"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/internal/policy"
)

// The limits that hold where the configuration says nothing.
const (
	defaultConnections = 1024
	reservedForHealth  = 16
	defaultWatchers    = 10_000
	defaultRequests    = 256
	defaultQueue       = 1024
	defaultBatch       = 1000
	defaultBody        = 1 << 20
	defaultHeader      = 16 << 10
	defaultTimeout     = 30 * time.Second
	defaultSessions    = 1000
	defaultGrace       = 10 * time.Second
)

// gate lets so many requests in at once, and lets so many others wait for their turn. Who waits for a store, or for its client to
// read, has no place: one store that hangs, or one client, must not keep the others from what is there.
type gate struct {
	slots   chan struct{}
	waiting atomic.Int64 // for a place
	fetches atomic.Int64 // requests that wait for a store
	queue   int64        // how many of either
}

func newGate(l config.ServeLimits) *gate {
	return &gate{slots: make(chan struct{}, cmp.Or(l.Requests, defaultRequests)), queue: int64(cmp.Or(l.Queue, defaultQueue))}
}

var (
	errBusy = &backend.Error{Code: backend.CodeUnavailable, Reason: "the sidecar is busy", RetryAfter: time.Second}
	errFull = &backend.Error{Code: backend.CodeUnavailable, Reason: "the sidecar has as many connections as it may have", RetryAfter: time.Second}
)

// enter waits for a place, which leave gives back. It fails when too many wait already.
func (g *gate) enter(ctx context.Context) error {
	select {
	case g.slots <- struct{}{}:
		return nil
	default:
	}
	if g.waiting.Add(1) > g.queue {
		g.waiting.Add(-1)
		return errBusy
	}
	defer g.waiting.Add(-1)
	patience := time.NewTimer(maxQueued)
	defer patience.Stop()
	select {
	case g.slots <- struct{}{}:
		return nil
	case <-patience.C:
		return errBusy
	case <-ctx.Done():
		return ctx.Err()
	}
}

// maxQueued is how long a request waits for its turn: who is served is served soon.
const maxQueued = 2 * time.Second

func (g *gate) leave() { <-g.slots }

// fetch counts one request that waits for a store; it reports false when there are too many, else done must be called.
func (g *gate) fetch() bool {
	if g.fetches.Add(1) > g.queue {
		g.fetches.Add(-1)
		return false
	}
	return true
}

func (g *gate) done() { g.fetches.Add(-1) }

// leave gives up the place of req, if it has one.
func (req *request) leave() {
	if req.placed {
		req.placed = false
		req.state.gate.leave()
	}
}

// wait gives up the place of req, since what follows waits for a store. The context ends with the client, or with the time that
// a request has. It fails when too many wait; else end must be called.
func (req *request) wait() (ctx context.Context, end func(), err error) {
	gate := req.state.gate
	if !gate.fetch() {
		return nil, nil, errBusy
	}
	req.leave()
	timeout := cmp.Or(req.state.serve.Limits.Timeout, defaultTimeout)
	if req.patience > 0 {
		timeout = min(timeout, req.patience)
	}
	ctx, cancel := context.WithTimeout(req.ctx(), timeout)
	attended := req.conn.attend(req.w, cancel)
	return ctx, func() {
		attended()
		cancel()
		gate.done()
	}, nil
}

// rates bound the refs that each consumer may ask for, however many connections it has.
type rates struct {
	mu sync.Mutex
	of map[string]*rate.Limiter
}

// limiter gives the limiter of a consumer, nil for none.
func (r *rates) limiter(c *policy.Consumer) *rate.Limiter {
	settings := c.Rate()
	if settings.Calls == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of[c.Name()] == nil {
		if r.of == nil {
			r.of = map[string]*rate.Limiter{}
		}
		r.of[c.Name()] = rate.NewLimiter(rate.Limit(float64(settings.Calls)/settings.Per.Seconds()), settings.Calls)
	}
	return r.of[c.Name()]
}

// allow takes n of l's tokens, or says when they will be there.
func allow(l *rate.Limiter, n int) error {
	if l == nil {
		return nil
	}
	turn := l.ReserveN(time.Now(), n)
	if !turn.OK() {
		return backend.Errorf(backend.CodeThrottled, "the request has more refs than the caller may ask for at once: %d", l.Burst())
	}
	if wait := turn.Delay(); wait > 0 {
		turn.Cancel()
		return &backend.Error{Code: backend.CodeThrottled, Reason: "the caller asks too often", RetryAfter: wait}
	}
	return nil
}

// failures slow down who tries tokens. A good token always passes.
type failures struct {
	once    sync.Once
	limiter *rate.Limiter
}

// next reports whether a further bad token is answered as such, rather than with a pause.
func (f *failures) next() bool {
	f.once.Do(func() { f.limiter = rate.NewLimiter(rate.Every(2*time.Second), 5) })
	return f.limiter.Allow()
}
