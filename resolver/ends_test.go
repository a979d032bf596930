package resolver

import (
	"context"
	"fmt"
	"path/filepath"
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

// A lease that a detached fetch brings is ended at its store, unless somebody was given it.
func TestLeaseOfNobody(t *testing.T) {
	for _, c := range []struct {
		name  string
		asked bool
		live  []string
	}{
		{"nobody asked for it", false, []string{"k/3"}},
		{"somebody waits for it", true, []string{"k/1", "k/2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLender()
				l.slow = time.Second
				r := open(t, Provider{Backend: l})
				var wg sync.WaitGroup
				if c.asked {
					wg.Go(func() {
						v, err := r.Resolve(context.Background(), ref("k"))
						want(t, v, err, "c4nary k/1")
					})
					time.Sleep(time.Millisecond)
				} else {
					h := r.Handle(ref("k"))
					defer h.Close()
					v, err := h.Get(t.Context())
					want(t, v, err, "c4nary k/1")
					if err := r.Revoke(t.Context(), ref("k")); err != nil {
						t.Fatal(err)
					}
					r.Forget(ref("k")) // it is fetched for the handle
					time.Sleep(time.Millisecond)
				}
				r.Forget(ref("k"))
				wg.Wait()
				v, err := r.Resolve(t.Context(), ref("k"))
				want(t, v, err, "c4nary "+c.live[len(c.live)-1])
				time.Sleep(3 * time.Second)
				l.wantLive(t, c.live...)
			})
		})
	}
}

// A renewal that is under way does not bring back what is ended.
func TestRenewalBringsNothingBack(t *testing.T) {
	for name, end := range map[string]func(*Resolver) error{
		"revoke":        func(r *Resolver) error { return r.Revoke(context.Background(), ref("k")) },
		"revoke leases": func(r *Resolver) error { _, err := r.RevokeLeases(context.Background()); return err },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLeaser(time.Hour, 4*time.Hour)
				l.slow = time.Minute
				r := open(t, Provider{Backend: l, Timeout: 2 * time.Minute})
				h := r.Handle(ref("k"))
				v, err := h.Get(t.Context())
				want(t, v, err, "user-1")
				h.Close()
				if _, err := r.Resolve(t.Context(), ref("k")); err != nil { // used, so that it is renewed
					t.Fatal(err)
				}
				for l.renewed.Load() == 0 {
					time.Sleep(time.Second)
				}
				if err := end(r); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Minute)
				if n := r.Stats().Entries; n != 0 || l.made.Load() != 1 {
					t.Errorf("%d entries, %d made", n, l.made.Load())
				}
				v, err = r.Resolve(t.Context(), ref("k"))
				want(t, v, err, "user-2")
			})
		})
	}
}

// TestSessionsAreKeptApart plays random histories of several subjects: what one of them ends is neither taken from another nor
// lives on, and nobody is given what is another's.
func TestSessionsAreKeptApart(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var failed any
		synctest.Test(t, func(t *testing.T) {
			defer func() { failed = recover() }()
			playSessions(rt)
		})
		if failed != nil {
			panic(failed)
		}
	})
}

