package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/tailscale/setec/client/setec"
	"github.com/tailscale/setec/types/api"
	"gocloud.dev/runtimevar/constantvar"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
)

const (
	keys    = 1000
	latency = 20 * time.Millisecond
)

func resolverWorks() []work {
	lookup := func(name string, limit float64, procs int, peer func(*hits) func(int)) work {
		return work{name, limit, func(m *meter) (result, error) { return measureHits(m, procs, peer) }}
	}
	return []work{
		lookup("Resolve, cached, 1 processor", 1.15, 1, (*hits).resolve),
		lookup("Resolve, cached, 8 processors", 1.3, 8, (*hits).resolve),
		lookup("golang-lru alone, 1 processor", 0, 1, (*hits).lru),
		lookup("golang-lru alone, 8 processors", 0, 8, (*hits).lru),
		lookup("setec, 1 processor", 0, 1, (*hits).setec),
		lookup("setec, 8 processors", 0, 8, (*hits).setec),
		lookup("Handle.Get", 0.25, 1, (*hits).handle),
		lookup("go-cloud runtimevar Latest", 0, 1, (*hits).runtimevar),
		{"allocations of 1,000 cached Resolves", 1, measureAllocations},
		{"store calls for 10,000 callers of a missing key, worst run", 1, measureFlight},
		{"1,000 keys missing at once", 1.1, measureMisses},
		{"10,000 cached refs in one ResolveAll", 0.1, measureResolveAll},
	}
}

// slow is a store that answers with the id after a while, and counts.
type slow struct {
	latency time.Duration
	calls   atomic.Int64
}

