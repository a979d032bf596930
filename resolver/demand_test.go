package resolver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// one resolves k with a demand.
func one(t testing.TB, r *Resolver, d Demand) Outcome {
	t.Helper()
	return r.ResolveWith(t.Context(), []credref.Ref{ref("k")}, d)[0]
}

func TestMinFreshness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, life := 0, time.Hour
		var down error
		store := &flaky{get: func(context.Context, backend.Request) (*backend.Credential, error) {
			if down != nil {
				return nil, down
			}
			n++
			c := plain(fmt.Sprint("c4nary-", n))
			if life > 0 {
				c.Expires = time.Now().Add(life)
			}
			return c, nil
		}}
		r := open(t, Provider{Backend: store, TTL: 24 * time.Hour, Retries: -1})
		ask := func(least time.Duration, w string, waited bool) {
			t.Helper()
			out := one(t, r, Demand{MinFreshness: least})
			want(t, out.Value, out.Err, w)
			if out.Waited != waited {
				t.Errorf("waited: %v", out.Waited)
			}
		}
		ask(30*time.Minute, "c4nary-1", true)
		time.Sleep(20 * time.Minute)
		ask(30*time.Minute, "c4nary-1", false)
		ask(50*time.Minute, "c4nary-2", true)
		ask(0, "c4nary-2", false)
		ask(2*time.Hour, "c4nary-2", false) // what the store gave just now is the answer
		time.Sleep(2 * time.Second)
		ask(2*time.Hour, "c4nary-3", true) // the store gives none that long, which is the answer once more
		time.Sleep(2 * time.Second)

		down = backend.Errorf(backend.CodeUnavailable, "as told")
		wantCode(t, one(t, r, Demand{MinFreshness: 2 * time.Hour}).Err, backend.CodeUnavailable)
		ask(0, "c4nary-3", false)
		down, life = nil, 0
		r.Forget(ref("k"))
		ask(2*time.Hour, "c4nary-4", true)
		time.Sleep(2 * time.Second)
		ask(1000*time.Hour, "c4nary-4", false) // without an end
	})
}

func TestDemandMaxStale(t *testing.T) {
	const ttl, most = time.Minute, 10 * time.Minute
	for _, c := range []struct {
		name  string
		stale *time.Duration
		after time.Duration // the end of its time
		up    bool
		code  backend.Code
		text  string
	}{
		{"the provider's bound", nil, 5 * time.Minute, false, "", "c4nary-old"},
		{"within the lesser bound", new(6 * time.Minute), 5 * time.Minute, false, "", "c4nary-old"},
		{"beyond the lesser bound", new(4 * time.Minute), 5 * time.Minute, false, backend.CodeUnavailable, ""},
		{"none", new(time.Duration(0)), time.Second, false, backend.CodeUnavailable, ""},
		{"none, less than nothing", new(-time.Hour), time.Second, false, backend.CodeUnavailable, ""},
		{"none, fresh", new(time.Duration(0)), -20 * time.Second, false, "", "c4nary-old"},
		{"none, and the store is there", new(time.Duration(0)), 5 * time.Minute, true, "", "c4nary-new"},
		{"more than the provider's", new(time.Hour), 11 * time.Minute, false, backend.CodeUnavailable, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScript("c4nary-old")
				r := open(t, Provider{Backend: s, TTL: ttl, MaxStale: most, Retries: -1, Breaker: Breaker{Failures: -1}})
				out := one(t, r, Demand{})
				want(t, out.Value, out.Err, "c4nary-old")
				if s.set("c4nary-new"); !c.up {
					s.failWith(backend.CodeUnavailable)
				}
				time.Sleep(ttl + c.after)
				if out = one(t, r, Demand{MaxStale: c.stale}); c.code != "" {
					wantCode(t, out.Err, c.code)
					return
				}
				want(t, out.Value, out.Err, c.text)
			})
		})
	}
}

