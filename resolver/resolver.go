package resolver

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/cache"
	"github.com/credresolve/credresolve/credref"
)

// Resolver turns refs into values. It is safe for concurrent use. Its own methods resolve for the subject of the context
// (credref.SubjectFrom), at which they look only where a provider has a scope; For gives them for another.
type Resolver struct {
	clock coarse
	cache *cache.Cache[key, record, Value]

	ctx    context.Context // of everything that nobody waits for
	cancel context.CancelCauseFunc
	calls  sync.WaitGroup // calls to stores, and what closes them
	hub    hub
	count  counters

	failures *FailureMemory

	providers atomic.Pointer[map[string]*provider] // never written to once published

	onCall func(Call) // nil: nobody

	mu      tellingMutex // guards what follows, every record, every provider's queue, and writes to the cache
	revise  *reviser
	flights map[key]*flight
	pins    map[key]*pin   // of open handles
	waits   map[edge]int   // calls that wait for another provider
	entries map[string]int // in the cache, by provider
	kept    map[key]*restored
	lapse   *time.Timer      // of the first of kept
	most    int              // of kept
	given   map[key]struct{} // what Snapshot gave, or Restore took: somebody may keep it
	unsure  bool             // that may be others as well
	owed    map[key][]*debt
	owing   int // of them
	under   int // calls that end something at its store
	agenda  schedule
	workers int   // how many calls that nobody waits for may be under way
	quiet   int   // that are
	starved bool  // a provider waits for one of them to end
	crowded []key // whose credentials left the cache to make room, and nobody was told
	closed  bool
}

// key names a secret of a provider as one subject sees it. Thousands of them are hashed and copied at once, so that a
// subject, which few have, takes one word: the zero handle is everybody's.
type key struct {
	provider, id, version string
	subject               unique.Handle[credref.Subject]
}

func (k key) ref() credref.Ref {
	return credref.Ref{Provider: k.provider, ID: k.id, Version: k.version}
}

type entry = cache.Entry[record, Value]

// New gives a Resolver of c's providers. It does no I/O and starts nothing. Its errors are ErrInvalidConfig; then the
// backends stay the caller's.
func New(c Config) (*Resolver, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	r := &Resolver{
		revise:   newReviser(c.RevisionKey),
		failures: c.Failures,
		flights:  map[key]*flight{},
		pins:     map[key]*pin{},
		waits:    map[edge]int{},
		entries:  map[string]int{},
		kept:     map[key]*restored{},
		most:     max(c.Cache.orDefault().Entries, defaultEntries),
		given:    map[key]struct{}{},
		owed:     map[key][]*debt{},
		workers:  c.RefreshWorkers,
		onCall:   c.Observe,
	}
	if r.workers <= 0 {
		r.workers = defaultWorkers
	}
	r.mu.tell = c.OnChange
	r.clock.now.Store(asleep)
	r.ctx, r.cancel = context.WithCancelCause(context.Background())
	r.cache = cache.New[key](c.Cache.orDefault(), func(k key, e *entry, evicted bool) { // r.mu is held
		if r.entries[k.provider]--; r.entries[k.provider] == 0 {
			delete(r.entries, k.provider)
		}
		r.agenda.remove(e)
		if evicted && e.Payload.cred != nil && r.hub.watching.Load() > 0 {
			r.crowded = append(r.crowded, k)
		}
	})
	providers := make(map[string]*provider, len(c.Providers))
	for name, p := range c.Providers {
		providers[name] = newProvider(r, name, p, c.IgnoreFailures)
	}
	r.providers.Store(&providers)
	return r, nil
}

