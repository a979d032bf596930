package resolver

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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

// batcher is a store with a batch call that takes time and notes what came in each.
type batcher struct {
	flaky
	most    int
	refuse  bool
	results func([]backend.Result) []backend.Result

	mu      sync.Mutex
	batches [][]string
	under   int
	peak    int
}

func newBatcher(most int) *batcher {
	b := &batcher{most: most}
	b.get = func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
		out, err := b.batch(ctx, []backend.Request{req})
		return out[0].Credential, errors.Join(err, out[0].Err)
	}
	return b
}

func (b *batcher) Describe() backend.Description {
	return backend.Description{MaxBatch: b.most, Versions: true}
}

func (b *batcher) GetBatch(ctx context.Context, reqs []backend.Request) ([]backend.Result, error) {
	b.calls.Add(1)
	if b.refuse {
		return nil, errors.ErrUnsupported
	}
	return b.batch(ctx, reqs)
}

func (b *batcher) batch(ctx context.Context, reqs []backend.Request) ([]backend.Result, error) {
	var ids []string
	var results []backend.Result
	for _, req := range reqs {
		ids = append(ids, req.ID)
		res := backend.Result{Credential: plain(req.ID)}
		if strings.HasPrefix(req.ID, "bad") {
			res = backend.Result{Err: backend.Errorf(backend.CodeDenied, "no")}
		}
		results = append(results, res)
	}
	b.mu.Lock()
	b.batches = append(b.batches, ids)
	b.under++
	b.peak = max(b.peak, b.under)
	b.mu.Unlock()
	err := pause(ctx, 20*time.Millisecond)
	b.mu.Lock()
	b.under--
	b.mu.Unlock()
	if b.results != nil {
		results = b.results(results)
	}
	return results, err
}

func refs(n int) []credref.Ref {
	var out []credref.Ref
	for i := range n {
		out = append(out, ref(fmt.Sprint("k", i)))
	}
	return out
}

func TestBatch(t *testing.T) {
	for _, c := range []struct {
		name         string
		most, n      int
		calls        int64
		concurrency  int
		took         time.Duration
		refuse       bool
		wantInternal bool
		results      func([]backend.Result) []backend.Result
	}{
		{name: "all in one", n: 1000, calls: 1, took: 20 * time.Millisecond},
		{name: "in parts, at once", most: 20, n: 1000, calls: 50, concurrency: 50, took: 20 * time.Millisecond},
		{name: "in parts, as many as may", most: 20, n: 1000, calls: 50, concurrency: 25, took: 40 * time.Millisecond},
		{name: "one by one where the batch call is refused", refuse: true, n: 64, calls: 65, concurrency: 32, took: 40 * time.Millisecond},
		{name: "an answer too few", n: 10, calls: 1, took: 20 * time.Millisecond, wantInternal: true,
			results: func(in []backend.Result) []backend.Result { return in[1:] }},
		{name: "an answer of nothing", n: 10, calls: 1, took: 20 * time.Millisecond, wantInternal: true,
			results: func(in []backend.Result) []backend.Result { return make([]backend.Result, len(in)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBatcher(c.most)
				b.refuse, b.results = c.refuse, c.results
				r := open(t, Provider{Backend: b, Concurrency: c.concurrency})
				start := time.Now()
				for _, out := range r.ResolveAll(t.Context(), refs(c.n)) {
					if c.wantInternal {
						wantCode(t, out.Err, backend.CodeInternal)
						continue
					}
					want(t, out.Value, out.Err, out.Ref.ID)
				}
				if took := time.Since(start); took != c.took {
					t.Errorf("took %v, want %v", took, c.took)
				}
				if n := b.calls.Load(); n != c.calls {
					t.Errorf("%d calls, want %d", n, c.calls)
				}
			})
		})
	}
}

func TestBatchErrorsAreKeptApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBatcher(0)
		r := open(t, Provider{Backend: b})
		for i, out := range r.ResolveAll(t.Context(), []credref.Ref{ref("a"), ref("bad1"), ref("b"), ref("bad1"), {Provider: "x", ID: "y"}}) {
			switch i {
			case 1, 3:
				wantCode(t, out.Err, backend.CodeDenied)
			case 4:
				wantCode(t, out.Err, backend.CodeInvalidConfig)
			default:
				want(t, out.Value, out.Err, out.Ref.ID)
			}
		}
		if n := b.calls.Load(); n != 1 {
			t.Errorf("%d calls", n)
		}
	})
}

