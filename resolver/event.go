package resolver

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// Event is one step in a credential's life, of which transitions has all. It holds no secret.
type Event struct {
	// Ref names the secret, or a part of it as the watcher asked for it.
	Ref  credref.Ref
	Kind EventKind
	// State is that of the credential after the step.
	State State
	Time  time.Time
	// Revision, Version and Expires are those of the credential that is served now; zero when none is.
	Revision string
	Version  string
	Expires  time.Time
	// Err is why, where Kind is stale, failed, auth_required or revoke_failed.
	Err error
}

// EventKind says which step an Event is.
type EventKind string

// The steps of a credential's life.
const (
	EventResolving    EventKind = "resolving"     // a fetch began, and nothing is known
	EventResolved     EventKind = "resolved"      // fetched, and nothing was known before
	EventExpiring     EventKind = "expiring"      // the time has come for a successor
	EventRefreshing   EventKind = "refreshing"    // a fetch of a successor, or a renewal, began
	EventRefreshed    EventKind = "refreshed"     // looked at again, or its lease was renewed: the content is the same
	EventRotated      EventKind = "rotated"       // a successor with another content is served now
	EventStale        EventKind = "stale"         // served past its time, since the store is unavailable
	EventFailed       EventKind = "failed"        // no longer served, or a fetch failed
	EventAuthRequired EventKind = "auth_required" // a fetch failed until somebody logs in
	EventRevoked      EventKind = "revoked"       // ended before its time
	EventRevokeFailed EventKind = "revoke_failed" // revoked here and not at its store yet, which is tried again
	EventLapsed       EventKind = "lapsed"        // nobody used it, it was forgotten, or it made room: the next who asks has it fetched
)

// EventKinds lists the kinds of events.
func EventKinds() []EventKind {
	return []EventKind{
		EventResolving, EventResolved, EventExpiring, EventRefreshing, EventRefreshed, EventRotated, EventStale, EventFailed,
		EventAuthRequired, EventRevoked, EventRevokeFailed, EventLapsed,
	}
}

// hub hands events to watchers. Nothing in it waits for a watcher.
type hub struct {
	watching atomic.Int32
	tap      func(key, Event) // nil but in tests: told of all, with r.mu held
	mu       sync.Mutex
	byKey    map[key]map[*watcher]struct{} // so that an event costs what its own watchers do
	all      map[*watcher]struct{}         // of every secret
	some     map[*watcher]struct{}         // the others
	closed   bool

	late     []*lateEvent       // one after the other
	waiting  map[key]*lateEvent // of late, those that nobody was told of yet
	handsOut bool               // a goroutine sees to late
}

// lateEvent is one that many watch: to tell them all at once would hold up who resolves.
type lateEvent struct {
	Event
	k  key
	to []listener
}

// listener is a watcher, and how it asked for a secret.
type listener struct {
	w    *watcher
	refs []credref.Ref
}

type watcher struct {
	asked   []credref.Ref // none: every secret that subject sees
	subject credref.Subject
	wake    chan struct{}

	// Guarded by hub.mu.
	refs   map[key][]credref.Ref
	places map[credref.Ref]*places // of refs that are looked for in several

	mu      sync.Mutex
	pending map[credref.Ref]Event
	order   []credref.Ref
}

// places is where a ref is looked for, in this order, and where it was found by what the watcher was told last.
type places struct {
	keys []key
	told key
}

// maxPending is how many refs have an event waiting for a watcher of everything that does not take them.
const maxPending = 10_000

