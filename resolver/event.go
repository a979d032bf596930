package resolver

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/credresolve/credresolve/credref"
)

// Event is one step in a credential's life. It holds no secret.
type Event struct {
	// Ref names the secret, or a part of it as the watcher asked for it.
	Ref  credref.Ref
	Kind EventKind
	Time time.Time
	// Revision, Version and Expires are those of the credential that is served now; zero when none is.
	Revision string
	Version  string
	Expires  time.Time
	// Err is why, where Kind is stale or failed.
	Err error
}

// EventKind says which step an Event is.
type EventKind string

// The steps of a credential's life.
const (
	EventResolved  EventKind = "resolved"  // fetched, and nothing was known before
	EventExpiring  EventKind = "expiring"  // the time has come for a successor
	EventRefreshed EventKind = "refreshed" // looked at again, or its lease was renewed: the content is the same
	EventRotated   EventKind = "rotated"   // a successor with another content is served now
	EventStale     EventKind = "stale"     // served past its time, since the store is unavailable
	EventFailed    EventKind = "failed"    // no longer served, or a fetch failed
	EventRevoked   EventKind = "revoked"   // ended before its time
)

// hub hands events to watchers. Nothing in it waits for a watcher.
type hub struct {
	watching atomic.Int32
	mu       sync.Mutex
	byKey    map[key]map[*watcher]struct{} // so that an event costs what its own watchers do
	all      map[*watcher]struct{}
	closed   bool
}

type watcher struct {
	refs    map[key][]credref.Ref
	all     bool // of those that subject sees
	subject credref.Subject
	wake    chan struct{}

	mu      sync.Mutex
	pending map[credref.Ref]Event
	order   []credref.Ref
}

// maxPending is how many refs have an event waiting for a watcher of everything that does not take them.
const maxPending = 10_000

// publish tells of ev, whose Ref has no field, to those who watch k, a key of a provider of that scope.
func (h *hub) publish(scope []Scope, k key, ev Event) {
	if h.watching.Load() == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.byKey[k] {
		for _, ref := range w.refs[k] {
			ev.Ref = ref
			w.put(ev)
		}
	}
	ev.Ref = k.ref()
	for w := range h.all {
		if len(scope) == 0 || slices.Contains(levels(scope, w.subject), k.whom()) {
			w.put(ev)
		}
	}
}

// put keeps the last event of each ref until the watcher takes it.
func (w *watcher) put(ev Event) {
	w.mu.Lock()
	if _, waiting := w.pending[ev.Ref]; !waiting {
		if w.all && len(w.order) >= maxPending {
			delete(w.pending, w.order[0])
			w.order = w.order[1:]
		}
		w.order = append(w.order, ev.Ref)
	}
	w.pending[ev.Ref] = ev
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *watcher) take() (Event, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.order) == 0 {
		return Event{}, false
	}
	ref := w.order[0]
	w.order = w.order[1:]
	ev := w.pending[ref]
	delete(w.pending, ref)
	return ev, true
}

func (h *hub) add(w *watcher) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	if h.byKey == nil {
		h.byKey, h.all = map[key]map[*watcher]struct{}{}, map[*watcher]struct{}{}
	}
	if w.all {
		h.all[w] = struct{}{}
	}
	for k := range w.refs {
		if h.byKey[k] == nil {
			h.byKey[k] = map[*watcher]struct{}{}
		}
		h.byKey[k][w] = struct{}{}
	}
	h.watching.Add(1)
	return true
}

func (h *hub) remove(w *watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.all, w)
	for k := range w.refs {
		if delete(h.byKey[k], w); len(h.byKey[k]) == 0 {
			delete(h.byKey, k)
		}
	}
	h.watching.Add(-1)
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
}

// watch gives the events of refs, of every secret when there are none, as subject sees them, until ctx ends or the
// Resolver is closed; then the channel is closed. It is level-triggered: of several events of one ref that nobody took
// in time, the last is given; first comes how each ref stands. A watcher of everything that takes none loses the oldest events
// beyond those of 10,000 refs.
func (r *Resolver) watch(ctx context.Context, subject credref.Subject, refs []credref.Ref) <-chan Event {
	out := make(chan Event)
	w := &watcher{all: len(refs) == 0, subject: subject, refs: map[key][]credref.Ref{}, pending: map[credref.Ref]Event{}, wake: make(chan struct{}, 1)}
	for _, ref := range refs {
		p, err := r.lookup(ref)
		if err != nil {
			w.put(Event{Ref: ref, Kind: EventFailed, Time: time.Now(), Err: refError(ref, err)})
			continue
		}
		targets, err := p.targets(ref, subject)
		if err != nil {
			w.put(Event{Ref: ref, Kind: EventFailed, Time: time.Now(), Err: refError(ref, err)})
			continue
		}
		for _, t := range targets {
			w.refs[t.key] = append(w.refs[t.key], ref)
		}
	}
	r.mu.Lock() // so that no event comes between how a ref stands and what is said of it
	if !r.hub.add(w) {
		r.mu.Unlock()
		close(out)
		return out
	}
	for k, same := range w.refs {
		if e := r.cache.Peek(k); e != nil && e.Payload.cred != nil {
			kind := EventResolved
			if e.Payload.stale {
				kind = EventStale
			}
			for _, ref := range same {
				w.put(e.Payload.event(ref, kind, nil))
			}
		}
	}
	r.mu.Unlock()
	go func() {
		defer close(out)
		defer r.hub.remove(w)
		for {
			for {
				ev, ok := w.take()
				if !ok {
					break
				}
				select {
				case out <- ev:
				case <-ctx.Done():
					return
				case <-r.ctx.Done():
					return
				}
			}
			select {
			case <-w.wake:
			case <-ctx.Done():
				return
			case <-r.ctx.Done():
				return
			}
		}
	}()
	return out
}
