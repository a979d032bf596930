package resolver

import (
	"context"
	"sync"

	"github.com/credresolve/credresolve/cache"
	"github.com/credresolve/credresolve/credref"
)

// Handle is a ref made ready for being asked often. While it is open its credential counts as used: it is refreshed, and
// its lease renewed, before its time is over. It is safe for concurrent use; Close it when done.
type Handle struct {
	r       *Resolver
	slot    *cache.Slot[Value]
	ref     credref.Ref
	subject credref.Subject

	mu     sync.Mutex
	pinned map[key]bool
	closed bool
}

func newHandle(r *Resolver, subject credref.Subject, ref credref.Ref) *Handle {
	return &Handle{r: r, slot: new(cache.Slot[Value]), ref: ref, subject: subject}
}

// Get gives the value, as Resolve does.
func (h *Handle) Get(ctx context.Context) (*Value, error) {
	if v := h.slot.Get(h.r.clock.now.Load()); v != nil {
		return v, nil
	}
	return h.r.resolve(ctx, h.ref, &h.subject, h)
}

// Ref is what the handle was made of.
func (h *Handle) Ref() credref.Ref { return h.ref }

// pin makes k count as used while h is open. A handle of a scoped provider may find its credential in several places.
func (h *Handle) pin(k key) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || h.pinned[k] {
		return
	}
	if h.pinned == nil {
		h.pinned = map[key]bool{}
	}
	h.pinned[k] = true
	h.r.mu.Lock()
	h.r.pins[k]++
	h.r.mu.Unlock()
}

// Close lets the credential go; it stays cached. Get still works, without keeping the credential in use.
func (h *Handle) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil
	}
	h.closed = true
	h.r.mu.Lock()
	defer h.r.mu.Unlock()
	for k := range h.pinned {
		if h.r.pins[k]--; h.r.pins[k] == 0 {
			delete(h.r.pins, k)
		}
	}
	return nil
}