func (s *slow) Get(ctx context.Context, req backend.Request) (*backend.Credential, error) {
	s.calls.Add(1)
	if s.latency > 0 {
		select {
		case <-time.After(s.latency):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return &backend.Credential{Secret: backend.NewSecretString(req.ID)}, nil
}

func newResolver(s *slow, entries int) (*resolver.Resolver, error) {
	return resolver.New(resolver.Config{
		Providers: map[string]resolver.Provider{"app": {Backend: s, TTL: time.Hour}},
		Cache:     resolver.CacheLimits{Entries: entries},
	})
}

func makeRefs(n int) []credref.Ref {
	refs := make([]credref.Ref, n)
	for i := range refs {
		refs[i] = credref.Ref{Provider: "app", ID: fmt.Sprintf("kv/app/service-%d", i), Field: ""}
	}
	return refs
}

// hits are 1,000 keys, looked up in the order of a zipf distribution, each by a key of its own memory, as those of
// requests are.
type hits struct {
	order []credref.Ref
	names []string
	plain map[credref.Ref]*resolver.Value
	r     *resolver.Resolver
	used  atomic.Int64
}

func newHits(ctx context.Context) (*hits, error) {
	refs := makeRefs(keys)
	r, err := newResolver(new(slow), 2*keys) // ttl and eviction are on
	if err != nil {
		return nil, err
	}
	h := &hits{plain: make(map[credref.Ref]*resolver.Value, keys), r: r}
	for range 3 {
		for _, out := range r.ResolveAll(ctx, refs) {
			if out.Err != nil {
				return nil, out.Err
			}
			h.plain[out.Ref] = out.Value
		}
	}
	zipf := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.1, 1, keys-1)
	for range 1 << 13 {
		ref := refs[zipf.Uint64()]
		ref.ID = string([]byte(ref.ID))
		h.order = append(h.order, ref)
		h.names = append(h.names, ref.ID)
	}
	return h, nil
}

func (h *hits) baseline() func(int) {
	plain, order := h.plain, h.order
	return func(n int) {
		found := 0
		for i := range n {
			if plain[order[i&(len(order)-1)]] != nil {
				found++
			}
		}
		h.note(n, found)
	}
}

func (h *hits) resolve() func(int) {
	ctx, order := context.Background(), h.order
	return func(n int) {
		found := 0
		for i := range n {
			if v, err := h.r.Resolve(ctx, order[i&(len(order)-1)]); err == nil && v != nil {
				found++
			}
		}
		h.note(n, found)
	}
}

func (h *hits) handle() func(int) {
	ctx := context.Background()
	handle := h.r.Handle(h.order[0])
	return func(n int) {
		found := 0
		for range n {
			if v, err := handle.Get(ctx); err == nil && v != nil {
				found++
			}
		}
		h.note(n, found)
	}
}

func (h *hits) lru() func(int) {
	cache, err := lru.New[credref.Ref, *resolver.Value](2 * keys)
	if err != nil {
		panic(err) // the size is positive
	}
	for ref, v := range h.plain {
		cache.Add(ref, v)
	}
	return func(n int) {
		found := 0
		for i := range n {
			if _, ok := cache.Get(h.order[i&(len(h.order)-1)]); ok {
				found++
			}
		}
		h.note(n, found)
	}
}

func (h *hits) setec() func(int) {
	var names []string
	for ref := range h.plain {
		names = append(names, ref.ID)
	}
	store, err := setec.NewStore(context.Background(), setec.StoreConfig{Client: echo{}, Secrets: names, PollInterval: -1, Logf: func(string, ...any) {}})
	if err != nil {
		panic(err) // its client is our own
	}
	return func(n int) {
		found := 0
		for i := range n {
			if len(store.Secret(h.names[i&(len(h.names)-1)]).Get()) > 0 {
				found++
			}
		}
		h.note(n, found)
	}
}

// echo is a setec server whose secrets are their own names.
type echo struct{}

func (echo) Get(_ context.Context, name string) (*api.SecretValue, error) {
	return &api.SecretValue{Value: []byte(name), Version: 1}, nil
}

func (echo) GetIfChanged(context.Context, string, api.SecretVersion) (*api.SecretValue, error) {
	return nil, api.ErrValueNotChanged
}

func (h *hits) runtimevar() func(int) {
	ctx := context.Background()
	v := constantvar.New("x")
	if _, err := v.Latest(ctx); err != nil {
		panic(err) // it is a constant
	}
	return func(n int) {
		found := 0
		for range n {
			if s, err := v.Latest(ctx); err == nil && s.Value != nil {
				found++
			}
		}
		h.note(n, found)
	}
}

// note uses the count, so that no lookup is optimized away, and catches lookups that found nothing.
func (h *hits) note(n, found int) {
	if n != found {
		panic(fmt.Sprintf("%d of %d lookups found something", found, n))
	}
	h.used.Add(int64(found))
}

func measureHits(m *meter, procs int, peer func(*hits) func(int)) (result, error) {
	before := runtime.GOMAXPROCS(procs)
	defer runtime.GOMAXPROCS(before)
	h, err := newHits(context.Background())
	if err != nil {
		return result{}, err
	}
	defer h.r.Close()
	res := m.compare(spread(procs, peer(h)), spread(procs, h.baseline()))
	res.against = "a plain map"
	return res, nil
}

// spread runs f in that many goroutines at once.
func spread(procs int, f func(int)) func(int) {
	if procs == 1 {
		return f
	}
	return func(n int) {
		var wg sync.WaitGroup
		for range procs {
			wg.Go(func() { f(n/procs + 1) })
		}
		wg.Wait()
	}
}

func measureAllocations(*meter) (result, error) {
	h, err := newHits(context.Background())
	if err != nil {
		return result{}, err
	}
	defer h.r.Close()
	f := h.resolve()
	n := testing.AllocsPerRun(20, func() { f(1000) })
	// What the clock allocates while it ticks may fall into a run.
	return result{ours: n, baseline: 1, ratio: n, format: count, against: "at most"}, nil
}

// measureFlight counts calls when many miss a key at once, half of them at any moment from before to after the call.
func measureFlight(m *meter) (result, error) {
	s := &slow{latency: latency}
	r, err := newResolver(s, 100)
	if err != nil {
		return result{}, err
	}
	defer r.Close()
	worst := int64(0)
	for run := range m.runs {
		ref := credref.Ref{Provider: "app", ID: fmt.Sprint("missing-", run)}
		before := s.calls.Load()
		var wg sync.WaitGroup
		var failed atomic.Int64
		for i := range 10_000 {
			wg.Go(func() {
				if i%2 == 1 {
					time.Sleep(rand.N(latency * 3 / 2))
				}
				if _, err := r.Resolve(context.Background(), ref); err != nil {
					failed.Add(1)
				}
			})
		}
		wg.Wait()
		if failed.Load() > 0 {
			return result{}, errors.New("a caller got an error")
		}
		worst = max(worst, s.calls.Load()-before)
	}
	return result{ours: float64(worst), baseline: 1, ratio: float64(worst), format: count, against: fmt.Sprintf("call in each of %d runs", m.runs)}, nil
}

// measureMisses compares with as many calls at once as may be, and no overhead.
func measureMisses(*meter) (result, error) {
	const concurrency = 32
	ideal := float64((keys + concurrency - 1) / concurrency * int(latency))
	var times []float64
	for range 5 {
		r, err := newResolver(&slow{latency: latency}, 2*keys)
		if err != nil {
			return result{}, err
		}
		refs := makeRefs(keys)
		start := time.Now()
		var wg sync.WaitGroup
		for _, ref := range refs {
			wg.Go(func() { _, _ = r.Resolve(context.Background(), ref) })
		}
		wg.Wait()
		times = append(times, float64(time.Since(start)))
		if err := r.Close(); err != nil {
			return result{}, err
		}
	}
	took := least(times)
	return result{ours: took, baseline: ideal, ratio: took / ideal, format: duration, against: "the ideal"}, nil
}

func measureResolveAll(*meter) (result, error) {
	r, err := newResolver(new(slow), 20_000)
	if err != nil {
		return result{}, err
	}
	defer r.Close()
	refs := makeRefs(10_000)
	for range 3 {
		r.ResolveAll(context.Background(), refs)
	}
	var times []float64
	for range 21 {
		start := time.Now()
		r.ResolveAll(context.Background(), refs)
		times = append(times, float64(time.Since(start)))
	}
	took := least(times)
	return result{ours: took, baseline: float64(time.Second), ratio: took / float64(time.Second), format: duration, against: "a second"}, nil
}
