package resolver

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/cache"
)

func TestScheduleOrder(t *testing.T) {
	var s schedule
	random := rand.New(rand.NewPCG(1, 2))
	at := map[*entry]int64{}
	var all []*entry
	for range 2000 {
		e := cache.NewEntry[record, Value](record{}, 0)
		all = append(all, e)
	}
	for range 20_000 {
		e := all[random.IntN(len(all))]
		if random.IntN(3) == 0 {
			s.remove(e)
			delete(at, e)
			continue
		}
		at[e] = random.Int64N(1000)
		s.set(e, at[e])
	}
	if len(s.heap) != len(at) {
		t.Fatalf("%d scheduled, want %d", len(s.heap), len(at))
	}
	last := int64(-1)
	for len(s.heap) > 0 {
		first := s.heap[0]
		if first.at < last || at[first.e] != first.at {
			t.Fatalf("due at %d, want %d, after %d", first.at, at[first.e], last)
		}
		last = first.at
		s.remove(first.e)
		if first.e.Payload.place != 0 {
			t.Fatal("it was removed, and has a place")
		}
	}
}

// jumpy lets a test move the wall clock of r, or let the machine sleep.
func jumpy(r *Resolver) (wall *atomic.Int64) {
	wall = new(atomic.Int64)
	start := time.Now()
	r.clock.read = func() (int64, int64) {
		now := int64(time.Since(start)) + 1
		return now, now + wall.Load()
	}
	return wall
}

// What was due while the machine slept, or becomes so as the clock jumps, is seen to soon after, whether or not somebody asks.
func TestSleepAndJumps(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"ahead": time.Hour, "back": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScript("one")
				r := open(t, Provider{Backend: s, TTL: 40 * time.Minute})
				wall := jumpy(r)
				h := r.Handle(ref("k"))
				defer h.Close()
				h.Get(t.Context())
				s.wantCalls(t, 1)
				time.Sleep(time.Minute)
				wall.Add(int64(ahead))
				time.Sleep(lookAgain + time.Second)
				if ahead < 0 { // deadlines go on as they were
					s.wantCalls(t, 0)
					time.Sleep(27 * time.Minute)
				}
				s.wantCalls(t, 1)
			})
		})
	}
}

// A store's advice is followed to a second after a sleep that ended just before it.
func TestAdviceAfterASleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var asked []time.Time
		var wall *atomic.Int64
		store := &flaky{get: func(context.Context, backend.Request) (*backend.Credential, error) {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, time.Now())
			c := plain("c4nary")
			c.RefreshAfter = time.Now().Add(30 * time.Minute)
			return c, nil
		}}
		r := open(t, Provider{Backend: store, TTL: time.Hour})
		wall = jumpy(r)
		h := r.Handle(ref("k"))
		defer h.Close()
		h.Get(t.Context())
		start := time.Now()
		time.Sleep(time.Minute)
		wall.Add(int64(28 * time.Minute)) // so that a minute is left
		time.Sleep(2 * time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if len(asked) != 2 || asked[1].Sub(start) < 2*time.Minute || asked[1].Sub(start) > 2*time.Minute+time.Second+tick {
			t.Errorf("asked at %v", asked)
		}
	})
}

func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript("one")
		r := open(t, Provider{Backend: s, TTL: 3 * time.Minute, Idle: time.Hour})
		v, err := r.Resolve(t.Context(), ref("k"))
		want(t, v, err, "one")
		s.set("two")
		time.Sleep(50 * time.Minute)
		v, err = r.Resolve(t.Context(), ref("k"))
		if want(t, v, err, "two"); time.Since(v.Fetched()) > 2*time.Minute+tick {
			t.Errorf("fetched %v ago", time.Since(v.Fetched()))
		}
		s.calls.Store(0)
		time.Sleep(70 * time.Minute) // an hour, and what a use may be known too late
		if n := s.calls.Swap(0); n < 30 || n > 36 {
			t.Errorf("refreshed %d times in an hour after its last use", n)
		}
		time.Sleep(time.Hour)
		s.wantCalls(t, 0)
		if n := r.Stats().Entries; n != 0 {
			t.Errorf("%d entries are left", n)
		}
	})
}

// A store that wants a login is not asked in the background, neither for an open handle, until somebody asks or what is known is
// forgotten, as a login does.
func TestLoginRequiredStopsRefresh(t *testing.T) {
	for name, again := range map[string]func(*testing.T, *Resolver, *Handle){
		"asked":     func(t *testing.T, _ *Resolver, h *Handle) { h.Get(t.Context()) },
		"forgotten": func(_ *testing.T, r *Resolver, _ *Handle) { r.Forget(ref("k")) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScript("one")
				r := open(t, Provider{Backend: s, TTL: time.Hour, Idle: 24 * time.Hour})
				h := r.Handle(ref("k"))
				defer h.Close()
				h.Get(t.Context())
				s.failWith(backend.CodeAuthRequired)
				time.Sleep(59 * time.Minute)
				s.wantCalls(t, 2)
				s.heal()
				time.Sleep(30 * time.Second) // still within the life of what is known
				again(t, r, h)
				time.Sleep(time.Second)
				s.wantCalls(t, 1)
				s.failWith(backend.CodeAuthRequired)
				time.Sleep(24 * time.Hour)
				s.wantCalls(t, 1)
			})
		})
	}
}

