package resolver

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credresolve/credresolve/backend"
)

// A store that advises again and again to fetch a successor at once is asked less and less often.
func TestAdviceOfThePast(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"long ago": -time.Hour, "now": 0, "at once": 10 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var asked []time.Duration
				when := func() []time.Duration {
					mu.Lock()
					defer mu.Unlock()
					return slices.Clone(asked)
				}
				var now atomic.Int64
				now.Store(int64(ahead))
				start := time.Now()
				store := &flaky{get: func(context.Context, backend.Request) (*backend.Credential, error) {
					mu.Lock()
					defer mu.Unlock()
					asked = append(asked, time.Since(start))
					c := plain(fmt.Sprint("c4nary-", len(asked)))
					c.RefreshAfter = time.Now().Add(time.Duration(now.Load()))
					return c, nil
				}}
				r := open(t, Provider{Backend: store, TTL: time.Hour})
				h := r.Handle(ref("k"))
				defer h.Close()
				h.Get(t.Context())
				time.Sleep(50 * time.Minute)
				at := when()
				if len(at) != 7 {
					t.Fatalf("asked at %v", at)
				}
				pause := pastRefresh
				for i := 1; i < len(at); i++ {
					if gap := at[i] - at[i-1]; gap < pause || gap > pause+pause/10+tick {
						t.Errorf("asked %v after the time before, want %v and a tenth at most", gap, pause)
					}
					pause *= 2
				}
				now.Store(int64(5 * time.Minute)) // it says something of use
				for len(when()) == 7 {
					time.Sleep(time.Minute)
				}
				now.Store(int64(ahead))
				time.Sleep(8 * time.Minute)
				if at = when(); len(at) < 10 || at[8]-at[7] < 5*time.Minute || at[9]-at[8] > pastRefresh+pastRefresh/10+tick {
					t.Errorf("asked at %v", at)
				}
			})
		})
	}
}

// An advice that comes at, or after, the end of the time that we keep a value for is none.
func TestAdviceThatComesTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &flaky{get: func(ctx context.Context, _ backend.Request) (*backend.Credential, error) {
			c := plain("c4nary")
			c.RefreshAfter = time.Now().Add(time.Hour)
			return c, pause(ctx, time.Second)
		}}
		r := open(t, Provider{Backend: store, TTL: time.Minute})
		h := r.Handle(ref("k"))
		defer h.Close()
		h.Get(t.Context())
		for range 600 {
			start := time.Now()
			if _, err := h.Get(t.Context()); err != nil || time.Since(start) > 0 {
				t.Fatalf("waited %v, %v", time.Since(start), err)
			}
			time.Sleep(time.Second)
		}
	})
}

// Many that are due at one moment do not come together.
func TestAdviceIsJittered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		due := time.Now().Add(time.Minute)
		var first, last time.Time
		store := &flaky{get: func(context.Context, backend.Request) (*backend.Credential, error) {
			c := plain("c4nary")
			if c.RefreshAfter = due; !time.Now().Before(due) {
				if last = time.Now(); first.IsZero() {
					first = last
				}
				c.RefreshAfter = time.Time{}
			}
			return c, nil
		}}
		r := open(t, Provider{Backend: store, TTL: time.Hour, Concurrency: 1})
		for _, k := range refs(200) {
			h := r.Handle(k)
			defer h.Close()
			h.Get(t.Context())
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n := store.calls.Load(); n != 400 || first.Sub(due) > 100*time.Millisecond || last.Sub(first) < 500*time.Millisecond || last.Sub(due) > time.Second+tick {
			t.Errorf("%d calls, the first %v and the last %v after they were due", n, first.Sub(due), last.Sub(due))
		}
	})
}

// Leases may be as short as they like: none is given past its end, an open handle has the store asked ten times a second at
// most, to renew and then to fetch, and where there is time for it nobody waits.
func TestShortLeases(t *testing.T) {
	for _, c := range []struct {
		length, most time.Duration // no most: not renewable
		calls        int64         // in ten seconds, at most; zero: each read may be one
		waits        bool
	}{
		{time.Millisecond, time.Millisecond, 0, true},
		{30 * time.Millisecond, 30 * time.Millisecond, 0, true},
		{100 * time.Millisecond, 100 * time.Millisecond, 0, true},
		{250 * time.Millisecond, 250 * time.Millisecond, 200, true}, // what a renewal gives is too short for another
		{250 * time.Millisecond, 0, 100, false},
		{500 * time.Millisecond, 500 * time.Millisecond, 80, false},
		{500 * time.Millisecond, 3 * time.Second, 60, false},
		{900 * time.Millisecond, time.Hour, 25, false},
		{2 * time.Second, 7 * time.Second, 12, false},
	} {
		t.Run(fmt.Sprint(c.length, " of ", c.most), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLeaser(c.length, c.most)
				l.slow = min(5*time.Millisecond, c.length/10)
				gives := l.get
				l.get = func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
					out, _ := gives(ctx, req)
					out.Lease.Renewable = c.most > 0
					return out, pause(ctx, l.slow)
				}
				r := open(t, Provider{Backend: l})
				h := r.Handle(ref("k"))
				defer h.Close()
				h.Get(t.Context())
				reads := int64(0)
				for start := time.Now(); time.Since(start) < 10*time.Second; time.Sleep(7 * time.Millisecond) {
					reads++
					asked := time.Now()
					v, err := h.Get(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					if left := time.Until(v.Expires()); left <= 0 {
						t.Fatalf("given %v after its end", -left)
					}
					if waited := time.Since(asked); !c.waits && waited > 0 {
						t.Errorf("a read waited %v for the store after %v", waited, time.Since(start))
					}
				}
				if n := l.made.Load() + l.renewed.Load(); n < 5 || n > 2*reads || c.calls > 0 && n > c.calls {
					t.Errorf("%d calls, want %d at most", n, c.calls)
				}
				n := l.made.Load() + l.renewed.Load()
				h.Close()
				time.Sleep(time.Minute)
				if more := l.made.Load() + l.renewed.Load() - n; more > 2 {
					t.Errorf("%d calls for nobody", more)
				}
			})
		})
	}
}

func TestFetchedOfARenewedLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeaser(time.Minute, time.Hour)
		r := open(t, Provider{Backend: l})
		h := r.Handle(ref("k"))
		defer h.Close()
		v, err := h.Get(t.Context())
		want(t, v, err, "user-1")
		time.Sleep(10 * time.Minute)
		later, err := h.Get(t.Context())
		want(t, later, err, "user-1")
		if l.renewed.Load() == 0 || !later.Fetched().Equal(v.Fetched()) || !later.Expires().After(v.Expires()) {
			t.Errorf("fetched %v, then %v", v.Fetched(), later.Fetched())
		}
	})
}