func TestQueuedMissesCoalesce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBatcher(0)
		r := open(t, Provider{Backend: b, Concurrency: 1})
		var wg sync.WaitGroup
		start := time.Now()
		for i := range 50 {
			if i == 1 {
				time.Sleep(time.Millisecond)
			}
			wg.Go(func() {
				v, err := r.Resolve(context.Background(), ref(fmt.Sprint(i)))
				want(t, v, err, fmt.Sprint(i))
			})
		}
		wg.Wait()
		if n, took := b.calls.Load(), time.Since(start); n != 2 || took != 40*time.Millisecond {
			t.Errorf("%d calls in %v, want 2 in 40ms", n, took)
		}
	})
}

func TestConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBatcher(1)
		r := open(t, Provider{Backend: b, Concurrency: 8})
		start := time.Now()
		r.ResolveAll(t.Context(), refs(100))
		if took := time.Since(start); b.peak != 8 || took != 13*20*time.Millisecond {
			t.Errorf("%d calls at once, took %v; want 8 and the ideal 260ms", b.peak, took)
		}
	})
}

func TestRetryKeepsTheBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBatcher(0)
		first := true
		b.results = func(in []backend.Result) []backend.Result {
			if first {
				for i := range in[:5] {
					in[i] = backend.Result{Err: backend.Errorf(backend.CodeThrottled, "slow down")}
				}
			}
			first = false
			return in
		}
		r := open(t, Provider{Backend: b})
		for _, out := range r.ResolveAll(t.Context(), refs(10)) {
			want(t, out.Value, out.Err, out.Ref.ID)
		}
		if len(b.batches) != 2 || len(b.batches[1]) != 5 {
			t.Errorf("batches %v, want the five that failed once more, together", b.batches)
		}
	})
}

func TestVersionsRefused(t *testing.T) {
	t.Parallel()
	d := &describing{flaky: slow(0)}
	r := open(t, Provider{Backend: d})
	_, err := r.Resolve(t.Context(), credref.Ref{Provider: "p", ID: "k", Version: "1"})
	if !errors.Is(err, errors.ErrUnsupported) || d.calls.Load() != 0 {
		t.Errorf("got %v after %d calls", err, d.calls.Load())
	}
}

type describing struct{ *flaky }

func (*describing) Describe() backend.Description { return backend.Description{} }

func TestTypes(t *testing.T) {
	t.Parallel()
	store := &flaky{get: func(_ context.Context, req backend.Request) (*backend.Credential, error) {
		c := plain("x")
		if req.ID == "own" {
			c.Type = backend.TypeBasic
		}
		return c, nil
	}}
	r := open(t, Provider{Backend: store, Types: []TypeRule{{"keys/*", backend.TypeAPIKey}, {"own", backend.TypeToken}}})
	for id, typ := range map[string]backend.Type{"keys/a": backend.TypeAPIKey, "own": backend.TypeBasic, "keys/a/b": backend.TypeUserValue} {
		if v, err := r.Resolve(t.Context(), ref(id)); err != nil || v.Type() != typ {
			t.Errorf("%s: got %v, %v; want %s", id, v.Type(), err, typ)
		}
	}
}

func TestConfigErrors(t *testing.T) {
	t.Parallel()
	b := slow(0)
	for name, p := range map[string]Provider{
		"no backend":             {},
		"unknown scope":          {Backend: b, Scope: []Scope{"user"}},
		"template out of scope":  {Backend: b, IDTemplate: "{tenant}/{id}"},
		"template without id":    {Backend: b, IDTemplate: "x"},
		"template with a brace":  {Backend: b, IDTemplate: "{id}/{"},
		"template, other brace":  {Backend: b, IDTemplate: "}{id}"},
		"malformed type pattern": {Backend: b, Types: []TypeRule{{"[", backend.TypeToken}}},
		"negative budget":        {Backend: b, Budget: Budget{Calls: -1}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(Config{Providers: map[string]Provider{"p": p}})
			wantCode(t, err, backend.CodeInvalidConfig)
		})
	}
}