// Where a refresh fails and the value is good, who asks gets it, and can see that.
func TestRefreshError(t *testing.T) {
	for _, code := range []backend.Code{backend.CodeUnavailable, backend.CodeAuthRequired, backend.CodeInternal} {
		t.Run(string(code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScript("one")
				r := open(t, Provider{Backend: s, TTL: time.Hour})
				h := r.Handle(ref("k"))
				defer h.Close()
				v, err := h.Get(t.Context())
				want(t, v, err, "one")
				if v.RefreshError() != nil {
					t.Errorf("nothing failed yet: %v", v.RefreshError())
				}
				s.failWith(code)
				time.Sleep(50 * time.Minute)
				v, err = h.Get(t.Context())
				want(t, v, err, "one")
				if backend.CodeOf(v.RefreshError()) != code || v.Stale() {
					t.Errorf("the value tells of %v, stale: %v", v.RefreshError(), v.Stale())
				}
				v, err = r.Resolve(t.Context(), ref("k"))
				if want(t, v, err, "one"); backend.CodeOf(v.RefreshError()) != code {
					t.Errorf("a later value tells of %v", v.RefreshError())
				}
				s.heal()
				time.Sleep(2 * time.Minute)
				h.Get(t.Context())
				time.Sleep(time.Second)
				v, err = h.Get(t.Context())
				if want(t, v, err, "one"); v.RefreshError() != nil {
					t.Errorf("the store is back: %v", v.RefreshError())
				}
			})
		})
	}
}

// However much is due in the background, it takes no more calls than there are workers, and half of those of its store; who
// waits is not behind it.
func TestBackgroundKeepsOutOfTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var under, most [3]atomic.Int32 // of two stores, and both
		busy := func(i int) *flaky {
			return &flaky{get: func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
				for _, n := range []int{i, 2} {
					now := under[n].Add(1)
					defer under[n].Add(-1)
					for old := most[n].Load(); now > old && !most[n].CompareAndSwap(old, now); old = most[n].Load() {
					}
				}
				return plain(req.ID), pause(ctx, time.Second)
			}}
		}
		one, two := busy(0), busy(1)
		r, err := New(Config{RefreshWorkers: 6, Providers: map[string]Provider{
			"p": {Backend: one, TTL: 10 * time.Minute, Concurrency: 8}, "q": {Backend: two, TTL: 10 * time.Minute, Concurrency: 8},
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for _, k := range refs(400) {
			for _, p := range []string{"p", "q"} {
				k.Provider = p
				h := r.Handle(k)
				defer h.Close()
				go h.Get(t.Context())
			}
		}
		time.Sleep(5 * time.Minute)
		if most[0].Load() != 8 || most[1].Load() != 8 {
			t.Fatalf("callers had %d and %d calls at once", most[0].Load(), most[1].Load())
		}
		for i := range most {
			most[i].Store(0)
		}
		one.calls.Store(0)
		two.calls.Store(0)
		time.Sleep(2 * time.Minute) // the refresh of all is under way
		var waits []time.Duration
		for i := range 20 {
			start := time.Now()
			_, err := r.Resolve(t.Context(), ref(fmt.Sprint("new-", i)))
			if waits = append(waits, time.Since(start)); err != nil {
				t.Error(err)
			}
		}
		if slow := slices.Max(waits); slow > 1100*time.Millisecond {
			t.Errorf("a caller waited %v behind the background", slow)
		}
		time.Sleep(3 * time.Minute)
		if a, b := one.calls.Load(), two.calls.Load(); a < 420 || b < 400 {
			t.Errorf("%d and %d calls: not all were refreshed", a, b)
		}
		if a, b, both := most[0].Load(), most[1].Load(), most[2].Load(); a > 5 || b > 4 || both > 7 {
			t.Errorf("%d and %d calls at once, together %d; want half of 8 at most and one of the caller, together 6 and that", a, b, both)
		}
	})
}

// A caller who comes for what waits in the background does not wait for what is before it.
func TestBackgroundIsPromoted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &flaky{get: func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
			return plain(req.ID), pause(ctx, time.Second)
		}}
		r := open(t, Provider{Backend: store, Concurrency: 2, TTL: time.Hour})
		all := refs(100)
		for _, k := range all {
			h := r.Handle(k)
			defer h.Close()
			go h.Get(t.Context())
		}
		time.Sleep(2 * time.Minute)
		r.Invalidate("p", "") // all are fetched again, for nobody, one after the other
		synctest.Wait()
		start := time.Now()
		v, err := r.Resolve(t.Context(), all[99])
		if want(t, v, err, all[99].ID); time.Since(start) > 2*time.Second {
			t.Errorf("waited %v", time.Since(start))
		}
		time.Sleep(3 * time.Minute)
		if n := store.calls.Load(); n != 200 {
			t.Errorf("%d calls, want one more of each", n)
		}
	})
}
