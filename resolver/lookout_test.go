package resolver

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credresolve/credresolve/adapters/memory"
	"github.com/credresolve/credresolve/backend"
)

// versioned is a store that tells the current version of a secret, and counts what it is asked.
type versioned struct {
	mu      sync.Mutex
	held    map[string][]string // by id, the oldest first; none: not there
	deleted map[string]bool
	fail    error // of checks
	panics  bool
	took    time.Duration // of a read: what it gives was there when the call came
	checked []time.Time
	reads   int
	under   int
	most    int // checks at once
}

func newVersioned(ids ...string) *versioned {
	s := &versioned{held: map[string][]string{}, deleted: map[string]bool{}}
	for _, id := range ids {
		s.held[id] = []string{"one"}
	}
	return s
}

func (s *versioned) put(id, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[id] = append(s.held[id], text)
}

func (s *versioned) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *versioned) Get(ctx context.Context, req backend.Request) (*backend.Credential, error) {
	s.mu.Lock()
	s.reads++
	all, took := s.held[req.ID], s.took
	if s.deleted[req.ID] {
		all = nil
	}
	s.mu.Unlock()
	if err := pause(ctx, took); err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, backend.Errorf(backend.CodeNotFound, "no")
	}
	c := plain(all[len(all)-1])
	c.Version = strconv.Itoa(len(all))
	return c, nil
}

func (s *versioned) CurrentVersion(ctx context.Context, req backend.Request) (string, error) {
	s.mu.Lock()
	s.checked = append(s.checked, time.Now())
	s.under++
	s.most = max(s.most, s.under)
	n, fail, panics := len(s.held[req.ID]), s.fail, s.panics
	if s.deleted[req.ID] {
		fail = backend.Errorf(backend.CodeNotFound, "no")
	}
	s.mu.Unlock()
	defer s.set(func() { s.under-- })
	if err := pause(ctx, 10*time.Millisecond); err != nil {
		return "", err
	}
	if panics {
		panic("c4nary")
	}
	return strconv.Itoa(n), fail
}

// wantAsked is how often the store was read, and checked, since this was last asked.
func (s *versioned) wantAsked(t testing.TB, reads, leastChecks, mostChecks int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.checked); s.reads != reads || n < leastChecks || n > mostChecks {
		t.Fatalf("the store was read %d times and checked %d times, want %d and %d to %d", s.reads, n, reads, leastChecks, mostChecks)
	}
	s.reads, s.checked = 0, nil
}

// kinds takes the events that are there.
func kinds(events <-chan Event) (out []EventKind) {
	synctest.Wait()
	for {
		select {
		case ev := <-events:
			out = append(out, ev.Kind)
			synctest.Wait()
		default:
			return out
		}
	}
}

func TestCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newVersioned("k", "other")
		r := open(t, Provider{Backend: s, TTL: 10 * time.Hour, Check: time.Minute})
		h := r.Handle(ref("k"))
		defer h.Close()
		v, err := h.Get(t.Context())
		want(t, v, err, "one")
		r.Resolve(t.Context(), ref("other")) // once, and nobody uses it
		events := r.Watch(t.Context(), ref("k"))
		if got := kinds(events); !slices.Equal(got, []EventKind{EventResolved}) {
			t.Fatalf("events: %v", got)
		}
		time.Sleep(time.Hour)
		s.wantAsked(t, 2, 58, 68) // one is checked, and none is read
		if got := kinds(events); len(got) != 0 {
			t.Errorf("a check that found nothing told of %v", got)
		}
		s.put("k", "two")
		time.Sleep(time.Minute + time.Second)
		v, err = h.Get(t.Context())
		want(t, v, err, "two")
		s.wantAsked(t, 1, 1, 2)
		if got := kinds(events); !slices.Equal(got, []EventKind{EventRotated}) {
			t.Errorf("events: %v", got)
		}
		s.set(func() { s.deleted["k"] = true })
		time.Sleep(time.Minute + time.Second)
		if got := kinds(events); !slices.Equal(got, []EventKind{EventFailed}) {
			t.Errorf("events: %v", got)
		}
		_, err = h.Get(t.Context())
		wantCode(t, err, backend.CodeNotFound)
		if n := r.Stats().Checks; n < 60 {
			t.Errorf("Stats tell of %d checks", n)
		}
	})
}

