package resolver

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// However many ask at once, and however long, without the cache, a store gets one call a second for a secret: also where there is
// no such secret, where the store takes longer than that, and where it fails.
func TestNoCacheUnderAHammer(t *testing.T) {
	const callers, long = 1000, 10 * time.Second
	for _, c := range []struct {
		name  string
		code  backend.Code
		takes time.Duration
		most  int64
	}{
		{"there", "", 20 * time.Millisecond, 11},
		{"at once", "", 0, 11},
		{"slow", "", 3 * time.Second, 5},
		{"missing", backend.CodeNotFound, 20 * time.Millisecond, 11},
		{"unavailable", backend.CodeUnavailable, 20 * time.Millisecond, 11},
		{"locked", backend.CodeLocked, 20 * time.Millisecond, 11},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var under, peak atomic.Int64
				var fail atomic.Bool
				s := &flaky{}
				s.get = func(ctx context.Context, _ backend.Request) (*backend.Credential, error) {
					n := under.Add(1)
					defer under.Add(-1)
					for p := peak.Load(); n > p && !peak.CompareAndSwap(p, n); p = peak.Load() {
					}
					if err := pause(ctx, c.takes); err != nil {
						return nil, err
					}
					if fail.Load() {
						return nil, backend.Errorf(c.code, "as told")
					}
					return plain("c4nary"), nil
				}
				r := open(t, Provider{Backend: s, TTL: time.Hour, Retries: -1, Breaker: Breaker{Failures: -1}})
				v, err := r.Resolve(t.Context(), ref("k"))
				want(t, v, err, "c4nary")
				time.Sleep(2 * time.Second)
				s.calls.Store(0)
				fail.Store(c.code != "")
				end := time.Now().Add(long)
				var wg sync.WaitGroup
				for i := range callers {
					wg.Go(func() {
						time.Sleep(time.Duration(i) * time.Millisecond)
						for time.Now().Before(end) {
							out := r.ResolveWith(context.Background(), []credref.Ref{ref("k")}, Demand{NoCache: true})[0]
							if got := backend.CodeOf(out.Err); got != c.code && (c.code != "" || got != backend.CodeOK) {
								t.Errorf("got %v", out.Err)
							}
							time.Sleep(500 * time.Millisecond)
						}
					})
				}
				wg.Wait()
				if n := s.calls.Load(); n > c.most || n < 3 || peak.Load() != 1 {
					t.Errorf("%d calls in %v, %d at once", n, long, peak.Load())
				}
				if st := r.Stats(); st.FetchesUnder != 0 {
					t.Errorf("left behind: %+v", st)
				}
			})
		})
	}
}

// Who asks for no cached value is not given what was read before he asked, and one fetch of a secret is under way at a time.
func TestNoCacheIsReadAfterTheQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s := &flaky{get: func(ctx context.Context, _ backend.Request) (*backend.Credential, error) {
			read := fmt.Sprint(int(time.Since(start) / time.Second))
			return plain(read), pause(ctx, 4*time.Second)
		}}
		r := open(t, Provider{Backend: s, TTL: time.Hour})
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Second)
				out := r.ResolveWith(context.Background(), []credref.Ref{ref("k")}, Demand{NoCache: true})[0]
				var read int
				if _, err := fmt.Sscan(string(out.Value.Secret().Reveal()), &read); err != nil || read < i-1 {
					t.Errorf("asked at %d, got what was read at %d (%v)", i, read, err)
				}
				if waited := time.Since(start) - time.Duration(i)*time.Second; waited > 8*time.Second {
					t.Errorf("waited for %v", waited)
				}
			})
		}
		time.Sleep(9 * time.Second)
		if v := r.Cached(&credref.Ref{Provider: "p", ID: "k"}); v == nil {
			if _, err := r.Resolve(t.Context(), ref("k")); err != nil || time.Since(start) > 9*time.Second {
				t.Error("who does without a demand waits for those who make one")
			}
		}
		wg.Wait()
		if n := s.calls.Load(); n > 7 {
			t.Errorf("%d calls", n)
		}
	})
}

