package resolver

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// changes counts what a Resolver tells of, and asks it each time for a Snapshot, as who keeps one does.
type changes struct {
	mu          sync.Mutex
	r           *Resolver
	kept, ended int
}

func (c *changes) told(ch Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch == ChangeEnded {
		c.ended++
	} else {
		c.kept++
	}
	if c.r != nil {
		c.r.Snapshot()
	}
}

func (c *changes) want(t testing.TB, what string, kept, ended int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept != kept || c.ended != ended {
		t.Errorf("%s: told %d kept and %d ended, want %d and %d", what, c.kept, c.ended, kept, ended)
	}
	c.kept, c.ended = 0, 0
}

func openTelling(t testing.TB, providers map[string]Provider) (*Resolver, *changes) {
	t.Helper()
	c := &changes{}
	r, err := New(Config{Providers: providers, OnChange: c.told})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	c.mu.Lock()
	c.r = r
	c.mu.Unlock()
	return r, c
}

func TestOnChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript("c4nary-1")
		r, c := openTelling(t, map[string]Provider{"p": {Backend: s, Digest: "d", TTL: time.Minute}})
		get := func(code backend.Code) {
			t.Helper()
			_, err := r.Resolve(t.Context(), ref("k"))
			wantCode(t, err, code)
			synctest.Wait()
		}
		get(backend.CodeOK)
		c.want(t, "fetched", 1, 0)
		get(backend.CodeOK)
		c.want(t, "a hit", 0, 0)
		r.Forget(ref("k"))
		c.want(t, "forgotten", 0, 1)
		s.failWith(backend.CodeNotFound)
		for range 3 {
			get(backend.CodeNotFound)
			time.Sleep(10 * time.Second)
		}
		c.want(t, "what nobody has", 0, 0)
		s.heal()
		get(backend.CodeOK)
		c.want(t, "fetched again", 1, 0)
		time.Sleep(10 * time.Minute) // it lapses, and whoever took a Snapshot has it still
		c.mu.Lock()
		c.kept = 0 // that it was refreshed for the last hit
		c.mu.Unlock()
		for i, code := range []backend.Code{backend.CodeUnavailable, backend.CodeAuthRequired, backend.CodeDenied, backend.CodeDenied} {
			s.failWith(code)
			time.Sleep(2 * time.Minute)
			get(code)
			c.want(t, fmt.Sprint("lapsed, ", code, i), 0, map[int]int{2: 1}[i])
		}
		s.heal()
		get(backend.CodeOK)
		time.Sleep(time.Second)
		c.want(t, "fetched", 1, 0)
		if err := r.Revoke(t.Context(), ref("k")); backend.CodeOf(err) != backend.CodeUnsupported {
			t.Error(err)
		}
		c.want(t, "revoked", 0, 1)
		get(backend.CodeOK)
		if err := r.Apply(Config{Providers: map[string]Provider{"p": {Backend: s, Digest: "e"}}}); err != nil {
			t.Fatal(err)
		}
		c.want(t, "replaced", 1, 1)
		get(backend.CodeOK)
		r.Close()
		c.want(t, "closed", 1, 0) // which ends nothing that was remembered
	})
}

func TestSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript("c4nary-1")
		ending := &flaky{get: func(context.Context, backend.Request) (*backend.Credential, error) {
			c := plain("c4nary-2")
			c.Expires, c.Metadata, c.Version = time.Now().Add(time.Hour), map[string]string{"a": "b"}, "7"
			return c, nil
		}}
		missing := newScript("x")
		missing.failWith(backend.CodeNotFound)
		r := openAll(t, map[string]Provider{
			"p": {Backend: s, Digest: "d1", Scope: []Scope{ScopeSession, ScopeTenant}}, "e": {Backend: ending, Digest: "d2", TTL: 2 * time.Hour},
			"anon": {Backend: s}, "lease": {Backend: newLender(), Digest: "d3"}, "none": {Backend: missing, Digest: "d4"},
		})
		now := time.Now()
		tenant := credref.Subject{Tenant: "t"}
		e := credref.Ref{Provider: "e", ID: "k", Field: ""}
		for _, k := range []credref.Ref{ref("k"), e, {Provider: "anon", ID: "k"}, {Provider: "lease", ID: "k"}, {Provider: "none", ID: "k"}} {
			for _, who := range []credref.Subject{{}, tenant, {Tenant: "t", Session: "s"}} {
				r.For(who).Resolve(t.Context(), k)
			}
		}
		got := r.Snapshot()
		slices.SortFunc(got, func(a, b Remembered) int {
			return strings.Compare(a.Ref.Provider+a.Subject.Tenant, b.Ref.Provider+b.Subject.Tenant)
		})
		if len(got) != 3 || got[0].Ref != e || got[1].Ref != ref("k") || got[1].Subject != (credref.Subject{}) || got[2].Subject != tenant {
			t.Fatalf("%+v", got)
		}
		if g := got[0]; g.Digest != "d2" || g.Type != backend.TypeUserValue || !g.Expires.Equal(g.Credential.Expires) ||
			g.Fetched.Before(now) || g.Fetched.After(time.Now()) || g.Credential.Version != "7" || string(g.Credential.Secret.Reveal()) != "c4nary-2" {
			t.Errorf("%+v", g)
		}
		if !got[1].Expires.IsZero() || got[1].Digest != "d1" {
			t.Errorf("%+v", got[1])
		}
		if text := fmt.Sprintf("%+v %#v", got, got); strings.Contains(text, "c4nary") {
			t.Error("it shows a secret")
		}
	})
}

// remembered gives what another process remembers of k.
func remembered(text string, age time.Duration) Remembered {
	return Remembered{Digest: "d", Ref: ref("k"), Credential: plain(text), Type: backend.TypeToken, Fetched: time.Now().Add(-age).Round(0)}
}

func TestRestore(t *testing.T) {
	const maxAge = 24 * time.Hour
	ends := func(after time.Duration) func(*Remembered) {
		return func(r *Remembered) { r.Expires = time.Now().Add(after).Round(0) }
	}
	for _, c := range []struct {
		name   string
		change func(*Remembered)
		after  time.Duration
		code   backend.Code // of the fetch
		taken  bool
		given  bool
	}{
		{name: "an outage", code: backend.CodeUnavailable, taken: true, given: true},
		{name: "throttled", code: backend.CodeThrottled, taken: true, given: true},
		{name: "login refused", code: backend.CodeAuthRequired, taken: true},
		{name: "denied", code: backend.CodeDenied, taken: true},
		{name: "not found", code: backend.CodeNotFound, taken: true},
		{name: "expired", code: backend.CodeExpired, taken: true},
		{name: "internal", code: backend.CodeInternal, taken: true},
		{name: "another definition", change: func(r *Remembered) { r.Digest = "e" }, code: backend.CodeUnavailable},
		{name: "an unknown provider", change: func(r *Remembered) { r.Ref.Provider = "q" }, code: backend.CodeUnavailable},
		{name: "a session's", change: func(r *Remembered) { r.Subject.Session = "s" }, code: backend.CodeUnavailable},
		{name: "a lease", change: func(r *Remembered) { r.Credential.Lease = &backend.Lease{} }, code: backend.CodeUnavailable},
		{name: "nothing", change: func(r *Remembered) { r.Credential = nil }, code: backend.CodeUnavailable},
		{name: "from the future", change: func(r *Remembered) { r.Fetched = time.Now().Add(time.Hour) }, code: backend.CodeUnavailable},
		{name: "too old", change: func(r *Remembered) { r.Fetched = time.Now().Add(-maxAge) }, code: backend.CodeUnavailable},
		{name: "too old by now", after: 23*time.Hour + time.Second, code: backend.CodeUnavailable, taken: true},
		{name: "just not too old", after: 23*time.Hour - 10*time.Second, code: backend.CodeUnavailable, taken: true, given: true},
		{name: "over", change: ends(-time.Second), code: backend.CodeUnavailable},
		{name: "over by now", change: ends(time.Hour), after: time.Hour, code: backend.CodeUnavailable, taken: true},
		{name: "not yet over", change: ends(time.Hour), after: 59 * time.Minute, code: backend.CodeUnavailable, taken: true, given: true},
		{name: "another's", change: func(r *Remembered) { r.Subject.Tenant = "t" }, code: backend.CodeUnavailable, taken: true},
		{name: "another version", change: func(r *Remembered) { r.Ref.Version = "2" }, code: backend.CodeUnavailable, taken: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScript("c4nary-new")
				s.failWith(c.code)
				r := open(t, Provider{Backend: s, Digest: "d", Retries: -1, Breaker: Breaker{Failures: 2}})
				rem := remembered("c4nary-old", time.Hour)
				if c.change != nil {
					c.change(&rem)
				}
				if n := r.Restore([]Remembered{rem}, maxAge); n != map[bool]int{true: 1}[c.taken] {
					t.Errorf("%d taken", n)
				}
				if r.Stats().Entries != 0 {
					t.Error("it is in the cache")
				}
				time.Sleep(c.after)
				v, err := r.Resolve(t.Context(), ref("k"))
				if !c.given {
					wantCode(t, err, c.code)
					return
				}
				want(t, v, err, "c4nary-old")
				if !v.Stale() || !v.Fetched().Equal(rem.Fetched) || v.Type() != backend.TypeToken || v.Revision() == "" {
					t.Errorf("stale: %v, fetched %v, a %s", v.Stale(), v.Fetched(), v.Type())
				}
			})
		})
	}
}

func TestRestoredGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript("c4nary-new")
		s.failWith(backend.CodeUnavailable)
		r := open(t, Provider{Backend: s, Digest: "d", TTL: time.Minute, Retries: -1, Breaker: Breaker{Failures: 1, Open: time.Minute}})
		r.Restore([]Remembered{remembered("c4nary-old", time.Hour)}, 24*time.Hour)
		h := r.Handle(ref("k"))
		defer h.Close()
		events := r.Watch(t.Context(), ref("k"))
		v, err := h.Get(t.Context())
		want(t, v, err, "c4nary-old")
		if ev := <-events; ev.Kind != EventStale || ev.Err == nil || ev.Revision != v.Revision() {
			t.Errorf("event %+v", ev)
		}
		// Who wants none so old is told, also while it is served to others.
		for _, d := range []Demand{{MaxStale: new(time.Duration(0))}, {MaxStale: new(30 * time.Minute)}, {NoCache: true}} {
			wantCode(t, one(t, r, d).Err, backend.CodeUnavailable)
		}
		out := one(t, r, Demand{MaxStale: new(2 * time.Hour)})
		want(t, out.Value, out.Err, "c4nary-old")
		if got := r.Snapshot(); len(got) != 1 || got[0].Fetched != v.Fetched() {
			t.Errorf("%+v", got)
		}
		r.ResolveAll(t.Context(), refs(3)) // with the breaker open, too
		s.heal()
		time.Sleep(3 * time.Minute)
		v, err = h.Get(t.Context())
		want(t, v, err, "c4nary-new")
		if v.Stale() {
			t.Error("stale")
		}
		s.failWith(backend.CodeUnavailable) // what was restored does not come back
		h.Close()
		time.Sleep(10 * time.Minute)
		_, err = r.Resolve(t.Context(), ref("k"))
		wantCode(t, err, backend.CodeUnavailable)
	})
}