// A value whose time is shorter than a second is not given past it to who wants none such, however lately it was fetched.
func TestDemandOfShortLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript("c4nary-1")
		r := open(t, Provider{Backend: s, TTL: 200 * time.Millisecond, MaxStale: time.Hour})
		for i, d := range []Demand{{}, {MaxStale: new(time.Duration(0))}, {NoCache: true}} {
			out := one(t, r, d)
			want(t, out.Value, out.Err, fmt.Sprint("c4nary-", i+1))
			s.set(fmt.Sprint("c4nary-", i+2))
			time.Sleep(500 * time.Millisecond)
		}
		s.wantCalls(t, 3)
	})
}

func TestNoCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript("c4nary-1")
		r := open(t, Provider{Backend: s, TTL: time.Hour, MaxStale: time.Hour, Retries: -1})
		want := func(out Outcome, w string) { t.Helper(); want(t, out.Value, out.Err, w) }
		want(one(t, r, Demand{}), "c4nary-1")
		time.Sleep(time.Minute)
		s.set("c4nary-2")
		want(one(t, r, Demand{}), "c4nary-1")
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { want(one(t, r, Demand{NoCache: true}), "c4nary-2") })
		}
		wg.Wait()
		s.wantCalls(t, 2)
		want(one(t, r, Demand{}), "c4nary-2")

		// However many ask, and however long, it is one fetch a second.
		start := time.Now()
		for time.Since(start) < 10*time.Second {
			want(one(t, r, Demand{NoCache: true}), "c4nary-2")
			time.Sleep(7 * time.Millisecond)
		}
		if n := s.calls.Swap(0); n < 8 || n > 11 {
			t.Errorf("%d calls in ten seconds", n)
		}

		s.failWith(backend.CodeUnavailable)
		time.Sleep(2 * time.Second)
		wantCode(t, one(t, r, Demand{NoCache: true}).Err, backend.CodeUnavailable)
		want(one(t, r, Demand{}), "c4nary-2") // that one wanted to know better takes it from nobody
		time.Sleep(90 * time.Minute)
		wantCode(t, one(t, r, Demand{NoCache: true}).Err, backend.CodeUnavailable) // not the stale one
		out := one(t, r, Demand{})
		if want(out, "c4nary-2"); !out.Value.Stale() {
			t.Error("not stale")
		}
	})
}

// A fetch that went out a while ago may have read what was there then; one that waits for its turn has not.
func TestNoCacheJoins(t *testing.T) {
	for _, c := range []struct {
		name  string
		wait  time.Duration // between the first and who wants no cache
		queue bool          // the first waits behind another secret
		text  string
		calls int64
	}{
		{"gone out just now", 500 * time.Millisecond, false, "c4nary-1", 1},
		{"gone out long ago", 2 * time.Second, false, "c4nary-2", 2},
		{"in the queue", 2 * time.Second, true, "c4nary-2", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var value atomic.Pointer[string]
				value.Store(new("c4nary-1"))
				s := &flaky{get: func(ctx context.Context, _ backend.Request) (*backend.Credential, error) {
					out := plain(*value.Load())
					return out, pause(ctx, 5*time.Second)
				}}
				r := open(t, Provider{Backend: s, Concurrency: map[bool]int{true: 1, false: 8}[c.queue]})
				var wg sync.WaitGroup
				if c.queue {
					wg.Go(func() { r.Resolve(context.Background(), ref("other")) })
					synctest.Wait()
				}
				wg.Go(func() {
					v, err := r.Resolve(context.Background(), ref("k"))
					text := "c4nary-1" // what was there when it asked will do
					if c.queue {
						text = "c4nary-2"
					}
					want(t, v, err, text)
				})
				time.Sleep(c.wait)
				value.Store(new("c4nary-2"))
				out := one(t, r, Demand{NoCache: true})
				want(t, out.Value, out.Err, c.text)
				wg.Wait()
				if n := s.calls.Load(); n != c.calls {
					t.Errorf("%d calls, want %d", n, c.calls)
				}
				v, err := r.Resolve(t.Context(), ref("k"))
				want(t, v, err, c.text) // who came first does not bring back what he read
			})
		})
	}
}

func TestDemandOutlivesApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := slow(time.Minute)
		r := open(t, Provider{Backend: s})
		done := make(chan Outcome)
		go func() { done <- one(t, r, Demand{NoCache: true}) }()
		synctest.Wait()
		next := newScript("c4nary-next")
		if err := r.Apply(Config{Providers: map[string]Provider{"p": {Backend: next}}}); err != nil {
			t.Fatal(err)
		}
		out := <-done
		if want(t, out.Value, out.Err, "c4nary-next"); !out.Waited {
			t.Error("did not wait")
		}
	})
}

func TestCached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript("c4nary-1")
		r := openAll(t, map[string]Provider{"p": {Backend: s, TTL: time.Minute}, "q": {Backend: s, Scope: []Scope{ScopeTenant}}})
		k, scoped := ref("k"), credref.Ref{Provider: "q", ID: "k"}
		view := r.For(credref.Subject{Tenant: "t"})
		if r.Cached(&k) != nil {
			t.Error("given before it was fetched")
		}
		for _, k := range []credref.Ref{k, scoped} {
			if _, err := view.Resolve(t.Context(), k); err != nil {
				t.Fatal(err)
			}
		}
		want(t, r.Cached(&k), nil, "c4nary-1")
		want(t, view.Cached(&k), nil, "c4nary-1")
		if view.Cached(&scoped) != nil || r.Cached(&scoped) != nil {
			t.Error("a subject's is given to anybody")
		}
		fetched := time.Now().Add(-20 * time.Millisecond)
		if at := r.Cached(&k).Fetched(); at.Before(fetched) || at.After(time.Now()) {
			t.Errorf("fetched %v", at)
		}
		r.Forget(k)
		if r.Cached(&k) != nil {
			t.Error("given after it was forgotten")
		}
	})
}

func TestNewValue(t *testing.T) {
	t.Parallel()
	now := time.Now()
	f := ValueFacts{
		Secret: backend.NewSecretString("c4nary"), Fields: map[string]backend.Secret{"a": backend.NewSecretString("c4nary-a")},
		Type: backend.TypeToken, Version: "3", Revision: "r", Expires: now, RefreshAfter: now.Add(1), Fetched: now.Add(2), Stale: true,
		Metadata: map[string]string{"m": "n"},
	}
	v := NewValue(f)
	want(t, v, nil, "c4nary")
	if v.Type() != f.Type || v.Version() != "3" || v.Revision() != "r" || v.Expires() != now || v.RefreshAfter() != now.Add(1) ||
		v.Fetched() != now.Add(2) || !v.Stale() || v.Metadata()["m"] != "n" || !v.HasMetadata() || !v.HasFields() ||
		string(v.Fields()["a"].Reveal()) != "c4nary-a" {
		t.Errorf("something is lost of %v", v)
	}
	for _, verb := range []string{"%v", "%+v", "%#v"} {
		if strings.Contains(fmt.Sprintf(verb, v)+fmt.Sprintf(verb, f), "c4nary") {
			t.Errorf("%s shows the secret", verb)
		}
	}
}

// watched notes the calls that a Resolver tells of.
type watched struct {
	mu    sync.Mutex
	calls []Call
}

func (w *watched) observe(c Call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = append(w.calls, c)
}

// take gives what was told since, as "op refs code".
func (w *watched) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, c := range w.calls {
		out = append(out, fmt.Sprint(c.Op, " ", c.Refs, " ", c.Code))
	}
	w.calls = nil
	return out
}

type panicking struct {
	*leaser
	on atomic.Bool
}

func (p *panicking) Get(ctx context.Context, req backend.Request) (*backend.Credential, error) {
	if p.on.Load() {
		panic("c4nary")
	}
	return p.leaser.Get(ctx, req)
}