// What nobody uses is not checked, and is as soon as somebody does.
func TestCheckWhileUsed(t *testing.T) {
	for name, idle := range map[string]time.Duration{"idle": 10 * time.Minute, "no idle": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newVersioned("k")
				r := open(t, Provider{Backend: s, TTL: 5 * time.Hour, Check: time.Minute, Idle: idle})
				get := func(w string) { t.Helper(); v, err := r.Resolve(t.Context(), ref("k")); want(t, v, err, w) }
				get("one")
				time.Sleep(time.Hour)
				if idle > 0 {
					s.wantAsked(t, 1, 9, 13)
				} else {
					s.wantAsked(t, 1, 0, 0)
				}
				s.put("k", "two")
				get("one") // and looks behind it
				time.Sleep(time.Second)
				get("two")
				s.wantAsked(t, 1, 1, 1)
				get("two")
				get("two")
				time.Sleep(time.Hour)
				if idle > 0 {
					s.wantAsked(t, 0, 9, 13)
				} else {
					s.wantAsked(t, 0, 58, 68)
				}
			})
		})
	}
}

// A check that fails harms nothing, and does not come more often.
func TestCheckFails(t *testing.T) {
	for name, c := range map[string]struct {
		err         error
		panics      bool
		least, most int
	}{
		"unavailable":   {err: backend.Errorf(backend.CodeUnavailable, "as told"), least: 9, most: 12},
		"denied":        {err: backend.Errorf(backend.CodeDenied, "as told"), least: 9, most: 12},
		"auth required": {err: backend.Errorf(backend.CodeAuthRequired, "as told"), least: 6, most: 12}, // its provider is left alone for a while
		"expired":       {err: backend.Errorf(backend.CodeExpired, "as told"), least: 9, most: 12},
		"throttled":     {err: &backend.Error{Code: backend.CodeThrottled, Reason: "as told", RetryAfter: 5 * time.Minute}, least: 2, most: 3},
		"unsupported":   {err: backend.Errorf(backend.CodeUnsupported, "as told"), least: 1, most: 1},
		"panic":         {panics: true, least: 9, most: 12},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newVersioned("k")
				r := open(t, Provider{Backend: s, TTL: 5 * time.Hour, Check: time.Minute, Breaker: Breaker{Failures: -1}})
				h := r.Handle(ref("k"))
				defer h.Close()
				h.Get(t.Context())
				events := r.Watch(t.Context(), ref("k"))
				kinds(events)
				s.set(func() { s.fail, s.panics = c.err, c.panics })
				for range 100 {
					time.Sleep(6 * time.Second)
					v, err := h.Get(t.Context())
					want(t, v, err, "one")
					if v.Stale() {
						t.Fatal("it is marked as stale")
					}
				}
				s.wantAsked(t, 1, c.least, c.most)
				if got := kinds(events); len(got) != 0 {
					t.Errorf("events: %v", got)
				}
				s.set(func() { s.fail, s.panics = nil, false })
				s.put("k", "two")
				time.Sleep(6 * time.Minute)
				v, err := h.Get(t.Context())
				if name == "unsupported" {
					want(t, v, err, "one") // until it is fetched for its age
				} else {
					want(t, v, err, "two")
				}
			})
		})
	}
}

func TestCheckNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newVersioned("k")
		none := newScript("one") // gives no version
		r := openAll(t, map[string]Provider{"p": {Backend: s, TTL: 5 * time.Hour}, "q": {Backend: none, TTL: 5 * time.Hour, Check: time.Minute}})
		h := r.Handle(ref("k"))
		defer h.Close()
		h.Get(t.Context())
		other := ref("k")
		other.Provider = "q"
		h2 := r.Handle(other)
		defer h2.Close()
		h2.Get(t.Context())
		time.Sleep(time.Hour)
		s.wantAsked(t, 1, 0, 0)
		none.wantCalls(t, 1)
	})
}