func TestScope(t *testing.T) {
	t.Parallel()
	var asked []string
	store := &flaky{get: func(_ context.Context, req backend.Request) (*backend.Credential, error) {
		s := req.Subject
		at := strings.Join([]string{req.ID, s.Tenant, s.EndUser, s.Session, s.Plugin}, "|")
		asked = append(asked, at)
		if strings.HasPrefix(at, "only-tenant|") && (s.EndUser != "" || s.Session != "" || s.Tenant == "") ||
			strings.HasPrefix(at, "only-all|") && s != (backend.Subject{}) || strings.HasPrefix(at, "none|") {
			return nil, backend.Errorf(backend.CodeNotFound, "no")
		}
		if strings.HasPrefix(at, "denied|") {
			return nil, backend.Errorf(backend.CodeDenied, "no")
		}
		return plain(at), nil
	}}
	r := openAll(t, map[string]Provider{
		"p":    {Backend: store, Scope: []Scope{ScopeSession, ScopeEndUser, ScopeTenant}},
		"user": {Backend: store, Scope: []Scope{ScopeEndUser}, IDTemplate: "users/{end_user}/{id}"},
		"plug": {Backend: store, Scope: []Scope{ScopePlugin}},
		"flat": {Backend: store},
	})
	full := credref.Subject{Tenant: "t", EndUser: "u", Session: "s", Plugin: "x"}
	for _, c := range []struct {
		ref     credref.Ref
		subject credref.Subject
		want    string
		code    backend.Code
		asked   int
	}{
		{ref: ref("a"), subject: full, want: "a|t|u|s|", asked: 1},
		{ref: ref("a"), subject: full, want: "a|t|u|s|", asked: 0},
		{ref: ref("a"), subject: credref.Subject{Tenant: "t"}, want: "a|t|||", asked: 1},
		{ref: ref("a"), subject: credref.Subject{Tenant: "t2"}, want: "a|t2|||", asked: 1},
		{ref: ref("a"), want: "a||||", asked: 1},
		{ref: ref("only-tenant"), subject: full, want: "only-tenant|t|||", asked: 3},
		{ref: ref("only-tenant"), subject: full, want: "only-tenant|t|||", asked: 0},
		{ref: ref("only-all"), subject: full, want: "only-all||||", asked: 4},
		{ref: ref("none"), subject: full, code: backend.CodeNotFound, asked: 4},
		{ref: ref("denied"), subject: full, code: backend.CodeDenied, asked: 1},
		{ref: credref.Ref{Provider: "user", ID: "db"}, subject: full, want: "users/u/db||u||", asked: 1},
		{ref: credref.Ref{Provider: "user", ID: "db"}, subject: credref.Subject{EndUser: "../a b"}, want: "users/..%2Fa%20b/db||../a b||", asked: 1},
		{ref: credref.Ref{Provider: "user", ID: "db"}, subject: credref.Subject{EndUser: ".."}, want: "users/%2E%2E/db||..||", asked: 1},
		{ref: credref.Ref{Provider: "user", ID: "db"}, code: backend.CodeDenied},
		{ref: credref.Ref{Provider: "user", ID: "../v/db"}, subject: full, code: backend.CodeInvalidID},
		{ref: credref.Ref{Provider: "plug", ID: "a"}, subject: full, want: "a||||x", asked: 1},
		{ref: credref.Ref{Provider: "plug", ID: "none"}, subject: full, code: backend.CodeNotFound, asked: 1},
		{ref: credref.Ref{Provider: "flat", ID: "a"}, subject: full, want: "a||||", asked: 1},
		{ref: credref.Ref{Provider: "flat", ID: "a"}, want: "a||||", asked: 0},
		{ref: ref("a"), subject: credref.Subject{Tenant: "\x00"}, code: backend.CodeUsage},
	} {
		asked = nil
		ctx := credref.WithSubject(t.Context(), c.subject)
		v, err := r.Resolve(ctx, c.ref)
		if len(asked) != c.asked {
			t.Errorf("%v for %+v: asked %q, want %d", c.ref, c.subject, asked, c.asked)
		}
		all := r.ResolveAll(ctx, []credref.Ref{c.ref})[0]
		view := r.For(c.subject)
		v2, err2 := view.Resolve(t.Context(), c.ref)
		h := view.Handle(c.ref)
		v3, err3 := h.Get(t.Context())
		h.Close()
		if c.code != "" {
			for _, err := range []error{err, all.Err, err2, err3} {
				wantCode(t, err, c.code)
			}
			continue
		}
		want(t, v, err, c.want)
		want(t, all.Value, all.Err, c.want)
		want(t, v2, err2, c.want)
		want(t, v3, err3, c.want)
	}

	other := credref.Subject{Tenant: "t2"}
	r.For(other).Forget(ref("a"))
	asked = nil
	v, err := r.For(full).Resolve(t.Context(), ref("a"))
	want(t, v, err, "a|t|u|s|")
	v, err = r.For(other).Resolve(t.Context(), ref("a"))
	want(t, v, err, "a|t2|||")
	if !slices.Equal(asked, []string{"a|t2|||"}) {
		t.Errorf("asked %q", asked)
	}
}