// Apply replaces the configuration. A provider whose digest is unchanged keeps its backend, login, cache, leases and
// breaker, and the backend that c brings for it is closed unless it is the same; another is replaced, its values end, and
// who waits for one is answered by its successor. Handles ask the successor at their next use; watchers are told that what
// was served is not any more, or that its provider is gone. Nothing changes when Apply fails: its errors are
// ErrInvalidConfig, or that the Resolver is closed, and c's backends stay the caller's.
func (r *Resolver) Apply(c Config) error {
	if err := c.validate(); err != nil {
		return err
	}
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return errClosed
	}
	old := *r.providers.Load()
	providers := make(map[string]*provider, len(c.Providers))
	var unused []backend.Backend
	kept := map[backend.Backend]bool{}
	for name, p := range c.Providers {
		if have := old[name]; have != nil && p.Digest != "" && p.Digest == have.Digest {
			providers[name] = have
			if !same(have.Backend, p.Backend) {
				unused = append(unused, p.Backend)
			}
			continue
		}
		providers[name] = newProvider(r, name, p, c.IgnoreFailures)
	}
	for _, p := range providers {
		if reflect.TypeOf(p.Backend).Comparable() {
			kept[p.Backend] = true
		}
	}
	r.providers.Store(&providers)
	var gone []*provider
	other := map[string]bool{} // providers that were replaced, removed or added
	for name, p := range old {
		if providers[name] != p {
			other[name] = true
			gone = append(gone, p)
			r.retire(p)
		}
	}
	for name := range providers {
		other[name] = other[name] || old[name] == nil
	}
	r.hub.replaced(r, other)
	if len(gone) > 0 {
		r.endedOf(func(k key) bool { return providers[k.provider] != old[k.provider] })
	}
	r.most = max(c.Cache.orDefault().Entries, defaultEntries)
	r.cache.Resize(c.Cache.orDefault())
	r.crowdedOut()
	r.calls.Add(1) // under the lock, so that Close waits
	r.mu.Unlock()

	go func() {
		defer r.calls.Done()
		for _, p := range gone {
			p.running.Wait()
			unused = append(unused, p.Backend)
		}
		for _, b := range unused {
			if !reflect.TypeOf(b).Comparable() || !kept[b] {
				_ = closeBackend(b)
			}
		}
	}()
	return nil
}

// retire ends all that p holds. Called with r.mu held.
func (r *Resolver) retire(p *provider) {
	p.retired = true
	p.cancel(errReplaced)
	for _, f := range slices.Concat(p.queue, p.quietly) {
		r.land(f, nil, errReplaced)
	}
	p.queue, p.quietly = nil, nil
	p.lookout.stop()
	var served, flying []key
	for k := range r.flights {
		if k.provider == p.name {
			delete(r.flights, k)
			if r.hub.watching.Load() > 0 && !r.served(k) {
				flying = append(flying, k)
			}
		}
	}
	r.cache.RemoveIf(func(k key, e *entry) bool {
		if k.provider != p.name {
			return false
		}
		if e.Payload.cred != nil && r.hub.watching.Load() > 0 {
			served = append(served, k)
		}
		return true
	})
	if !r.closed {
		r.hub.ended(r, p, served)
		r.lapsed(flying...)
	}
	for k, pin := range r.pins {
		if k.provider == p.name {
			pin.target = nil
		}
	}
	for k := range r.kept {
		if k.provider == p.name {
			delete(r.kept, k)
		}
	}
	for k, debts := range r.owed {
		if k.provider == p.name {
			for _, d := range slices.Clone(debts) {
				r.settle(d.rec)
			}
		}
	}
}

func same(a, b backend.Backend) bool {
	return reflect.TypeOf(a) == reflect.TypeOf(b) && reflect.TypeOf(a).Comparable() && a == b
}

// Close ends all fetches, forgets every value, and closes the backends. Calls that wait, and later ones, fail with
// ErrUnavailable. A second Close does nothing.
func (r *Resolver) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	r.cancel(errClosed)
	r.clock.close()
	r.agenda.stop()
	if r.lapse != nil {
		r.lapse.Stop()
	}
	providers := *r.providers.Load()
	for _, p := range providers {
		r.retire(p)
	}
	r.hub.close()
	r.mu.Unlock()

	// A backend returns soon after its context is done. One that does not must not keep a program from ending.
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.calls.Wait()
	}()
	patience := time.NewTimer(closePatience)
	defer patience.Stop()
	var first error
	select {
	case <-done:
	case <-patience.C:
		first = backend.Errorf(backend.CodeInternal, "a backend did not return within %s after its context was done", closePatience)
	}
	closed := map[backend.Backend]bool{}
	for _, name := range slices.Sorted(maps.Keys(providers)) {
		b := providers[name].Backend
		if reflect.TypeOf(b).Comparable() {
			if closed[b] {
				continue
			}
			closed[b] = true
		}
		if err := closeBackend(b); err != nil && first == nil {
			first = fmt.Errorf("closing provider %s: %w", name, err)
		}
	}
	return first
}

const closePatience = 5 * time.Second

// Backend gives the backend of a provider, for what is not resolving: to write, list, probe. The Resolver stays its
// owner; tell it of writes by Wrote. The error of an unknown provider is ErrInvalidConfig and names the nearest one.
func (r *Resolver) Backend(name string) (backend.Backend, error) {
	p, err := r.provider(name)
	if err != nil {
		return nil, err
	}
	return p.Backend, nil
}

