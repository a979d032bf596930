package resolver

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// rotating is a store in the midst of a rotation: it has a current version, and others that may be in force.
type rotating struct {
	mu      sync.Mutex
	current string
	others  []string
	reads   int // of the current version
	beside  int // of the others
	slow    time.Duration
}

func (s *rotating) set(current string, others ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current, s.others = current, others
}

func (s *rotating) wantCalls(t testing.TB, reads, beside int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reads != reads || s.beside != beside {
		t.Fatalf("%d reads, %d of the versions beside; want %d and %d", s.reads, s.beside, reads, beside)
	}
	s.reads, s.beside = 0, 0
}

func (s *rotating) Get(ctx context.Context, _ backend.Request) (*backend.Credential, error) {
	s.mu.Lock()
	s.reads++
	c := plain(s.current)
	s.mu.Unlock()
	return c, pause(ctx, s.slow)
}

func (s *rotating) GetRotation(ctx context.Context, _ backend.Request, _ *backend.Credential) ([]*backend.Credential, error) {
	s.mu.Lock()
	s.beside++
	var out []*backend.Credential
	for _, o := range s.others {
		out = append(out, plain(o))
	}
	s.mu.Unlock()
	return out, pause(ctx, s.slow)
}

// Who is refused during a rotation gets the versions that the store does not call current, one after the other.
func TestReportFindsTheWorkingVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &rotating{slow: 20 * time.Millisecond}
		s.set("current", "current", "pending", "previous") // AWS may call one version both
		r := open(t, Provider{Backend: s, TTL: 5 * time.Minute})
		v, err := r.Resolve(t.Context(), ref("k"))
		want(t, v, err, "current")
		s.wantCalls(t, 1, 0)

		first, err := r.Report(t.Context(), ref("k"), v.Revision())
		want(t, first, err, "pending")
		s.wantCalls(t, 1, 1)
		again, err := r.Resolve(t.Context(), ref("k"))
		want(t, again, err, "pending") // for everybody
		late, err := r.Report(t.Context(), ref("k"), v.Revision())
		want(t, late, err, "pending")
		second, err := r.Report(t.Context(), ref("k"), first.Revision())
		want(t, second, err, "previous")
		s.wantCalls(t, 0, 0)

		none, err := r.Report(t.Context(), ref("k"), second.Revision())
		want(t, none, err, "previous")
		if none.Revision() != second.Revision() {
			t.Error("no version is left, and another is given")
		}
		if none, err = r.Report(t.Context(), ref("k"), second.Revision()); err != nil || none.Revision() != second.Revision() {
			t.Errorf("no version is left, and the next reporter is not told so: %v", err)
		}
		now, err := r.Resolve(t.Context(), ref("k"))
		want(t, now, err, "current") // all are refused: who is right is the store
		none, err = r.Report(t.Context(), ref("k"), now.Revision())
		want(t, none, err, "current")
		s.wantCalls(t, 0, 0)

		s.set("newer", "current")
		time.Sleep(reportEvery)
		v, err = r.Report(t.Context(), ref("k"), now.Revision())
		want(t, v, err, "newer")
		s.wantCalls(t, 1, 0)
	})
}

// What was refused does not come back by a refresh while the rotation lasts, and does when that is long ago.
func TestRefusedIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &rotating{}
		s.set("new", "old")
		r := open(t, Provider{Backend: s, TTL: time.Minute})
		h := r.Handle(ref("k"))
		defer h.Close()
		v, err := h.Get(t.Context())
		want(t, v, err, "new")
		v, err = r.Report(t.Context(), ref("k"), v.Revision())
		want(t, v, err, "old")
		s.wantCalls(t, 2, 1)
		for range 8 {
			time.Sleep(time.Minute)
			v, err = h.Get(t.Context())
			want(t, v, err, "old")
		}
		time.Sleep(rotationWindow - 7*time.Minute)
		v, err = h.Get(t.Context())
		want(t, v, err, "new")
	})
}

// A thousand who are refused at once, again and again, cost one look at the store in an interval.
func TestReportersShareOneLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &rotating{slow: 50 * time.Millisecond}
		s.set("a", "b", "c")
		r := open(t, Provider{Backend: s, TTL: time.Hour})
		events := r.Watch(t.Context(), ref("k"))
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() { // each finds that c alone works
				v, err := r.Resolve(t.Context(), ref("k"))
				for range 5 {
					if err != nil || text(t, v, err) == "c" {
						break
					}
					v, err = r.Report(t.Context(), ref("k"), v.Revision())
				}
				want(t, v, err, "c")
			})
		}
		wg.Wait()
		s.wantCalls(t, 2, 1)
		for ev := range events {
			if ev.Kind == EventRotated {
				break
			}
		}
	})
}

// A report that finds a fetch under way does not take for an answer what that may have read before.
func TestReportDuringAFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &rotating{slow: time.Second}
		s.set("a", "b")
		r := open(t, Provider{Backend: s, TTL: time.Minute})
		v, err := r.Resolve(t.Context(), ref("k"))
		want(t, v, err, "a")
		go r.ResolveWith(t.Context(), refs(1), Demand{})
		time.Sleep(2 * time.Second)
		go r.ResolveWith(t.Context(), []credref.Ref{ref("k")}, Demand{NoCache: true})
		synctest.Wait()
		v, err = r.Report(t.Context(), ref("k"), v.Revision())
		want(t, v, err, "b")
	})
}

// rejecting is a store of tokens, which gives a successor of one that was refused.
type rejecting struct {
	flaky
	rejected atomic.Int64
	token    atomic.Int64
}

func (s *rejecting) Reject(_ context.Context, _ backend.Request, have *backend.Credential) error {
	s.rejected.Add(1)
	if slices.Equal(have.Secret.Reveal(), []byte(tokenName(s.token.Load()))) {
		s.token.Add(1)
	}
	return nil
}

func tokenName(n int64) string { return "token-" + string(rune('a'+n)) }

// A token that was refused before its time has one successor, whoever tells of it.
func TestReportRejects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &rejecting{}
		s.get = func(ctx context.Context, _ backend.Request) (*backend.Credential, error) {
			c := plain(tokenName(s.token.Load()))
			return c, pause(ctx, 20*time.Millisecond)
		}
		r := open(t, Provider{Backend: s, TTL: time.Hour})
		v, err := r.Resolve(t.Context(), ref("k"))
		want(t, v, err, "token-a")
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				v, err := r.Report(t.Context(), ref("k"), v.Revision())
				want(t, v, err, "token-b")
			})
		}
		wg.Wait()
		if n := s.rejected.Load(); n != 1 || s.calls.Load() != 2 {
			t.Errorf("rejected %d times, %d calls", n, s.calls.Load())
		}
	})
}