// needy is a store whose login needs another provider's secret.
type needy struct {
	one   chan struct{} // one login at a time; a bubble's time does not go on under a mutex
	delay time.Duration
	login backend.Source
}

func newNeedy() *needy { return &needy{one: make(chan struct{}, 1), delay: time.Millisecond} }

func (n *needy) Get(ctx context.Context, req backend.Request) (*backend.Credential, error) {
	select {
	case n.one <- struct{}{}:
		defer func() { <-n.one }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := pause(ctx, n.delay); err != nil {
		return nil, err
	}
	secret, _, err := n.login.Get(ctx)
	if err != nil {
		return nil, err
	}
	return plain(req.ID + " by " + string(secret.Reveal())), nil
}

func TestChain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newNeedy(), newNeedy()
		r := openAll(t, map[string]Provider{"p": {Backend: a, Concurrency: 1}, "b": {Backend: b, Concurrency: 1}, "c": {Backend: slow(time.Second)}})
		a.login = r.Source(credref.Ref{Provider: "b", ID: "token"})
		b.login = r.Source(credref.Ref{Provider: "c", ID: "root"})
		v, err := r.Resolve(t.Context(), ref("k"))
		want(t, v, err, "k by token by root")
	})
}

func TestCircle(t *testing.T) {
	for _, c := range []struct {
		name, a, b string
		together   bool
	}{
		{"itself", "p", "c", false},
		{"each other", "b", "p", false},
		{"each other, met halfway", "b", "p", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := newNeedy(), newNeedy()
				r := openAll(t, map[string]Provider{"p": {Backend: a, Retries: -1}, "b": {Backend: b, Retries: -1}, "c": {Backend: slow(time.Second)}})
				a.login = r.Source(credref.Ref{Provider: c.a, ID: "x"})
				b.login = r.Source(credref.Ref{Provider: c.b, ID: "y"})
				start := time.Now()
				var wg sync.WaitGroup
				if c.together {
					wg.Go(func() {
						_, err := r.Resolve(context.Background(), credref.Ref{Provider: "b", ID: "x"})
						wantCode(t, err, backend.CodeInvalidConfig)
					})
				}
				_, err := r.Resolve(t.Context(), ref("k"))
				wantCode(t, err, backend.CodeInvalidConfig)
				if !strings.Contains(err.Error(), "wait for each other: ") {
					t.Errorf("got %v", err)
				}
				wg.Wait()
				if took := time.Since(start); took > 2*time.Millisecond {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

// A program that is started again and again must not call a refusing store each time.
func TestFailureMemory(t *testing.T) {
	for _, c := range []struct {
		code   backend.Code
		budget Budget
		most   int64
	}{
		{code: backend.CodeUnavailable, most: 20},
		{code: backend.CodeAuthRequired, most: 10},
		{budget: Budget{Calls: 10, Per: 10 * time.Minute}, most: 12},
	} {
		t.Run(string(c.code), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "failures.json")
			synctest.Test(t, func(t *testing.T) {
				s := newScript("x")
				if c.code != "" {
					s.failWith(c.code)
				}
				start := func(now bool, digest string) error {
					memory, err := OpenFailureMemory(path)
					if err != nil {
						t.Fatal(err)
					}
					r, err := New(Config{Failures: memory, IgnoreFailures: now, Providers: map[string]Provider{
						"p": {Backend: s, Digest: digest, Budget: c.budget},
					}})
					if err != nil {
						t.Fatal(err)
					}
					defer r.Close()
					all := r.ResolveAll(t.Context(), []credref.Ref{ref("k"), ref("l"), ref("m")})
					return cmp.Or(all[0].Err, all[1].Err, all[2].Err)
				}
				for range 300 {
					_ = start(false, "d")
					time.Sleep(200 * time.Millisecond)
				}
				if n := s.calls.Swap(0); n == 0 || n > c.most {
					t.Errorf("%d calls by 300 starts in a minute", n)
				}
				if c.code != "" {
					_ = start(false, "d")
					s.calls.Store(0)
					wantCode(t, start(false, "d"), c.code)
					s.wantCalls(t, 0)
				}
				_ = start(true, "d")
				if s.calls.Swap(0) == 0 {
					t.Error("told to ignore failures, the store was not asked")
				}
				_ = start(false, "another definition")
				if s.calls.Swap(0) == 0 {
					t.Error("another definition pays for the failures of the first")
				}
				if c.code != "" {
					s.heal()
					wantCode(t, start(false, "d"), c.code)
					wantCode(t, start(true, "d"), backend.CodeOK)
					wantCode(t, start(false, "d"), backend.CodeOK)
				}
			})
			info, err := os.Stat(path)
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("got %v, %v", info, err)
			}
			left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".failures-*"))
			if len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestFailureMemoryFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := OpenFailureMemory("relative"); backend.CodeOf(err) != backend.CodeInvalidConfig {
		t.Errorf("got %v", err)
	}
	open := func(name string) *FailureMemory {
		t.Helper()
		m, err := OpenFailureMemory(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	count := func(r *failureRecord) { r.Failures++ }
	for name, content := range map[string]string{
		"garbage": "{", "null": "null", "version": `{"version":9,"providers":{"d":{"failures":7}}}`, "huge": strings.Repeat(" ", maxFailureFile+1),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		m := open(name)
		m.update("d", count)
		if got := m.load("d"); got.Failures != 1 {
			t.Errorf("%s: got %+v", name, got)
		}
	}
	m := open("missing-dir/x")
	if got := m.update("d", count); got.Failures != 1 {
		t.Errorf("got %+v", got)
	}

	m = open("shared")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			other := open("shared")
			for range 4 { // so few that nobody waits too long for the lock on a slow disk
				other.update("d", count)
			}
		})
	}
	wg.Wait()
	if got := m.load("d"); got.Failures != 16 {
		t.Errorf("%d of 16 changes were kept", got.Failures)
	}
	b, err := os.ReadFile(filepath.Join(dir, "shared"))
	if err != nil || !json.Valid(b) {
		t.Errorf("got %s, %v", b, err)
	}
	m.update("old", func(r *failureRecord) { r.Failures = 1 })
	file := m.readFile()
	file.Providers["old"] = failureRecord{Failures: 1, At: time.Now().Add(-2 * forgetFailures)}
	m.writeFile(file)
	m.update("d", count)
	if got := m.load("old"); got.Failures != 0 {
		t.Error("what nobody asked for in two days is kept")
	}
}

func TestClock(t *testing.T) {
	t.Parallel()
	var mono, wall atomic.Int64
	wall.Store(1_000_000)
	c := coarse{read: func() (int64, int64) { return mono.Load(), wall.Load() }}
	defer c.close()
	start := c.exact()
	for _, step := range []struct {
		name             string
		mono, wall, want int64
	}{
		{"both go on", 10, 10, 10},
		{"the machine slept", 1, 1000, 1000},
		{"the wall clock was set back", 10, -5000, 10},
		{"and on", 10, 10, 10},
		{"the wall clock was set forward", 5, 7000, 7000},
		{"both stand", 0, 0, 0},
	} {
		mono.Add(step.mono)
		wall.Add(step.wall)
		now := c.exact()
		if now-start != step.want {
			t.Errorf("%s: went on by %d, want %d", step.name, now-start, step.want)
		}
		start = now
	}
}

func TestClockRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c coarse
		c.now.Store(asleep)
		defer c.close()
		c.exact()
		if c.now.Load() == asleep {
			t.Fatal("asleep after it was read")
		}
		time.Sleep(500 * time.Millisecond)
		if got := c.now.Load(); got < int64(400*time.Millisecond) || got == asleep {
			t.Errorf("shows %v after half a second", time.Duration(got))
		}
		ticking := func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.armed
		}
		time.Sleep(time.Second)
		if c.now.Load() != asleep || ticking() {
			t.Error("still ticking though nobody reads it")
		}
		for range 100 { // a reader that comes again and again keeps it awake
			if c.now.Load() == asleep {
				c.exact()
			}
			time.Sleep(30 * time.Millisecond)
		}
		if !ticking() {
			t.Error("stopped under its reader")
		}
	})
}