func (r *Resolver) provider(name string) (*provider, error) {
	providers := *r.providers.Load()
	if p := providers[name]; p != nil {
		return p, nil
	}
	names := slices.Sorted(maps.Keys(providers))
	e := backend.Errorf(backend.CodeInvalidConfig, "unknown provider %q", name)
	if len(name) > credref.MaxProvider {
		e.Reason = "unknown provider"
	}
	if near := backend.Nearest(name, names); near != "" {
		e.Remedy = fmt.Sprintf("did you mean %q?", near)
	} else if len(names) == 0 {
		e.Remedy = "no provider is configured"
	} else {
		e.Remedy = "see: credresolve providers"
	}
	return nil, e
}

// lookup gives ref's provider, if ref can be resolved at all.
func (r *Resolver) lookup(ref credref.Ref) (*provider, error) {
	if err := ref.Validate(); err != nil {
		return nil, backend.Errorf(backend.CodeUsage, "%v", err)
	}
	p, err := r.provider(ref.Provider)
	if err != nil {
		return nil, err
	}
	if ref.Version != "" && p.noVersions {
		return nil, backend.Errorf(backend.CodeUnsupported, "the provider has no versions")
	}
	return p, nil
}

// Resolve gives what ref points to, from the cache or from its store. A caller that leaves, since its ctx ends, does not
// end the fetch for others. Errors are a *RefError.
func (r *Resolver) Resolve(ctx context.Context, ref credref.Ref) (*Value, error) {
	if v := r.cache.Get(&ref, r.clock.now.Load()); v != nil {
		return v, nil
	}
	return r.resolve(ctx, ref, nil, nil)
}

// ResolveAll gives one Outcome for each of refs, in their order. Distinct secrets are fetched once, together, in the
// store's batch call where it has one; that one fails does not keep the others from being answered.
func (r *Resolver) ResolveAll(ctx context.Context, refs []credref.Ref) []Outcome {
	return r.resolveAll(ctx, refs, nil, nil)
}

// Outcome is what became of one ref: a Value or an error, never both.
type Outcome struct {
	Ref   credref.Ref
	Value *Value
	Err   error // a *RefError
	// Waited: the answer waited for a fetch.
	Waited bool
}

// For gives a View for subject.
func (r *Resolver) For(subject credref.Subject) *View { return &View{r, subject} }

// Handle gives a Handle on ref for everybody's subject.
func (r *Resolver) Handle(ref credref.Ref) *Handle { return r.For(credref.Subject{}).Handle(ref) }

// Watch gives the events of refs, of every secret when there are none, as the subject of ctx sees them, until ctx ends or
// the Resolver is closed; then the channel is closed. It is level-triggered: first comes how each ref stands, and of several
// events of one ref that were not taken in time the last is given. A slow receiver holds up nothing: of a watch of every
// secret the oldest events are lost where those of more than 10,000 secrets wait to be taken. A ref that a scoped provider
// may find in several places is told of as it is found.
func (r *Resolver) Watch(ctx context.Context, refs ...credref.Ref) <-chan Event {
	return r.watch(ctx, credref.SubjectFrom(ctx), refs)
}

// Report tells that a store or a service refused the value of that revision, and gives a newer one. Who holds an older
// revision gets the present one. Who holds the present one causes a fetch, one for all reporters and at most one each
// ten seconds; if the store has nothing newer, the answer has the same revision.
func (r *Resolver) Report(ctx context.Context, ref credref.Ref, revision string) (*Value, error) {
	return r.report(ctx, ref, revision, nil)
}

// Forget ends what is known of ref's secret, for every subject, and tells how many entries that were. A fetch under way is
// detached: who waits for it gets its result, which is not kept; a lease that nobody waits for is ended at its store. What an
// open Handle holds, or has looked for, is fetched again at once, and watchers hear of it.
func (r *Resolver) Forget(ref credref.Ref) int {
	return r.forget(func(k key) bool { return k.provider == ref.Provider && k.id == ref.ID && k.version == ref.Version })
}

// Invalidate is Forget of all ids of a provider that begin with prefix, whatever their version.
func (r *Resolver) Invalidate(provider, prefix string) int {
	return r.forget(func(k key) bool { return k.provider == provider && strings.HasPrefix(k.id, prefix) })
}

// Wrote tells that ref's secret was put or deleted through its backend: whatever was known of any of its versions, that
// there is none too, ends at once.
func (r *Resolver) Wrote(ref credref.Ref) {
	r.forget(func(k key) bool {
		if k.provider != ref.Provider {
			return false
		}
		if k.id == ref.ID {
			return true
		}
		// What was written by a store's own id, behind the template, may be what a subject sees under another.
		p := (*r.providers.Load())[k.provider]
		return p != nil && p.IDTemplate != ""
	})
}