// A restored value that had to make room in the cache is given again.
func TestRestoredOutlivesEviction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript("x")
		s.failWith(backend.CodeUnavailable)
		r, err := New(Config{Cache: CacheLimits{Entries: 1}, Providers: map[string]Provider{"p": {Backend: s, Digest: "d", Retries: -1}}})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		other := remembered("c4nary-l", time.Hour)
		other.Ref = ref("l")
		r.Restore([]Remembered{remembered("c4nary-k", time.Hour), other}, 24*time.Hour)
		for range 3 {
			for _, id := range []string{"k", "l"} {
				v, err := r.Resolve(t.Context(), ref(id))
				want(t, v, err, "c4nary-"+id)
			}
		}
		if n := len(r.Snapshot()); n != 2 {
			t.Errorf("%d remembered, want 2", n)
		}
	})
}

// Whatever ends a cached value ends what was restored, also when it is served already.
func TestRestoredEnds(t *testing.T) {
	for name, end := range map[string]func(*Resolver, *script){
		"forget":     func(r *Resolver, _ *script) { r.Forget(ref("k")) },
		"invalidate": func(r *Resolver, _ *script) { r.Invalidate("p", "") },
		"wrote":      func(r *Resolver, _ *script) { r.Wrote(ref("k")) },
		"revoke":     func(r *Resolver, _ *script) { r.Revoke(context.Background(), ref("k")) },
		"apply": func(r *Resolver, s *script) {
			r.Apply(Config{Providers: map[string]Provider{"p": {Backend: s, Digest: "e", Retries: -1}}})
		},
		"denied": func(r *Resolver, s *script) {
			s.failWith(backend.CodeDenied)
			one := r.ResolveWith(context.Background(), []credref.Ref{ref("k")}, Demand{NoCache: true})[0]
			if backend.CodeOf(one.Err) != backend.CodeDenied {
				panic(one.Err)
			}
		},
	} {
		for _, served := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", served: ", served), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newScript("c4nary-new")
					s.failWith(backend.CodeUnavailable)
					r, c := openTelling(t, map[string]Provider{"p": {Backend: s, Digest: "d", Retries: -1}})
					r.Restore([]Remembered{remembered("c4nary-old", time.Hour)}, 24*time.Hour)
					if served {
						v, err := r.Resolve(t.Context(), ref("k"))
						want(t, v, err, "c4nary-old")
						time.Sleep(2 * time.Second)
					}
					c.mu.Lock()
					c.kept, c.ended = 0, 0
					c.mu.Unlock()
					end(r, s)
					synctest.Wait()
					c.want(t, "", 0, 1)
					s.failWith(backend.CodeUnavailable)
					time.Sleep(time.Minute)
					_, err := r.Resolve(t.Context(), ref("k"))
					wantCode(t, err, backend.CodeUnavailable)
					if n := len(r.Snapshot()); n != 0 {
						t.Errorf("%d remembered", n)
					}
				})
			})
		}
	}
}

func TestRestoredExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open(t, Provider{Backend: newScript("x"), Digest: "d"})
		a, b := remembered("c4nary-a", 0), remembered("c4nary-b", 0)
		b.Ref, b.Expires = ref("b"), time.Now().Add(time.Hour).Round(0)
		r.Restore([]Remembered{a, b}, 3*time.Hour)
		count := func() int {
			r.mu.Lock()
			defer r.mu.Unlock()
			return len(r.kept)
		}
		for i, want := range []int{2, 1, 1, 0} {
			if n := count(); n != want {
				t.Errorf("after %d hours %d are in memory, want %d", i, n, want)
			}
			time.Sleep(time.Hour + time.Second)
		}
	})
}

// TestRememberModel plays random histories of a store and of processes one after another, each of which is given what the one
// before it had said when it was told of a change; what a store has ended for good is not given again by any of them.
func TestRememberModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var failed any
		synctest.Test(t, func(*testing.T) {
			defer func() { failed = recover() }()
			playRememberModel(rt)
		})
		if failed != nil {
			panic(failed)
		}
	})
}