// Many checks that are due together go out one after the other, and those that wait are apart after the first.
func TestManyChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 2000
		s := newVersioned()
		for _, ref := range refs(n) {
			s.held[ref.ID] = []string{"one"}
		}
		r, err := New(Config{Providers: map[string]Provider{"p": {Backend: s, TTL: 5 * time.Hour, Check: time.Minute}}, RefreshWorkers: 4})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for _, ref := range refs(n) {
			h := r.Handle(ref)
			defer h.Close()
			h.Get(t.Context())
		}
		time.Sleep(10*time.Minute + 30*time.Second)
		s.mu.Lock()
		per := map[int64]int{}
		for _, at := range s.checked {
			per[at.Unix()]++
		}
		busiest := 0
		for _, n := range per {
			busiest = max(busiest, n)
		}
		most := s.most
		s.mu.Unlock()
		if most > 4 {
			t.Errorf("%d checks at once, want 4 at most", most)
		}
		if busiest > n/2 {
			t.Errorf("%d of %d checks in one second", busiest, n)
		}
		s.wantAsked(t, n, 9*n, 12*n)
	})
}

// While a version is refused its predecessor is served, and a check compares with what the store calls current.
func TestCheckInARotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newVersioned("k")
		b := &besides{s}
		r := open(t, Provider{Backend: b, TTL: 5 * time.Hour, Check: time.Minute})
		h := r.Handle(ref("k"))
		defer h.Close()
		s.put("k", "two")
		v, err := h.Get(t.Context())
		want(t, v, err, "two")
		v, err = r.Report(t.Context(), ref("k"), v.Revision())
		want(t, v, err, "one")
		s.wantAsked(t, 2, 0, 0)
		time.Sleep(5 * time.Minute)
		s.wantAsked(t, 0, 4, 6)
		v, err = h.Get(t.Context())
		want(t, v, err, "one")
		s.put("k", "three")
		time.Sleep(time.Minute + time.Second)
		v, err = h.Get(t.Context())
		want(t, v, err, "three")
	})
}

// besides is versioned, and gives the version before the current one.
type besides struct{ *versioned }

func (b *besides) GetRotation(_ context.Context, req backend.Request, current *backend.Credential) ([]*backend.Credential, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, _ := strconv.Atoi(current.Version)
	c := plain(b.held[req.ID][n-2])
	c.Version = strconv.Itoa(n - 1)
	return []*backend.Credential{c}, nil
}

// telling is versioned with a watch, which a test can let fail.
type telling struct {
	*versioned
	fails   atomic.Pointer[error]
	begun   atomic.Int64
	open    atomic.Int64
	watches [][]string
	tell    chan string // an id that changed
	broken  chan error  // ends a watch
}

func newTelling(ids ...string) *telling {
	return &telling{versioned: newVersioned(ids...), tell: make(chan string), broken: make(chan error)}
}

func (s *telling) Watch(ctx context.Context, reqs []backend.Request, changed func(backend.Request)) error {
	s.begun.Add(1)
	s.open.Add(1)
	defer s.open.Add(-1)
	var ids []string
	for _, req := range reqs {
		ids = append(ids, req.ID)
	}
	slices.Sort(ids)
	s.set(func() { s.watches = append(s.watches, ids) })
	if fails := s.fails.Load(); fails != nil {
		return *fails
	}
	for _, req := range reqs {
		changed(req)
	}
	for {
		select {
		case id := <-s.tell:
			for _, req := range reqs {
				if req.ID == id {
					changed(req)
				}
			}
		case err := <-s.broken:
			if err == nil {
				panic("c4nary")
			}
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// A store that tells of changes is listened to while something of it is held, and not by who ends soon.
func TestStoreTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTelling("k", "other", "later")
		r := open(t, Provider{Backend: s, TTL: 5 * time.Hour})
		h := r.Handle(ref("k"))
		h.Get(t.Context())
		r.Resolve(t.Context(), ref("other")) // once: nobody uses it
		time.Sleep(watchAfter / 2)
		if s.begun.Load() != 0 {
			t.Fatal("a watch began at once")
		}
		time.Sleep(2 * watchAfter)
		s.wantAsked(t, 2, 1, 1) // as the watch begins
		events := r.Watch(t.Context(), ref("k"))
		kinds(events)
		s.tell <- "k" // in vain
		if got := kinds(events); len(got) != 0 {
			t.Errorf("events: %v", got)
		}
		time.Sleep(time.Second)
		s.wantAsked(t, 0, 1, 1)
		s.put("k", "two")
		s.tell <- "k"
		time.Sleep(time.Second)
		v, err := h.Get(t.Context())
		want(t, v, err, "two")
		if got := kinds(events); !slices.Equal(got, []EventKind{EventRotated}) {
			t.Errorf("events: %v", got)
		}
		s.wantAsked(t, 1, 1, 1)

		h2 := r.Handle(ref("later"))
		h2.Get(t.Context())
		time.Sleep(3 * watchAfter)
		want := [][]string{{"k"}, {"k", "later"}}
		s.set(func() {
			if !slices.EqualFunc(s.watches, want, slices.Equal) || s.open.Load() != 1 {
				t.Errorf("watched: %v, %d of them now", s.watches, s.open.Load())
			}
		})
		h.Close()
		h2.Close()
		r.Forget(ref("k"))
		r.Forget(ref("later"))
		time.Sleep(tending + time.Second)
		if n := s.open.Load(); n != 0 {
			t.Errorf("%d watches go on, and nothing is held", n)
		}
		h3 := r.Handle(ref("k"))
		defer h3.Close()
		h3.Get(t.Context())
		time.Sleep(3 * watchAfter)
		if n := s.open.Load(); n != 1 {
			t.Errorf("%d watches, and something is held again", n)
		}
	})
}