func playSessions(t *rapid.T) {
	type lease struct {
		id, session string
	}
	var mu sync.Mutex
	live := map[string]lease{} // by lease
	n, down := 0, false
	store := &revoker{get: func(_ context.Context, req backend.Request) (*backend.Credential, error) {
		mu.Lock()
		defer mu.Unlock()
		if !strings.HasPrefix(req.ID, req.Subject.Session+"/") { // each session has secrets of its own
			return nil, backend.Errorf(backend.CodeNotFound, "no")
		}
		n++
		c := plain(fmt.Sprint("c4nary|", whose(req)))
		if strings.HasSuffix(req.ID, "lease") {
			c.Lease = &backend.Lease{ID: fmt.Sprint(n), Duration: time.Hour}
			live[c.Lease.ID] = lease{req.ID, req.Subject.Session}
		}
		return c, nil
	}, revoke: func(c *backend.Credential) error {
		mu.Lock()
		defer mu.Unlock()
		if down {
			return errDown
		}
		if c.Lease != nil {
			delete(live, c.Lease.ID)
		}
		return nil
	}}
	r, err := New(Config{Providers: map[string]Provider{"p": {Backend: store, Scope: []Scope{ScopeTenant, ScopeSession}, TTL: time.Hour}}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	sessions := []string{"", "s1", "s2", "s3"}
	subject := func(s string) credref.Subject {
		return credref.Subject{Tenant: map[bool]string{true: "t1", false: "t2"}[s == "s1" || s == "s2"], Session: s}
	}
	ids := []string{"lease", "plain"}
	draw := func(t *rapid.T) (string, credref.Ref) {
		s := rapid.SampledFrom(sessions).Draw(t, "session")
		of := rapid.SampledFrom(sessions).Draw(t, "of")
		return s, ref(of + "/" + rapid.SampledFrom(ids).Draw(t, "id"))
	}
	leases := func(match func(lease) bool) (out []string) {
		mu.Lock()
		defer mu.Unlock()
		for id, l := range live {
			if match(l) {
				out = append(out, id)
			}
		}
		slices.Sort(out)
		return out
	}
	entries := func(session string) (out []string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.cache.RemoveIf(func(k key, _ *entry) bool {
			if k.whom().Session == session {
				out = append(out, fmt.Sprint(k.id, k.whom()))
			}
			return false
		})
		slices.Sort(out)
		return out
	}
	t.Repeat(map[string]func(*rapid.T){
		"resolve": func(t *rapid.T) {
			s, k := draw(t)
			v, err := r.For(subject(s)).Resolve(context.Background(), k)
			own := strings.HasPrefix(k.ID, s+"/") || strings.HasPrefix(k.ID, "/")
			switch {
			case err != nil && own, err == nil && !own:
				t.Fatalf("%q asks for %s: %v", s, k.ID, err)
			case err == nil:
				if got := strings.Split(string(v.Secret().Reveal()), "|"); got[4] != "" && got[4] != s {
					t.Fatalf("%q is given what is %q's", s, got[4])
				}
			}
		},
		"revoke": func(t *rapid.T) {
			s, k := draw(t)
			others := leases(func(l lease) bool { return l.session != s && l.session != "" })
			_ = r.For(subject(s)).Revoke(context.Background(), k)
			if got := leases(func(l lease) bool { return l.session != s && l.session != "" }); !slices.Equal(got, others) {
				t.Fatalf("%q revokes %s, and others lose leases: %v of %v", s, k.ID, got, others)
			}
		},
		"end a session": func(t *rapid.T) {
			s := rapid.SampledFrom(sessions[1:]).Draw(t, "session")
			var before [][]string
			for _, other := range sessions {
				before = append(before, entries(other))
			}
			others := leases(func(l lease) bool { return l.session != s })
			err := r.EndSession(context.Background(), s)
			for i, other := range sessions {
				if got := entries(other); other == s && len(got) > 0 || other != s && !slices.Equal(got, before[i]) {
					t.Fatalf("%q ends, and %q has %v of %v", s, other, got, before[i])
				}
			}
			if got := leases(func(l lease) bool { return l.session != s }); !slices.Equal(got, others) {
				t.Fatalf("%q ends, and others lose leases: %v of %v", s, got, others)
			}
			if got := leases(func(l lease) bool { return l.session == s }); len(got) > 0 && (err == nil || !down) {
				t.Fatalf("%q ended (%v), and its leases hold: %v", s, err, got)
			}
		},
		"down": func(*rapid.T) { down = true },
		"up":   func(*rapid.T) { down = false },
		"": func(t *rapid.T) {
			synctest.Wait()
			owing := 0
			for _, recs := range r.owed {
				owing += len(recs)
			}
			if owing != r.owing {
				t.Fatalf("%d owed, %d counted", owing, r.owing)
			}
		},
	})
	down = false
	for _, s := range sessions[1:] {
		if err := r.EndSession(context.Background(), s); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.RevokeLeases(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := leases(func(lease) bool { return true }); len(got) > 0 || len(r.owed) > 0 {
		t.Fatalf("leases hold though all were ended: %v, owed %d", got, len(r.owed))
	}
}

// revoker is a store that can revoke.
type revoker struct {
	get    func(context.Context, backend.Request) (*backend.Credential, error)
	revoke func(*backend.Credential) error
}

func (s *revoker) Get(ctx context.Context, req backend.Request) (*backend.Credential, error) {
	return s.get(ctx, req)
}

func (s *revoker) Revoke(_ context.Context, _ backend.Request, c *backend.Credential) error {
	return s.revoke(c)
}

// What an open handle holds is fetched again once its store is back, however long that was, and watchers hear how it stands; a
// refused login is not repeated for that.
func TestOpenHandlesOutliveOutages(t *testing.T) {
	for code, back := range map[backend.Code]bool{
		backend.CodeUnavailable: true, backend.CodeThrottled: true, backend.CodeAuthRequired: false, backend.CodeDenied: false, backend.CodeNotFound: false,
	} {
		t.Run(string(code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ends := EventFailed
				if code == backend.CodeAuthRequired {
					ends = EventAuthRequired
				}
				s := newScript("c4nary-1")
				r := open(t, Provider{Backend: s, TTL: time.Minute, MaxStale: time.Minute, Retries: -1})
				h := r.Handle(ref("k"))
				defer h.Close()
				v, err := h.Get(t.Context())
				want(t, v, err, "c4nary-1")
				var told atomic.Pointer[Event]
				events := r.Watch(t.Context(), ref("k"))
				go func() {
					for ev := range events {
						told.Store(&ev)
					}
				}()
				s.failWith(code)
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				last := *told.Load()
				if last.Kind != ends || last.Revision != "" || !last.Expires.IsZero() || backend.CodeOf(last.Err) != code && code != backend.CodeThrottled {
					t.Errorf("during the outage: %+v", last)
				}
				if n := s.calls.Swap(0); n > 60 || !back && n > 10 {
					t.Errorf("%d calls in ten minutes", n)
				}
				s.heal()
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				last = *told.Load()
				if now := r.Cached(&credref.Ref{Provider: "p", ID: "k"}); back != (last.Kind != ends) || back != (s.calls.Load() > 0) {
					t.Errorf("after it: %+v, %v", last, now)
				}
				h.Close()
				s.calls.Store(0)
				s.failWith(code)
				time.Sleep(time.Hour)
				if n := s.calls.Load(); n > 2 {
					t.Errorf("%d calls for nobody", n)
				}
			})
		})
	}
}

// What an end is told with is that nothing is served.
func TestEndsHaveNoRevision(t *testing.T) {
	for name, end := range map[string]func(*Resolver, *lender){
		"revoke":        func(r *Resolver, _ *lender) { r.Revoke(context.Background(), ref("k")) },
		"revoke leases": func(r *Resolver, _ *lender) { r.RevokeLeases(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLender()
				r := open(t, Provider{Backend: l})
				events := r.Watch(t.Context(), ref("k"))
				r.Resolve(t.Context(), ref("k"))
				if ev := <-events; ev.Kind != EventResolved || ev.Revision == "" {
					t.Errorf("%+v", ev)
				}
				end(r, l)
				if ev := <-events; ev.Kind != EventRevoked || ev.Revision != "" || !ev.Expires.IsZero() || ev.Err != nil {
					t.Errorf("%+v", ev)
				}
			})
		})
	}
}