func playRememberModel(t *rapid.T) {
	const maxAge = 2 * time.Hour
	var mu sync.Mutex
	set := func(change func()) {
		mu.Lock()
		defer mu.Unlock()
		change()
	}
	held := map[string]string{"a": "a0", "b": "b0"} // what the store holds
	fetched := map[string]time.Time{}
	var fail backend.Code
	store := &flaky{get: func(_ context.Context, req backend.Request) (*backend.Credential, error) {
		mu.Lock()
		defer mu.Unlock()
		text := held[req.ID]
		if fail != "" {
			return nil, backend.Errorf(fail, "as told")
		}
		fetched[text] = time.Now()
		return plain(text), nil
	}}
	failWith := func(code backend.Code) { set(func() { fail = code }) }
	var r *Resolver
	var lazy atomic.Bool // nothing is written until something has ended
	disk := map[credref.Ref]Remembered{}
	c := &changes{}
	save := func() {
		rem := r.Snapshot()
		set(func() {
			clear(disk)
			for _, one := range rem {
				disk[one.Ref] = one
			}
		})
	}
	start := func() {
		if r != nil {
			r.Close()
		}
		c.r, c.ended = nil, 0
		r, _ = New(Config{OnChange: func(ch Change) {
			if c.told(ch); ch == ChangeEnded || !lazy.Load() {
				save()
			}
		}, Providers: map[string]Provider{"p": {Backend: store, Digest: "d", TTL: time.Minute, MaxStale: time.Minute, NegativeTTL: -1, Retries: -1, Breaker: Breaker{Failures: -1}}}})
		r.Restore(slices.Collect(maps.Values(disk)), maxAge)
	}
	start()
	defer func() { r.Close() }()
	n := 0
	drawID := func(t *rapid.T) string { return rapid.SampledFrom([]string{"a", "b"}).Draw(t, "id") }
	t.Repeat(map[string]func(*rapid.T){
		"resolve": func(t *rapid.T) {
			id := drawID(t)
			v, err := r.Resolve(context.Background(), ref(id))
			synctest.Wait()
			if err != nil {
				return
			}
			text := string(v.Secret().Reveal())
			var age time.Duration
			set(func() { age = time.Since(fetched[text]) })
			switch {
			case !v.Stale() && age > time.Minute:
				t.Fatalf("%s: %q of %v ago is given as fresh", id, text, age)
			case age > maxAge:
				t.Fatalf("%s: %q of %v ago is given", id, text, age)
			}
		},
		"a store that says no": func(t *rapid.T) {
			id := drawID(t)
			time.Sleep(2 * time.Second) // else what was fetched just now would do
			code := rapid.SampledFrom([]backend.Code{backend.CodeDenied, backend.CodeNotFound, backend.CodeExpired}).Draw(t, "code")
			failWith(code)
			r.ResolveWith(context.Background(), []credref.Ref{ref(id)}, Demand{NoCache: true})
			failWith("")
			time.Sleep(2 * time.Second)
			failWith(backend.CodeUnavailable)
			if rapid.Bool().Draw(t, "restart") {
				start()
			}
			if _, err := r.Resolve(context.Background(), ref(id)); err == nil {
				t.Fatalf("%s: given though the store has said no", id)
			}
			failWith("")
		},
		"forget, then an outage": func(t *rapid.T) {
			id := drawID(t)
			r.Forget(ref(id))
			failWith(backend.CodeUnavailable)
			if rapid.Bool().Draw(t, "restart") {
				start()
			}
			if _, err := r.Resolve(context.Background(), ref(id)); err == nil {
				t.Fatalf("%s: given though it was forgotten", id)
			}
			failWith("")
		},
		"rotate": func(t *rapid.T) {
			id := drawID(t)
			n++
			set(func() { held[id] = fmt.Sprint(id, n) })
		},
		"outage":  func(*rapid.T) { failWith(backend.CodeUnavailable) },
		"heal":    func(*rapid.T) { failWith("") },
		"lazy":    func(t *rapid.T) { lazy.Store(rapid.Bool().Draw(t, "lazy")) },
		"restart": func(*rapid.T) { start() },
		"wait":    func(t *rapid.T) { time.Sleep(time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "for"))) },
	})
}
