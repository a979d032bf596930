package server

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
)

// readiness knows which of the declared refs are there.
type readiness struct {
	mu      sync.Mutex
	begun   bool
	waiting map[credref.Ref]bool // optional ones are not among them
	handles []*resolver.Handle
	ended   bool
}

const (
	prefetchJitter   = 250 * time.Millisecond
	prefetchFirst    = time.Second
	prefetchLongest  = 30 * time.Second
	prefetchPatience = 2 * time.Minute
)

// fetch resolves declared in one go, after a jitter so that a fleet that starts together does not ask at once, and holds them
// so that they stay fresh. What fails is tried again until ctx ends; ready is told of when all that is not optional is there.
func (r *readiness) fetch(ctx context.Context, from *resolver.Resolver, declared []config.Prefetch, failed func(credref.Ref, bool, error)) {
	open := map[credref.Ref]bool{} // optional?
	refs := make([]credref.Ref, 0, len(declared))
	waiting := map[credref.Ref]bool{}
	var handles []*resolver.Handle
	for _, p := range declared {
		if _, twice := open[p.Ref]; twice {
			continue
		}
		open[p.Ref] = p.Optional
		refs = append(refs, p.Ref)
		if !p.Optional {
			waiting[p.Ref] = true
		}
		handles = append(handles, from.Handle(p.Ref))
	}
	r.mu.Lock()
	old := r.handles
	r.begun, r.waiting, r.handles = true, waiting, handles
	r.mu.Unlock()
	defer func() {
		for _, h := range old { // after the new ones hold what both have
			_ = h.Close()
		}
	}()
	if len(refs) == 0 {
		return
	}
	sleep(ctx, rand.N(prefetchJitter))
	for pause := prefetchFirst; len(open) > 0 && ctx.Err() == nil; pause = min(2*pause, prefetchLongest) {
		from.ResolveAll(ctx, refs) // together, so that a store gets one batch call
		for _, h := range handles {
			optional, missing := open[h.Ref()]
			if !missing {
				continue
			}
			_, err := h.Get(ctx)
			if err == nil {
				delete(open, h.Ref())
				r.mu.Lock()
				delete(waiting, h.Ref())
				r.mu.Unlock()
			} else if ctx.Err() == nil && pause == prefetchFirst {
				failed(h.Ref(), optional, err)
			}
		}
		refs = refs[:0]
		for ref := range open {
			refs = append(refs, ref)
		}
		if len(open) > 0 {
			sleep(ctx, pause+rand.N(pause/4))
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// now tells whether all that is needed is there, and how much is not.
func (r *readiness) now() (ready bool, waiting int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.begun && !r.ended && len(r.waiting) == 0, len(r.waiting)
}

// end makes it not ready, for good.
func (r *readiness) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
}