// A revocation that waits for a call and gives up in the very moment that one ends must leave that call to the queue.
func TestRevokeWaitsInVain(t *testing.T) {
	for i := range 40 {
		synctest.Test(t, func(t *testing.T) {
			s := slow(20 * time.Millisecond)
			r := open(t, Provider{Backend: s, Concurrency: 1})
			if _, err := r.Resolve(t.Context(), ref("known")); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			go func() { r.Resolve(context.Background(), ref("a")) }()
			synctest.Wait()
			done := make(chan error, 1)
			go func() { _, err := r.Resolve(context.Background(), ref("b")); done <- err }()
			ctx, cancel := context.WithDeadline(context.Background(), start.Add(20*time.Millisecond))
			defer cancel()
			go r.Revoke(ctx, ref("known"))
			select {
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(time.Minute):
				t.Errorf("run %d: a queued fetch was never made", i)
			}
		})
	}
}

// That a store has no batch call says nothing about its login.
func TestNoBatchCallForgivesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "failures.json")
	synctest.Test(t, func(t *testing.T) {
		b := newBatcher(0)
		b.refuse = true
		n := 0
		b.get = func(context.Context, backend.Request) (*backend.Credential, error) {
			n++
			return nil, backend.Errorf(backend.CodeAuthRequired, "as told")
		}
		for range 300 {
			memory := openMemory(t, path)
			r, err := New(Config{Failures: memory, Providers: map[string]Provider{"p": {Backend: b, Digest: "d", Concurrency: 1}}})
			if err != nil {
				t.Fatal(err)
			}
			r.ResolveAll(t.Context(), refs(2))
			r.Close()
			time.Sleep(200 * time.Millisecond)
		}
		if n > 20 {
			t.Errorf("%d logins by 300 starts in a minute", n)
		}
	})
}