// Who demands more than what was restored has is told that the store is unavailable.
func TestDemandOfRestored(t *testing.T) {
	for _, c := range []struct {
		name  string
		d     Demand
		given bool
	}{
		{"nothing", Demand{}, true},
		{"any age", Demand{MaxStale: new(time.Hour)}, true},
		{"less than its age past the provider's ttl", Demand{MaxStale: new(58 * time.Minute)}, false},
		{"none past its time", Demand{MaxStale: new(time.Duration(0))}, false},
		{"from the store", Demand{NoCache: true}, false},
		{"as long as it lives", Demand{MinFreshness: 20 * time.Minute}, true},
		{"longer than it lives", Demand{MinFreshness: 40 * time.Minute}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScript("x")
				s.failWith(backend.CodeUnavailable)
				r := open(t, Provider{Backend: s, Digest: "d", TTL: time.Minute, Retries: -1})
				rem := remembered("c4nary-old", time.Hour)
				rem.Expires = time.Now().Add(30 * time.Minute).Round(0)
				if r.Restore([]Remembered{rem}, 24*time.Hour) != 1 {
					t.Fatal("not taken")
				}
				for range 2 { // as it is restored, and from the cache
					out := one(t, r, c.d)
					if !c.given {
						wantCode(t, out.Err, backend.CodeUnavailable)
						continue
					}
					if want(t, out.Value, out.Err, "c4nary-old"); !out.Value.Stale() {
						t.Error("not stale")
					}
				}
				s.calls.Store(0)
				for range 100 {
					one(t, r, c.d)
				}
				s.wantCalls(t, 0) // the failure just now is the answer
			})
		})
	}
}