// A change is noticed however it falls: while the secret is read, while it is checked, after it was gone.
func TestStoreTellsAtAnyTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTelling("k")
		r := open(t, Provider{Backend: s, TTL: 5 * time.Hour})
		h := r.Handle(ref("k"))
		defer h.Close()
		h.Get(t.Context())
		time.Sleep(3 * watchAfter)
		is := func(text string) {
			t.Helper()
			time.Sleep(2 * time.Second)
			v, err := h.Get(t.Context())
			want(t, v, err, text)
		}
		s.set(func() { s.took = 100 * time.Millisecond })
		s.put("k", "two")
		s.tell <- "k"
		time.Sleep(50 * time.Millisecond) // the read is under way, of what was there when it began
		s.put("k", "three")
		s.tell <- "k"
		is("three")
		s.put("k", "four")
		s.tell <- "k"
		time.Sleep(5 * time.Millisecond) // the check is
		s.put("k", "five")
		s.tell <- "k"
		is("five")

		s.set(func() { s.deleted["k"] = true })
		s.tell <- "k"
		time.Sleep(2 * time.Second)
		_, err := h.Get(t.Context())
		wantCode(t, err, backend.CodeNotFound)
		time.Sleep(time.Hour)
		s.set(func() { s.deleted["k"] = false })
		events := r.Watch(t.Context(), ref("k"))
		s.tell <- "k"
		if got := kinds(events); !slices.Contains(got, EventResolving) {
			t.Errorf("events: %v", got)
		}
		is("five")
	})
}

// What a handle looks for and is not there is watched: it may come.
func TestStoreTellsOfWhatComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTelling()
		r := open(t, Provider{Backend: s, TTL: time.Hour})
		h := r.Handle(ref("k"))
		defer h.Close()
		_, err := h.Get(t.Context())
		wantCode(t, err, backend.CodeNotFound)
		time.Sleep(time.Hour)
		events := r.Watch(t.Context(), ref("k"))
		s.put("k", "one")
		s.tell <- "k"
		if got := kinds(events); !slices.Equal(got, []EventKind{EventResolved}) {
			t.Errorf("events: %v", got)
		}
	})
}

// What changed and nobody uses any more is let go of: the next who asks gets what there is.
func TestStoreTellsOfWhatNobodyUses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTelling("k")
		r := open(t, Provider{Backend: s, TTL: 5 * time.Hour})
		h := r.Handle(ref("k"))
		h.Get(t.Context())
		time.Sleep(3 * watchAfter)
		h.Close()
		s.put("k", "two")
		s.tell <- "k"
		time.Sleep(time.Second)
		s.wantAsked(t, 1, 2, 2)
		v, err := r.Resolve(t.Context(), ref("k"))
		want(t, v, err, "two")
	})
}