// A pause from before the wall clock was set back lasts no longer than any.
func TestWallClockSetBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "failures.json")
	synctest.Test(t, func(t *testing.T) {
		far := time.Now().Add(20 * time.Hour).Format(time.RFC3339)
		remember(t, path, `{"failures":3,"code":"auth_required","open_until":"`+far+`","at":"`+far+`"}`)
		s := newScript("x")
		s.failWith(backend.CodeAuthRequired)
		memory := openMemory(t, path)
		r, err := New(Config{Failures: memory, Providers: map[string]Provider{"p": {Backend: s, Digest: "d"}}})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		_, err = r.Resolve(t.Context(), ref("k"))
		wantCode(t, err, backend.CodeAuthRequired)
		s.heal()
		time.Sleep(maxOpen + time.Second)
		_, err = r.Resolve(t.Context(), ref("k"))
		wantCode(t, err, backend.CodeOK)
	})
}

func TestOldFailuresAreForgotten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "failures.json")
	synctest.Test(t, func(t *testing.T) {
		old := time.Now().Add(-72 * time.Hour).Format(time.RFC3339)
		remember(t, path, `{"failures":30,"code":"auth_required","at":"`+old+`"}`)
		s := newScript("x")
		s.failWith(backend.CodeAuthRequired)
		memory := openMemory(t, path)
		r, err := New(Config{Failures: memory, Providers: map[string]Provider{"p": {Backend: s, Digest: "d"}}})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		_, err = r.Resolve(t.Context(), ref("k"))
		wantCode(t, err, backend.CodeAuthRequired)
		s.heal()
		_, err = r.Resolve(t.Context(), ref("k"))
		wantCode(t, err, backend.CodeOK)
	})
}

