// Package metrics counts what a sidecar does and writes it in the text format of Prometheus, version 0.0.4.
//
// The values of labels come from lists alone: the names of providers and consumers of the configuration, the paths of the
// API, operations, codes and HTTP statuses. What is in none of them is counted as "other", so that nothing that a caller
// chooses, an id or a token, becomes a label, and nobody can make series at will.
//
// Counting takes no lock and allocates nothing. What the resolver counts itself is read when somebody scrapes.
package metrics

import (
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/resolver"
)

// Settings are what does not change while a sidecar runs, and what Allow can change.
type Settings struct {
	Version string // of the program
	// Routes are the paths of the API as they are declared, "/v1/sessions/{id}" and not what was asked for.
	Routes []string
	// Providers and Consumers are names of the configuration.
	Providers, Consumers []string
}

// Metrics are the counts of one sidecar. All methods are safe for concurrent use.
type Metrics struct {
	version string
	began   time.Time
	routes  map[string]*route // never written to after New
	sources atomic.Pointer[source]

	allow sync.Mutex // taken by Allow alone
	names atomic.Pointer[names]

	connections atomic.Int64
	deliveries  [len(deliverers)][len(outcomes)]atomic.Uint64
	retired     atomic.Uint64 // hits of providers that are gone, so that the sum of all never falls
	oldest      atomic.Int64  // when the oldest value that was served since the last scrape was fetched, in Unix nanoseconds
}

type source struct{ Source }

// Source is what a Resolver tells of itself.
type Source interface {
	Stats() resolver.Stats
	Providers() []resolver.ProviderState
}

// names are the lists of a configuration, replaced as a whole.
type names struct {
	providers map[string]*provider
	consumers map[string]*consumer
}

// other is the label of what is in no list.
const other = "other"

// provider is what is counted of one provider.
type provider struct {
	hits, misses, stale, negative, unchanged atomic.Uint64
	calls                                    [len(ops) + 1][codesMax]atomic.Uint64
	took                                     histogram
}

type consumer struct{ denied, limited atomic.Uint64 }

type route struct {
	statuses [len(statuses) + 1]atomic.Uint64
	took     histogram
}

// ops are the operations of resolver.Call.
var ops = [...]string{"get", "batch", "renew", "revoke"}

// statuses are those that the sidecar answers with, in order.
var statuses = [...]int{
	200, 202, 204, 304, 400, 401, 403, 404, 405, 406, 408, 409, 410, 411, 412, 413, 414, 415, 417, 421, 422, 423, 426, 429, 431,
	499, 500, 501, 503, 504, 505,
}

// codes are those of the contract, and never more than codesMax-1; one that is new counts as other.
var codes = [...]backend.Code{
	backend.CodeOK, backend.CodeInternal, backend.CodeUsage, backend.CodeInvalidConfig, backend.CodeNotFound, backend.CodeDenied,
	backend.CodeInvalidID, backend.CodeFieldRequired, backend.CodeUnsupported, backend.CodeUnavailable, backend.CodeThrottled,
	backend.CodeLocked, backend.CodeAuthRequired, backend.CodeExpired, backend.CodeConflict, backend.CodeTimeout, backend.CodeCanceled,
}

const codesMax = len(codes) + 1

// New gives Metrics that know s and have counted nothing.
func New(s Settings) *Metrics {
	m := &Metrics{version: s.Version, began: time.Now(), routes: make(map[string]*route, len(s.Routes)+1)}
	for _, path := range append(slices.Clone(s.Routes), other) {
		m.routes[path] = &route{}
	}
	m.oldest.Store(math.MaxInt64)
	m.names.Store(&names{})
	m.Allow(s.Providers, s.Consumers)
	return m
}

// Watch tells where to read what the resolver counts.
func (m *Metrics) Watch(s Source) { m.sources.Store(&source{s}) }

// Allow replaces the lists of providers and consumers, as a reload does. What stays keeps its counts; what is gone is no longer
// shown.
func (m *Metrics) Allow(providers, consumers []string) {
	m.allow.Lock()
	defer m.allow.Unlock()
	old := m.names.Load()
	now := &names{providers: make(map[string]*provider, len(providers)+1), consumers: make(map[string]*consumer, len(consumers)+1)}
	for _, name := range append(slices.Clone(providers), other) {
		if now.providers[name] = old.providers[name]; now.providers[name] == nil {
			now.providers[name] = &provider{}
		}
	}
	for _, name := range append(slices.Clone(consumers), other) {
		if now.consumers[name] = old.consumers[name]; now.consumers[name] == nil {
			now.consumers[name] = &consumer{}
		}
	}
	for name, p := range old.providers {
		if now.providers[name] == nil {
			m.retired.Add(p.avoided())
		}
	}
	m.names.Store(now)
}