// What is cached nowhere is fetched for each who asks one after the other, and once for all who ask together.
func TestNoCacheOfWhatIsNotCached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript("c4nary")
		r := open(t, Provider{Backend: s, TTL: -1, NegativeTTL: -1})
		for range 3 {
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() {
					out := r.ResolveWith(context.Background(), []credref.Ref{ref("k")}, Demand{NoCache: true})[0]
					want(t, out.Value, out.Err, "c4nary")
				})
			}
			wg.Wait()
		}
		s.wantCalls(t, 3)
	})
}

func TestWhole(t *testing.T) {
	t.Parallel()
	several := map[string]backend.Secret{"user": backend.NewSecretString("c4nary-u"), "password": backend.NewSecretString("c4nary-p")}
	s := &flaky{get: func(_ context.Context, req backend.Request) (*backend.Credential, error) {
		switch req.ID {
		case "one":
			return &backend.Credential{Fields: map[string]backend.Secret{"only": backend.NewSecretString("c4nary-o")}}, nil
		case "value":
			return &backend.Credential{Fields: map[string]backend.Secret{"value": backend.NewSecretString("c4nary-v"), "x": backend.NewSecretString("c4nary-x")}}, nil
		case "plain":
			return plain("c4nary"), nil
		case "nothing":
			return &backend.Credential{}, nil
		}
		return &backend.Credential{Fields: several}, nil
	}}
	r := open(t, Provider{Backend: s})
	for _, c := range []struct {
		name   string
		ref    credref.Ref
		whole  bool
		code   backend.Code
		text   string // empty: zero
		fields int
	}{
		{"several", ref("k"), true, "", "", 2},
		{"several, without", ref("k"), false, backend.CodeFieldRequired, "", 0},
		{"a field of several", field("k", "user"), true, "", "c4nary-u", 0},
		{"a field that is not there", field("k", "x"), true, backend.CodeNotFound, "", 0},
		{"one", ref("one"), true, "", "c4nary-o", 1},
		{"value", ref("value"), true, "", "c4nary-v", 2},
		{"plain", ref("plain"), true, "", "c4nary", 0},
		{"nothing", ref("nothing"), true, backend.CodeNotFound, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 3 { // from the store, and from the cache
				out := r.ResolveWith(t.Context(), []credref.Ref{c.ref}, Demand{Whole: c.whole})[0]
				if c.code != "" {
					wantCode(t, out.Err, c.code)
					continue
				}
				if out.Err != nil || string(out.Value.Secret().Reveal()) != c.text || out.Value.Secret().IsZero() != (c.text == "") || len(out.Value.Fields()) != c.fields {
					t.Errorf("%v, %d fields, zero: %v", out.Err, len(out.Value.Fields()), out.Value.Secret().IsZero())
				}
			}
		})
	}
	if _, err := r.Resolve(t.Context(), ref("k")); backend.CodeOf(err) != backend.CodeFieldRequired {
		t.Errorf("what was asked for whole is given to who asks for one: %v", err)
	}
}

// A cached value is found without allocation, and so is that there is none.
func TestCachedDoesNotAllocate(t *testing.T) {
	r := open(t, Provider{Backend: slow(0), TTL: time.Hour})
	if _, err := r.Resolve(t.Context(), ref("k")); err != nil {
		t.Fatal(err)
	}
	there, missing := ref("k"), ref("none")
	view := r.For(credref.Subject{Tenant: "t"})
	if n := testing.AllocsPerRun(1000, func() { r.Cached(&there); view.Cached(&there); r.Cached(&missing) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Of those who wait it is told which did.
func TestWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript("c4nary")
		r := open(t, Provider{Backend: s, TTL: time.Minute, MaxStale: time.Hour})
		ask := func(waited ...bool) {
			t.Helper()
			for i, out := range r.ResolveAll(t.Context(), refs(len(waited))) {
				if want(t, out.Value, out.Err, "c4nary"); out.Waited != waited[i] {
					t.Errorf("%d waited: %v", i, out.Waited)
				}
			}
		}
		ask(true)
		ask(false, true, true)
		ask(false, false, false)
		time.Sleep(2 * time.Minute)
		ask(false, false, false) // a value past its time is given at once
	})
}