// Whatever template is accepted, no two subjects are given one id of the store: tenant a-b's user c and tenant a's user b-c
// must not meet in a-b-c.
func TestTemplateKeepsSubjectsApart(t *testing.T) {
	t.Parallel()
	names := [][]string{
		{"tenant", "end_user", "id"}, {"tenant", "id", "end_user"}, {"id", "tenant", "end_user"}, {"id", "end_user", "tenant"},
	}
	between := []string{"", "-", "a", "%", ".", "/", ":", "-/", "/a"}
	parts := []string{"a", "b", "a-b", "-", "-a", "a/b", "a.b", "a%b", "2F"}
	ids := []string{"a", "b", "b-a", "a/b", "b/a/b", "/a", "a:b", "%2F", "-", "b:a/"}
	accepted, met := 0, 0
	for _, n := range names {
		for _, x := range between {
			for _, y := range between {
				template := fmt.Sprintf("{%s}%s{%s}%s{%s}", n[0], x, n[1], y, n[2])
				err := validateScope("p", Provider{Scope: []Scope{ScopeTenant, ScopeEndUser}, IDTemplate: template})
				if err != nil {
					wantCode(t, err, backend.CodeInvalidConfig)
				} else {
					accepted++
				}
				whose := map[string]credref.Subject{}
				meet := false
				for _, tenant := range parts {
					for _, user := range parts {
						s := credref.Subject{Tenant: tenant, EndUser: user}
						for _, id := range ids {
							at, _ := fill(template, id, s)
							if other, ok := whose[at]; ok && other != s {
								if meet = true; err == nil {
									t.Fatalf("%s: %+v and %+v meet in %q", template, s, other, at)
								}
							}
							whose[at] = s
						}
					}
				}
				if meet {
					met++
				}
			}
		}
	}
	if accepted < 30 || met < 30 {
		t.Errorf("%d templates accepted, %d refused with reason: the test sees nothing", accepted, met)
	}
}

// A call that Close cut off is not the store's failure, whatever its backend says.
func TestCloseIsNoFailure(t *testing.T) {
	path := filepath.Join(t.TempDir(), "failures.json")
	synctest.Test(t, func(t *testing.T) {
		s := &flaky{get: func(ctx context.Context, _ backend.Request) (*backend.Credential, error) {
			<-ctx.Done()
			return nil, backend.Errorf(backend.CodeUnavailable, "the connection was cut")
		}}
		memory := openMemory(t, path)
		r, err := New(Config{Failures: memory, Providers: map[string]Provider{"p": {Backend: s, Digest: "d"}}})
		if err != nil {
			t.Fatal(err)
		}
		go r.Resolve(context.Background(), ref("k"))
		time.Sleep(time.Second)
		r.Close()
		if got := memory.load("d"); got.Failures != 0 {
			t.Errorf("%+v", got)
		}
	})
}

func TestErrorTextsAreTheContracts(t *testing.T) {
	const canary = "c4nary-1"
	s := &flaky{get: func(ctx context.Context, _ backend.Request) (*backend.Credential, error) {
		return nil, fmt.Errorf("body %s: %w", canary, backend.Errorf(backend.CodeDenied, "no"))
	}}
	r := open(t, Provider{Backend: s})
	_, err := r.Resolve(t.Context(), ref("k"))
	wantCode(t, err, backend.CodeDenied)
	if strings.Contains(err.Error(), canary) {
		t.Error(err)
	}
}

// Processes that run at the same time share one budget.
func TestBudgetIsShared(t *testing.T) {
	path := filepath.Join(t.TempDir(), "failures.json")
	synctest.Test(t, func(t *testing.T) {
		s := newScript("x")
		start := func() *Resolver {
			r, err := New(Config{Failures: openMemory(t, path), Providers: map[string]Provider{
				"p": {Backend: s, Digest: "d", TTL: -1, Budget: Budget{Calls: 10, Per: 10 * time.Minute}},
			}})
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		one, two := start(), start()
		defer one.Close()
		defer two.Close()
		for range 5 {
			for _, r := range []*Resolver{two, two, one} {
				_, err := r.Resolve(t.Context(), ref("k"))
				wantCode(t, err, backend.CodeOK)
			}
		}
		three := start()
		defer three.Close()
		_, err := three.Resolve(t.Context(), ref("k"))
		wantCode(t, err, backend.CodeThrottled)
	})
}

func openMemory(t testing.TB, path string) *FailureMemory {
	t.Helper()
	m, err := OpenFailureMemory(path)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func remember(t testing.TB, path, record string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(`{"version":1,"providers":{"d":`+record+`}}`), 0o600); err != nil {
		t.Fatal(err)
	}
}