func (p *panicking) Revoke(ctx context.Context, req backend.Request, c *backend.Credential) error {
	if p.on.Load() {
		panic("c4nary")
	}
	return p.leaser.Revoke(ctx, req, c)
}

type callerKey struct{}

func TestObserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w watched
		b := newBatcher(0)
		s := newScript("c4nary")
		l := &panicking{leaser: newLeaser(10*time.Second, time.Hour)}
		none := newBatcher(0)
		none.refuse = true
		r, err := New(Config{Observe: w.observe, Providers: map[string]Provider{
			"b": {Backend: b}, "p": {Backend: s, Retries: 1}, "l": {Backend: l}, "n": {Backend: none, Concurrency: 1},
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		check := func(what string, want ...string) {
			t.Helper()
			synctest.Wait()
			if got := w.take(); !slices.Equal(got, want) {
				t.Errorf("%s: told of %q, want %q", what, got, want)
			}
		}
		of := func(provider string, ids ...string) (out []credref.Ref) {
			for _, id := range ids {
				out = append(out, credref.Ref{Provider: provider, ID: id})
			}
			return out
		}
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), callerKey{}, "me"))
		r.ResolveAll(ctx, of("b", "a", "bad", "c"))
		cancel()
		w.mu.Lock()
		c := w.calls[0]
		w.mu.Unlock()
		if c.Provider != "b" || c.Took != 20*time.Millisecond || c.Context.Value(callerKey{}) != "me" || c.Context.Err() != nil {
			t.Errorf("told %+v", c)
		}
		check("a batch", "batch 3 ok")
		r.ResolveAll(t.Context(), of("b", "a"))
		check("a hit")
		r.ResolveAll(t.Context(), of("b", "bad"))
		check("one", "get 1 denied")
		r.ResolveAll(t.Context(), of("n", "a", "b"))
		check("no batch call", "get 1 ok", "get 1 ok")
		s.failWith(backend.CodeUnavailable)
		r.ResolveAll(t.Context(), of("p", "k"))
		check("tries", "get 1 unavailable", "get 1 unavailable")

		h := r.Handle(of("l", "k")[0])
		defer h.Close()
		if _, err := h.Get(t.Context()); err != nil {
			t.Fatal(err)
		}
		check("a lease", "get 1 ok")
		time.Sleep(7 * time.Second)
		check("its renewal, without a fetch", "renew 1 ok")
		l.on.Store(true)
		wantCode(t, r.Revoke(t.Context(), h.Ref()), backend.CodeInternal)
		check("a revocation", "revoke 1 internal")
		_, err = h.Get(t.Context())
		wantCode(t, err, backend.CodeInternal)
		check("a panic", "get 1 internal")
		l.on.Store(false)
		if err := r.Revoke(t.Context(), h.Ref()); err != nil {
			t.Error(err)
		}
		check("a second try", "revoke 1 ok")
		if strings.Contains(fmt.Sprint(w.calls), "c4nary") {
			t.Error("a call shows a secret")
		}
	})
}