// A watch that ends is begun again after ever longer pauses, and meanwhile there are checks. What was missed is made up for.
func TestStoreCannotTell(t *testing.T) {
	for name, c := range map[string]struct {
		err   error
		again bool
	}{
		"unavailable": {backend.Errorf(backend.CodeUnavailable, "as told"), true},
		"panic":       {nil, true},
		"unsupported": {backend.Errorf(backend.CodeUnsupported, "as told"), false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newTelling("k")
				r := open(t, Provider{Backend: s, TTL: 50 * time.Hour, Check: 10 * time.Minute})
				h := r.Handle(ref("k"))
				defer h.Close()
				h.Get(t.Context())
				time.Sleep(3 * watchAfter)
				fails := error(backend.Errorf(backend.CodeUnavailable, "as told"))
				s.fails.Store(&fails)
				s.broken <- c.err
				time.Sleep(time.Hour)
				n := s.begun.Load()
				if c.again && (n < 60 || n > 200) || !c.again && n != 1 {
					t.Errorf("%d watches in an hour", n)
				}
				s.put("k", "two")
				time.Sleep(11 * time.Minute)
				v, err := h.Get(t.Context())
				want(t, v, err, "two")
				if !c.again {
					return
				}
				s.put("k", "three")
				s.fails.Store(nil)
				time.Sleep(time.Minute)
				v, err = h.Get(t.Context())
				want(t, v, err, "three")
			})
		})
	}
}

// A watch that is in place and ends at once, over and over, is begun after ever longer pauses too.
func TestStoreTellsAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTelling("k")
		r := open(t, Provider{Backend: s, TTL: 50 * time.Hour})
		h := r.Handle(ref("k"))
		defer h.Close()
		h.Get(t.Context())
		go func() {
			for {
				select {
				case s.broken <- backend.Errorf(backend.CodeUnavailable, "as told"):
				case <-t.Context().Done():
					return
				}
			}
		}()
		time.Sleep(time.Hour)
		if n := s.begun.Load(); n < 60 || n > 200 {
			t.Errorf("%d watches in an hour", n)
		}
	})
}

// A provider that is replaced is not listened to any more, and its successor is.
func TestStoreTellsAfterApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, s2 := newTelling("k"), newTelling("k")
		r := open(t, Provider{Backend: s, TTL: 5 * time.Hour})
		h := r.Handle(ref("k"))
		defer h.Close()
		h.Get(t.Context())
		time.Sleep(3 * watchAfter)
		if err := r.Apply(Config{Providers: map[string]Provider{"p": {Backend: s2, TTL: 5 * time.Hour}}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := s.open.Load(); n != 0 {
			t.Errorf("%d watches of what was replaced", n)
		}
		h.Get(t.Context())
		time.Sleep(3 * watchAfter)
		if n := s2.open.Load(); n != 1 {
			t.Errorf("%d watches", n)
		}
	})
}

// Of a real store that is written to all the time, who holds a secret has the last that was written soon after.
func TestStoreIsWritten(t *testing.T) {
	store, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	const secrets, writes = 20, 50
	for i := range secrets {
		put(t, store, i, "first")
	}
	r := open(t, Provider{Backend: store, TTL: time.Hour})
	var handles []*Handle
	for i := range secrets {
		h := r.Handle(ref(fmt.Sprint("k", i)))
		defer h.Close()
		v, err := h.Get(t.Context())
		want(t, v, err, "first")
		handles = append(handles, h)
	}
	time.Sleep(watchAfter) // some are written before the watch begins, some while it does, some after
	var all sync.WaitGroup
	for i := range secrets {
		all.Go(func() {
			for n := range writes {
				time.Sleep(5 * time.Millisecond)
				put(t, store, i, fmt.Sprint(n))
			}
		})
	}
	all.Wait()
	deadline := time.Now().Add(time.Minute)
	for _, h := range handles {
		for {
			v, err := h.Get(t.Context())
			if text(t, v, err) == fmt.Sprint(writes-1) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%v has %s, which is not the last", h.Ref(), text(t, v, err))
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

func put(t testing.TB, store *memory.Backend, i int, value string) {
	req := backend.Request{ID: fmt.Sprint("k", i)}
	if _, err := store.Put(t.Context(), req, backend.Value{Secret: backend.NewSecretString(value)}, backend.Condition{}); err != nil {
		t.Error(err)
	}
}