// What was written elsewhere is told to end also when a later Snapshot lacks it, since that may not have been written.
func TestWhoKeepsAnOlderSnapshotIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript("c4nary")
		var mu sync.Mutex
		ended := 0
		r, err := New(Config{
			OnChange: func(c Change) {
				mu.Lock()
				defer mu.Unlock()
				ended += int(c) // ChangeEnded is one
			},
			Providers: map[string]Provider{"p": {Backend: s, Digest: "d", TTL: time.Minute}, "q": {Backend: s}},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		check := func(what string, want int) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if ended != want {
				t.Errorf("%s: told of %d ends, want %d", what, ended, want)
			}
			ended = 0
		}
		r.Resolve(t.Context(), ref("k"))
		if n := len(r.Snapshot()); n != 1 {
			t.Fatal(n)
		}
		time.Sleep(10 * time.Minute) // it lapses
		if n := len(r.Snapshot()); n != 0 {
			t.Fatal(n)
		}
		check("lapsed", 0)
		s.failWith(backend.CodeDenied)
		r.Resolve(t.Context(), ref("k"))
		check("denied", 1)
		r.Forget(ref("k"))
		r.Resolve(t.Context(), ref("k"))
		check("once", 0)
		r.Resolve(t.Context(), credref.Ref{Provider: "q", ID: "k"})
		r.Forget(credref.Ref{Provider: "q", ID: "k"})
		check("of what nobody may keep", 0)

		// Where there is more than is noted, each end is told of.
		s.heal()
		var rem []Remembered
		for i := range 4*defaultEntries + 1 {
			one := remembered("c4nary", time.Hour)
			one.Ref = ref(fmt.Sprint(i))
			rem = append(rem, one)
		}
		if n := r.Restore(rem, 24*time.Hour); n != defaultEntries || len(r.given) > 4*defaultEntries {
			t.Errorf("%d taken, %d noted", n, len(r.given))
		}
		r.Forget(ref("7"))
		check("of one of many", 1)
	})
}

// What other processes remember of a store shows before it is called, and an open breaker is not told as a pause.
func TestProvidersRemember(t *testing.T) {
	path := filepath.Join(t.TempDir(), "failures.json")
	synctest.Test(t, func(t *testing.T) {
		for process := range 2 {
			memory, err := OpenFailureMemory(path)
			if err != nil {
				t.Fatal(err)
			}
			s := newScript("x")
			s.failWith(backend.CodeUnavailable)
			r, err := New(Config{Failures: memory, Providers: map[string]Provider{
				"p": {Backend: s, Digest: "d", Retries: -1, Breaker: Breaker{Failures: 2, Open: 10 * time.Second}},
			}})
			if err != nil {
				t.Fatal(err)
			}
			if process == 0 {
				for range 2 {
					r.Resolve(t.Context(), ref("k"))
				}
			}
			breaker := []string{BreakerOpen, BreakerHeld}[process]
			if p := r.Providers()[0]; p.Breaker != breaker || p.Failures != 2 || p.Reason != "as told" || !p.RetryAt.After(time.Now()) {
				t.Errorf("process %d: %+v", process, p)
			}
			r.Close()
		}
	})
}