func TestProviders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript("c4nary")
		login := newScript("x")
		login.failWith(backend.CodeAuthRequired)
		r := openAll(t, map[string]Provider{
			"z": {Backend: login, Retries: -1}, "a": {Backend: slow(time.Second), Concurrency: 1},
			"p": {Backend: s, Digest: "d", Retries: -1, Breaker: Breaker{Failures: 2, Open: 10 * time.Second}},
		})
		state := func(name string) ProviderState {
			t.Helper()
			all := r.Providers()
			if len(all) != 3 || !slices.IsSortedFunc(all, func(a, b ProviderState) int { return strings.Compare(a.Name, b.Name) }) {
				t.Fatalf("%+v", all)
			}
			for _, p := range all {
				if p.Name == name {
					return p
				}
			}
			return ProviderState{}
		}
		check := func(name, breaker string, failures int, code backend.Code, retry time.Duration) {
			t.Helper()
			p := state(name)
			if p.Breaker != breaker || p.Failures != failures || p.Code != code || retry != 0 && !p.RetryAt.Equal(time.Now().Add(retry)) || retry == 0 && !p.RetryAt.IsZero() {
				t.Errorf("%+v, retry in %v", p, time.Until(p.RetryAt))
			}
		}
		check("p", BreakerClosed, 0, "", 0)
		r.Resolve(t.Context(), ref("k"))
		if p := state("p"); p.Entries != 1 || p.Digest != "d" || p.Calls != 0 {
			t.Errorf("%+v", p)
		}
		r.Forget(ref("k"))
		s.failWith(backend.CodeUnavailable)
		r.Resolve(t.Context(), ref("k"))
		check("p", BreakerClosed, 1, backend.CodeUnavailable, 0)
		r.Resolve(t.Context(), ref("k"))
		check("p", BreakerOpen, 2, backend.CodeUnavailable, 10*time.Second)
		if p := state("p"); p.Reason != "as told" || p.Entries != 0 {
			t.Errorf("%+v", p)
		}
		time.Sleep(11 * time.Second)
		check("p", BreakerHalfOpen, 2, backend.CodeUnavailable, 0)
		s.heal()
		r.Resolve(t.Context(), ref("k"))
		check("p", BreakerClosed, 0, "", 0)
		for range 2 {
			r.Resolve(t.Context(), credref.Ref{Provider: "z", ID: "k"})
		}
		check("z", BreakerHeld, 2, backend.CodeAuthRequired, authPause)

		for _, id := range []string{"1", "2", "2"} {
			go r.Resolve(context.Background(), credref.Ref{Provider: "a", ID: id})
			synctest.Wait()
		}
		if p := state("a"); p.Calls != 1 || p.Queued != 1 || p.Waiting != 3 {
			t.Errorf("%+v", p)
		}
		time.Sleep(3 * time.Second)
		if p := state("a"); p.Calls != 0 || p.Queued != 0 || p.Waiting != 0 || p.Entries != 2 {
			t.Errorf("%+v", p)
		}
	})
}

// To tell how providers stand while a breaker opens must not lock both up.
func TestProvidersWhileTheBreakerOpens(t *testing.T) {
	t.Parallel()
	s := &flaky{get: func(context.Context, backend.Request) (*backend.Credential, error) {
		return nil, backend.Errorf(backend.CodeUnavailable, "as told")
	}}
	r := open(t, Provider{Backend: s, Retries: -1, Breaker: Breaker{Failures: 1, Open: time.Microsecond}})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				r.Providers()
			}
		}
	})
	for range 2000 {
		if _, err := r.Resolve(t.Context(), ref("k")); !errors.Is(err, backend.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
}

// The count of a provider's entries follows the cache, whatever makes them leave.
func TestEntriesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		missing := backend.Errorf(backend.CodeNotFound, "no")
		s := &flaky{get: func(_ context.Context, req backend.Request) (*backend.Credential, error) {
			if req.ID == "k3" {
				return nil, missing
			}
			return plain(req.ID), nil
		}}
		r, err := New(Config{Cache: CacheLimits{Entries: 5}, Providers: map[string]Provider{"p": {Backend: s, TTL: time.Minute}, "q": {Backend: s}}})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		check := func() {
			t.Helper()
			n := 0
			for _, p := range r.Providers() {
				n += p.Entries
			}
			if have := r.Stats().Entries; n != have {
				t.Errorf("%d counted, %d there", n, have)
			}
		}
		r.ResolveAll(t.Context(), refs(20))
		check()
		r.Resolve(t.Context(), credref.Ref{Provider: "q", ID: "x"})
		r.Resolve(t.Context(), ref("k3"))
		check()
		r.Forget(ref("k19"))
		check()
		time.Sleep(10 * time.Second)
		check()
		time.Sleep(10 * time.Minute)
		check()
		r.ResolveAll(t.Context(), refs(3))
		if err := r.Apply(Config{Providers: map[string]Provider{"p": {Backend: s}}}); err != nil {
			t.Fatal(err)
		}
		check()
	})
}