// publish tells of ev, whose Ref has no field, to those who watch k, a key of a provider of that scope. Called with r.mu held.
func (h *hub) publish(r *Resolver, scope []Scope, k key, ev Event) {
	if h.watching.Load() == 0 {
		return
	}
	if h.tap != nil {
		h.tap(k, ev)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	to := make([]listener, 0, len(h.byKey[k])+len(h.all))
	for w := range h.byKey[k] {
		refs := w.refs[k]
		if len(w.places) > 0 {
			refs = nil
			for _, ref := range w.refs[k] {
				if at := w.places[ref]; at != nil {
					w.putFound(r, at, ref, k, ev)
				} else {
					refs = append(refs, ref)
				}
			}
		}
		if len(refs) > 0 {
			to = append(to, listener{w, refs})
		}
	}
	h.tell(k, ev, h.appendAll(to, scope, k))
}

// appendAll appends to to those who watch everything, and so k, a key of a provider of that scope. Called with h.mu held.
func (h *hub) appendAll(to []listener, scope []Scope, k key) []listener {
	whole := []credref.Ref{k.ref()}
	for w := range h.all {
		if len(scope) == 0 || slices.Contains(levels(scope, w.subject), k.whom()) {
			to = append(to, listener{w, whole})
		}
	}
	return to
}

// atOnce is how many watchers are told before others get a turn.
const atOnce = 128

// tell tells listeners of ev, of k: at once if they are few, and nothing came before that others were not told of yet. Called
// with h.mu held.
func (h *hub) tell(k key, ev Event, to []listener) {
	if len(to) <= atOnce && !h.handsOut {
		handOut(ev, to)
		return
	}
	if len(to) == 0 {
		return
	}
	if late := h.waiting[k]; late != nil { // the last is told
		late.Event, late.to = ev.After(late.Event), to
		return
	}
	late := &lateEvent{ev, k, to}
	h.late = append(h.late, late)
	if h.waiting == nil {
		h.waiting = map[key]*lateEvent{}
	}
	h.waiting[k] = late
	if !h.handsOut {
		h.handsOut = true
		go h.catchUp()
	}
}

func handOut(ev Event, to []listener) {
	for _, l := range to {
		for _, ref := range l.refs {
			ev.Ref = ref
			l.w.put(ev)
		}
	}
}

// catchUp tells of what is late, and ends when nothing is.
func (h *hub) catchUp() {
	for {
		h.mu.Lock()
		if len(h.late) == 0 || h.closed {
			h.late, h.waiting, h.handsOut = nil, nil, false
			h.mu.Unlock()
			return
		}
		late := h.late[0]
		if h.waiting[late.k] == late {
			delete(h.waiting, late.k)
		}
		n := min(atOnce, len(late.to))
		handOut(late.Event, late.to[:n])
		if late.to = late.to[n:]; len(late.to) == 0 {
			h.late[0] = nil
			h.late = h.late[1:]
		}
		h.mu.Unlock()
		runtime.Gosched()
	}
}

// drop lets go of what is late of a provider that is replaced: what is said of it from now on is newer. Called with h.mu held.
func (h *hub) drop(provider string) {
	h.late = slices.DeleteFunc(h.late, func(late *lateEvent) bool { return late.k.provider == provider })
	for k := range h.waiting {
		if k.provider == provider {
			delete(h.waiting, k)
		}
	}
}

// putFound puts ev, of k, if it says something about what ref finds: what becomes of a wide place does not while a narrower one
// has it, nor does that there is none in one place while another has it, or is being asked.
func (w *watcher) putFound(r *Resolver, at *places, ref credref.Ref, k key, ev Event) {
	mine, found := slices.Index(at.keys, k), slices.IndexFunc(at.keys, r.served)
	missing := ev.Kind == EventFailed && errors.Is(ev.Err, backend.ErrNotFound)
	switch {
	case found >= 0 && (found < mine || missing):
		if k = at.keys[found]; at.told == k {
			return
		}
		ev = r.standing(k, ref)
	case found > mine && ev.Kind == EventResolving: // the wider one is what there is
		return
	case ev.Kind == EventLapsed && at.told != k:
		return
	case missing && slices.ContainsFunc(at.keys, func(other key) bool { return other != k && r.flights[other] != nil }):
		return // its fetch will tell
	}
	if at.told = k; ev.Revision == "" {
		at.told = key{}
	}
	ev.Ref = ref
	w.put(ev)
}

// served reports whether a credential of k is known. Called with r.mu held.
func (r *Resolver) served(k key) bool {
	e := r.cache.Peek(k)
	return e != nil && e.Payload.cred != nil
}

// standing tells how the credential of k is served, which is known. Called with r.mu held.
func (r *Resolver) standing(k key, ref credref.Ref) Event {
	rec := &r.cache.Peek(k).Payload
	switch {
	case rec.halted:
		return r.event(rec, ref, EventAuthRequired, nil)
	case rec.stale:
		return r.event(rec, ref, EventStale, nil)
	}
	return r.event(rec, ref, EventResolved, nil)
}

// After gives what there is to say when ev comes after old, of the same ref, and old was not told: the last that happened, but
// for what only leads to something else or away from it. That says no more than the state.
func (ev Event) After(old Event) Event {
	switch ev.Kind {
	case EventResolving, EventExpiring, EventRefreshing, EventLapsed, EventRevokeFailed:
		switch old.Kind {
		case EventResolving, EventExpiring, EventRefreshing, EventLapsed:
			return ev
		}
	case EventRefreshed:
		if old.Kind != EventResolved && old.Kind != EventRotated {
			return ev
		}
		old.Version, old.Expires = ev.Version, ev.Expires
	default:
		return ev
	}
	old.State, old.Time = ev.State, ev.Time
	return old
}

// put keeps what there is to say of each ref until the watcher takes it.
func (w *watcher) put(ev Event) {
	w.mu.Lock()
	if old, waiting := w.pending[ev.Ref]; waiting {
		ev = ev.After(old)
	} else {
		if len(w.asked) == 0 && len(w.order) >= maxPending {
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

// newer gives what there is to say of held.Ref instead of held, which was not told.
func (w *watcher) newer(held Event) Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	ev, is := w.pending[held.Ref]
	if !is {
		return held
	}
	delete(w.pending, held.Ref)
	for i := len(w.order) - 1; i >= 0; i-- { // it came late
		if w.order[i] == held.Ref {
			w.order = slices.Delete(w.order, i, i+1)
			break
		}
	}
	return ev.After(held)
}

func (h *hub) add(r *Resolver, w *watcher) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	if h.byKey == nil {
		h.byKey, h.all, h.some = map[key]map[*watcher]struct{}{}, map[*watcher]struct{}{}, map[*watcher]struct{}{}
	}
	h.watching.Add(1)
	if len(w.asked) == 0 {
		h.all[w] = struct{}{}
		return true
	}
	h.some[w] = struct{}{}
	for _, ref := range w.asked {
		h.index(r, w, ref)
	}
	return true
}

// index makes w hear of ref, or tells it why it cannot. Called with h.mu held.
func (h *hub) index(r *Resolver, w *watcher, ref credref.Ref) {
	p, err := r.lookup(ref)
	var targets []target
	if err == nil {
		targets, err = p.targets(ref, w.subject)
	}
	if err != nil {
		w.put(Event{Ref: ref, Kind: EventFailed, State: StateConfigured, Time: time.Now(), Err: refError(ref, err)})
		return
	}
	if len(targets) > 1 {
		w.places[ref] = &places{}
	}
	for _, t := range targets {
		if at := w.places[ref]; at != nil {
			at.keys = append(at.keys, t.key)
		}
		w.refs[t.key] = append(w.refs[t.key], ref)
		if h.byKey[t.key] == nil {
			h.byKey[t.key] = map[*watcher]struct{}{}
		}
		h.byKey[t.key][w] = struct{}{}
	}
}

// forget makes w hear of k no more. Called with h.mu held.
func (h *hub) forget(w *watcher, k key) {
	if delete(h.byKey[k], w); len(h.byKey[k]) == 0 {
		delete(h.byKey, k)
	}
	delete(w.refs, k)
}

// ended tells that what p served, at those keys, is not served any more. Called with r.mu held, after p was replaced.
func (h *hub) ended(r *Resolver, p *provider, served []key) {
	h.mu.Lock()
	h.drop(p.name)
	h.mu.Unlock()
	_, gone := r.provider(p.name)
	for _, k := range served {
		ev := Event{Ref: k.ref(), Kind: EventFailed, State: StateConfigured, Time: time.Now(), Err: errNotAsked}
		if gone == nil {
			h.publish(r, p.Scope, k, ev)
			continue
		}
		ev.Err = gone
		if h.tap != nil {
			h.tap(k, ev)
		}
		h.mu.Lock()
		h.tell(k, ev, h.appendAll(nil, p.Scope, k)) // who watches it alone is told by replaced
		h.mu.Unlock()
	}
}

// replaced looks anew for what is watched of those providers. Called with r.mu held.
func (h *hub) replaced(r *Resolver, providers map[string]bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.some {
		for k := range w.refs {
			if providers[k.provider] {
				h.forget(w, k)
			}
		}
		for _, ref := range w.asked {
			if providers[ref.Provider] {
				delete(w.places, ref)
				h.index(r, w, ref)
			}
		}
	}
}

func (h *hub) remove(w *watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.all, w)
	delete(h.some, w)
	for k := range w.refs {
		h.forget(w, k)
	}
	h.watching.Add(-1)
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
}

// watch is Watch for subject.
func (r *Resolver) watch(ctx context.Context, subject credref.Subject, refs []credref.Ref) <-chan Event {
	out := make(chan Event)
	w := &watcher{
		subject: subject, refs: map[key][]credref.Ref{}, places: map[credref.Ref]*places{},
		pending: map[credref.Ref]Event{}, wake: make(chan struct{}, 1),
	}
	twice := map[credref.Ref]bool{}
	for _, ref := range refs {
		if !twice[ref] {
			twice[ref] = true
			w.asked = append(w.asked, ref)
		}
	}
	r.mu.Lock() // so that no event comes between how a ref stands and what is said of it
	if !r.hub.add(r, w) {
		r.mu.Unlock()
		close(out)
		return out
	}
	for k, same := range w.refs {
		e := r.cache.Peek(k)
		if e == nil || e.Payload.cred == nil {
			continue
		}
		for _, ref := range same {
			if at := w.places[ref]; at != nil {
				w.putFound(r, at, ref, k, r.standing(k, ref))
			} else {
				w.put(r.standing(k, ref))
			}
		}
	}
	r.mu.Unlock()
	go func() {
		defer close(out)
		defer r.hub.remove(w)
		var held Event
		holds := false
		for {
			if !holds {
				held, holds = w.take()
			}
			to := out
			if !holds {
				to = nil
			}
			select {
			case to <- held:
				holds = false
			case <-w.wake:
				if holds {
					held = w.newer(held)
				}
			case <-ctx.Done():
				return
			case <-r.ctx.Done():
				return
			}
		}
	}()
	return out
}