// avoided is how many refs cost no call.
func (p *provider) avoided() uint64 { return p.hits.Load() + p.negative.Load() }

func (m *Metrics) provider(name string) *provider {
	now := m.names.Load()
	if p := now.providers[name]; p != nil {
		return p
	}
	return now.providers[other]
}

func (m *Metrics) consumer(name string) *consumer {
	now := m.names.Load()
	if c := now.consumers[name]; c != nil {
		return c
	}
	return now.consumers[other]
}

// Hit counts a ref that the cache answered at once.
func (m *Metrics) Hit(provider string) { m.provider(provider).hits.Add(1) }

// Answered counts a ref that was looked up by way of the resolver's flights, which may still have found it in the cache.
func (m *Metrics) Answered(provider string, o resolver.Outcome) {
	p := m.provider(provider)
	switch {
	case o.Waited:
		p.misses.Add(1)
	case o.Value != nil:
		p.hits.Add(1)
	case backend.CodeOf(o.Err) == backend.CodeNotFound:
		p.negative.Add(1)
	default: // refused without a call: an open breaker, an unknown provider
		p.misses.Add(1)
	}
	if o.Value != nil && o.Value.Stale() {
		p.stale.Add(1)
	}
}

// Unchanged counts an answer that told only that the caller's revision is the present one.
func (m *Metrics) Unchanged(provider string) { m.provider(provider).unchanged.Add(1) }

// Served takes note of how old a value is that was given out.
func (m *Metrics) Served(v *resolver.Value) {
	fetched := v.Fetched()
	if fetched.IsZero() {
		return
	}
	at := fetched.UnixNano()
	for {
		oldest := m.oldest.Load()
		if at >= oldest || m.oldest.CompareAndSwap(oldest, at) {
			return
		}
	}
}

// Denied counts a refusal by the policy.
func (m *Metrics) Denied(consumer string) { m.consumer(consumer).denied.Add(1) }

// Limited counts a request that was over its consumer's rate.
func (m *Metrics) Limited(consumer string) { m.consumer(consumer).limited.Add(1) }

// deliverers are how events are delivered, and outcomes what becomes of them.
var (
	deliverers = [...]string{"hook", "webhook"}
	outcomes   = [...]string{"delivered", "failed", "dropped"}
)

// Delivery counts an event that was to be delivered by a hook or webhook: delivered, failed or dropped.
func (m *Metrics) Delivery(by, outcome string) {
	i, j := slices.Index(deliverers[:], by), slices.Index(outcomes[:], outcome)
	if i >= 0 && j >= 0 {
		m.deliveries[i][j].Add(1)
	}
}

// Connection counts a connection that was opened (1) or closed (-1).
func (m *Metrics) Connection(n int) { m.connections.Add(int64(n)) }

// Request counts a request of the API that ended with that HTTP status; zero, as of one whose client left before there was one,
// counts as other.
func (m *Metrics) Request(path string, status int, took time.Duration) {
	r := m.routes[path]
	if r == nil {
		r = m.routes[other]
	}
	i, known := slices.BinarySearch(statuses[:], status)
	if !known {
		i = len(statuses)
	}
	r.statuses[i].Add(1)
	r.took.observe(took)
}

// Observe counts a call to a store that has ended; it is resolver.Config.Observe.
func (m *Metrics) Observe(c resolver.Call) {
	p := m.provider(c.Provider)
	op := slices.Index(ops[:], c.Op)
	if op < 0 {
		op = len(ops)
	}
	code := slices.Index(codes[:], c.Code)
	if code < 0 {
		code = len(codes)
	}
	p.calls[op][code].Add(1)
	p.took.observe(c.Took)
}

// buckets are the upper bounds of a histogram. A hit takes tens of microseconds, a call to a store up to its time limit.
var buckets = [...]time.Duration{
	50 * time.Microsecond, 100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 30 * time.Second,
}

// histogram counts durations by bucket. Its total is the sum of its buckets, so that one reading is consistent in itself.
type histogram struct {
	counts [len(buckets) + 1]atomic.Uint64
	sum    atomic.Int64 // nanoseconds
}

func (h *histogram) observe(took time.Duration) {
	took = max(took, 0)
	i := 0
	for i < len(buckets) && took > buckets[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(took))
}

func sortedKeys[V any](m map[string]V) []string {
	return slices.SortedFunc(maps.Keys(m), strings.Compare)
}