func (r *Resolver) forget(which func(key) bool) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0
	}
	var over []key
	for k, f := range r.flights {
		if which(k) {
			f.detached = true
			delete(r.flights, k)
			if r.hub.watching.Load() > 0 && !r.served(k) {
				over = append(over, k)
			}
		}
	}
	n := 0
	r.cache.RemoveIf(func(k key, e *entry) bool {
		if !which(k) {
			return false
		}
		if e.Payload.cred != nil && r.hub.watching.Load() > 0 {
			over = append(over, k)
		}
		n++
		return true
	})
	r.lapsed(over...)
	for k := range r.kept {
		if which(k) {
			delete(r.kept, k)
		}
	}
	r.endedOf(which)
	// What an open handle holds, and what it looked for and did not find: who watches it is to hear what there is now.
	var asked []*provider
	for k, pin := range r.pins {
		if p := r.owner(k); p != nil && pin.target != nil && which(k) {
			r.takeOffQuietly(p, pin.target)
			if !slices.Contains(asked, p) {
				asked = append(asked, p)
			}
		}
	}
	for _, p := range asked { // only now, so that they go out together
		p.dispatch()
	}
	return n
}

// Source gives a backend.Source of ref, for a setting of another provider: it is resolved when asked. What is rejected is
// fetched anew at the next Get, as Report does.
func (r *Resolver) Source(ref credref.Ref) backend.Source {
	var rejected atomic.Pointer[string]
	return backend.NewSource(
		func(ctx context.Context) (backend.Secret, string, error) {
			var v *Value
			var err error
			none := credref.Subject{} // a provider's login is nobody's in particular
			if old := rejected.Load(); old != nil {
				// Until it succeeds, and for all who ask meanwhile: what was rejected is not given again for want of an answer.
				if v, err = r.report(ctx, ref, *old, &none); err == nil {
					rejected.CompareAndSwap(old, nil)
				}
			} else {
				v, err = r.resolve(ctx, ref, &none, nil)
			}
			if err != nil {
				return backend.Secret{}, "", err
			}
			return v.Secret(), v.Revision(), nil
		},
		func(revision string) { rejected.Store(&revision) },
	)
}

// counters are what Stats shows.
type counters struct {
	misses, negative, stale, shared, calls, batches, fetched, retries, failed, refreshes, renewals, checks atomic.Uint64
}

// Stats are counts since New. Hits are not among them: counting would cost what they cost.
type Stats struct {
	Misses        uint64 // lookups that no fresh value answered at once
	NegativeHits  uint64 // of them, answered by a remembered "not found"
	StaleHits     uint64 // of them, answered by a value past its time
	Shared        uint64 // of them, answered by a fetch that another had begun
	Calls         uint64 // calls to stores that read secrets
	BatchCalls    uint64 // of them, batch calls
	Fetched       uint64 // secrets that calls gave
	Failed        uint64 // fetches that failed in the end
	Retries       uint64
	Refreshes     uint64 // fetches that nobody waited for when they began
	Renewals      uint64 // of leases
	Checks        uint64 // looks for a new version, which read no secret
	Entries       int    // secrets in the cache
	Bytes         int64  // their size
	Evicted       uint64 // secrets that left to make room
	OpenHandles   int
	FetchesUnder  int // under way or queued
	ActiveWatches int
}

// Stats gives the counts.
func (r *Resolver) Stats() Stats {
	size := r.cache.Size()
	r.mu.Lock()
	flights, handles := len(r.flights), 0
	for _, p := range r.pins {
		handles += p.handles
	}
	r.mu.Unlock()
	return Stats{
		Misses: r.count.misses.Load(), NegativeHits: r.count.negative.Load(), StaleHits: r.count.stale.Load(), Shared: r.count.shared.Load(),
		Calls: r.count.calls.Load(), BatchCalls: r.count.batches.Load(), Fetched: r.count.fetched.Load(),
		Failed: r.count.failed.Load(), Retries: r.count.retries.Load(), Refreshes: r.count.refreshes.Load(),
		Renewals: r.count.renewals.Load(), Checks: r.count.checks.Load(), Entries: size.Entries, Bytes: size.Bytes, Evicted: size.Evicted,
		OpenHandles: handles, FetchesUnder: flights, ActiveWatches: int(r.hub.watching.Load()),
	}
}
