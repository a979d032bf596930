package resolver

import (
	"context"
	"strings"

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

	// Guarded by Resolver.mu.
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

// String is the ref: what prints a handle does not read what others write meanwhile.
func (h *Handle) String() string { return h.ref.String() }

// pin is what open handles keep in use.
type pin struct {
	handles int
	insists bool    // it is to be fetched again after a while
	target  *target // nil: its provider was replaced, and nobody has asked the successor yet
}

// pin makes t's secret count as used while h is open. A handle of a scoped provider may find its credential in several places.
// Called with r.mu held.
func (h *Handle) pin(t *target) {
	if h.closed {
		return
	}
	k := t.key
	p := h.r.pins[k]
	if !h.pinned[k] {
		k.provider, k.id, k.version = strings.Clone(k.provider), strings.Clone(k.id), strings.Clone(k.version)
		if h.pinned == nil {
			h.pinned = map[key]bool{}
		}
		if p == nil {
			p = &pin{}
			h.r.pins[k] = p
		}
		h.pinned[k] = true
		p.handles++
	}
	if p.target == nil || p.target.id != t.id {
		p.target = &target{k, strings.Clone(t.id)}
	}
}

// Close lets the credential go; it stays cached. Get still works, without keeping the credential in use.
func (h *Handle) Close() error {
	h.r.mu.Lock()
	defer h.r.mu.Unlock()
	h.closed = true
	for k := range h.pinned {
		p := h.r.pins[k]
		if p.handles--; p.handles == 0 {
			delete(h.r.pins, k)
		}
	}
	h.pinned = nil
	return nil
}