// An event of a key with 10,000 watchers, and one of a key that nobody watches among as many, hold up nobody.
func TestManyWatchersOfOne(t *testing.T) {
	const watchers = 10_000
	s := newScript("c4nary")
	s.quick.Store(true)
	r := open(t, Provider{Backend: s, TTL: time.Hour})
	v, err := r.Resolve(t.Context(), ref("k"))
	want(t, v, err, "c4nary")
	ctx, cancel := context.WithCancel(t.Context())
	var told, closed sync.WaitGroup
	before := inUse()
	told.Add(2 * watchers)
	for range watchers {
		events := r.Watch(ctx, ref("k"))
		closed.Go(func() {
			n := 0
			for range events {
				if n++; n <= 2 {
					told.Done()
				}
			}
		})
	}
	each := (inUse() - before) / watchers
	start := time.Now()
	v, err = r.Resolve(t.Context(), ref("other"))
	want(t, v, err, "c4nary")
	other := time.Since(start)
	start = time.Now()
	if _, err := r.Report(t.Context(), ref("k"), v.Revision()); err != nil {
		t.Fatal(err)
	}
	one := time.Since(start)
	told.Wait()
	t.Logf("%d bytes a watcher; an event of another key took %v, of theirs %v, until all had it %v", each, other, one, time.Since(start))
	if each > 20_000 || other > one+100*time.Millisecond || time.Since(start) > 10*time.Second {
		t.Error("too much")
	}
	if n := len(r.hub.byKey); n != 1 {
		t.Errorf("%d keys watched", n)
	}
	cancel()
	closed.Wait()
	if st := r.Stats(); st.ActiveWatches != 0 || len(r.hub.byKey) != 0 || len(r.hub.all) != 0 {
		t.Errorf("%d watches left, of %d keys", st.ActiveWatches, len(r.hub.byKey))
	}
}

func inUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// However many watch and however fast it changes, what each is told last is how things stand.
func TestLastOfManyEvents(t *testing.T) {
	t.Parallel()
	const watchers, changes = 1000, 30
	s := newScript("c4nary")
	s.quick.Store(true)
	r := openAll(t, map[string]Provider{"p": {Backend: s, TTL: time.Hour}, "q": {Backend: s, TTL: time.Hour}})
	kept, gone := ref("k"), credref.Ref{Provider: "q", ID: "k"}
	var mu sync.Mutex
	last := make([]map[credref.Ref]Event, watchers)
	ctx, cancel := context.WithCancel(t.Context())
	var closed sync.WaitGroup
	for i := range watchers {
		last[i] = map[credref.Ref]Event{}
		events := r.Watch(ctx, kept, gone)
		closed.Go(func() {
			for ev := range events {
				mu.Lock()
				last[i][ev.Ref] = ev
				mu.Unlock()
			}
		})
	}
	revision := ""
	for i := range changes {
		s.set(fmt.Sprint("c4nary-", i))
		for _, k := range []credref.Ref{kept, gone} {
			r.Forget(k)
			v, err := r.Resolve(t.Context(), k)
			want(t, v, err, fmt.Sprint("c4nary-", i))
			revision = v.Revision()
		}
	}
	if err := r.Apply(Config{Providers: map[string]Provider{"p": {Backend: s, TTL: time.Hour}}}); err != nil {
		t.Fatal(err)
	}
	v, err := r.Resolve(t.Context(), kept) // of the successor
	want(t, v, err, fmt.Sprint("c4nary-", changes-1))
	stand := func() (right int) {
		mu.Lock()
		defer mu.Unlock()
		for i := range last {
			if last[i][kept].Revision == revision && last[i][kept].Kind == EventResolved && backend.CodeOf(last[i][gone].Err) == backend.CodeInvalidConfig {
				right++
			}
		}
		return right
	}
	for end := time.Now().Add(10 * time.Second); stand() < watchers && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(100 * time.Millisecond)
	if n := stand(); n != watchers {
		t.Errorf("%d of %d know how things stand", n, watchers)
	}
	r.hub.mu.Lock()
	if len(r.hub.late) != 0 || len(r.hub.waiting) != 0 || r.hub.handsOut {
		t.Errorf("%d late, %d waiting", len(r.hub.late), len(r.hub.waiting))
	}
	r.hub.mu.Unlock()
	cancel()
	closed.Wait()
}
