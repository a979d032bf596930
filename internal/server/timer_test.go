package server

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
)

// A request waits two seconds for its turn, not at all where many wait already, and no longer than its client.
func TestTurnOfARequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(config.ServeLimits{Requests: 1, Queue: 2})
		if err := g.enter(t.Context()); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		ended, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var all sync.WaitGroup
		wait := func(ctx context.Context, want error, after time.Duration) {
			all.Go(func() {
				if err := g.enter(ctx); !errors.Is(err, want) || time.Since(began) != after {
					t.Errorf("after %v: %v, want %v after %v", time.Since(began), err, want, after)
				}
			})
			synctest.Wait()
		}
		wait(t.Context(), errBusy, 2*time.Second)
		wait(ended, context.DeadlineExceeded, time.Second)
		wait(t.Context(), errBusy, 0)
		all.Wait()
		wait(t.Context(), nil, 3*time.Second)
		time.Sleep(time.Second)
		g.leave()
		all.Wait()
	})
}

// moody is a store that fails until it is told not to, and notes when it was asked.
type moody struct {
	began time.Time
	mu    sync.Mutex
	asked []time.Duration
	good  bool
}

func (m *moody) Get(context.Context, backend.Request) (*backend.Credential, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, time.Since(m.began))
	if !m.good {
		return nil, backend.Errorf(backend.CodeDenied, "as told")
	}
	return &backend.Credential{Secret: backend.NewSecretString("v-c4nary")}, nil
}

// What is declared and cannot be had is asked for at ever longer pauses, up to half a minute, until it is there: then it is ready.
func TestPausesOfThePrefetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &moody{began: time.Now()}
		from, err := resolver.New(resolver.Config{Providers: map[string]resolver.Provider{"p": {Backend: m}}})
		if err != nil {
			t.Fatal(err)
		}
		defer from.Close()
		var r readiness
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		told := 0
		done := make(chan struct{})
		go func() {
			defer close(done)
			ref := credref.Ref{Provider: "p", ID: "x"}
			r.fetch(ctx, from, []config.Prefetch{{Ref: ref}, {Ref: ref}}, func(credref.Ref, bool, error) { told++ })
		}()
		time.Sleep(3 * time.Minute)
		if ready, waiting := r.now(); ready || waiting != 1 {
			t.Errorf("ready %t, waiting for %d", ready, waiting)
		}
		m.mu.Lock()
		m.good = true
		var tries []time.Duration // a look is one ask or more, all at one moment
		for _, at := range m.asked {
			if len(tries) == 0 || at-tries[len(tries)-1] > 500*time.Millisecond {
				tries = append(tries, at)
			}
		}
		m.mu.Unlock()
		if len(tries) < 8 || tries[0] > prefetchJitter {
			t.Fatalf("it was asked at %v", tries)
		}
		pause := prefetchFirst
		for i := range len(tries) - 1 {
			if got := tries[i+1] - tries[i]; got < pause-time.Second/10 || got > pause+pause/4+time.Second/10 {
				t.Errorf("it was asked %v after the time before, want %v and a quarter at most", got, pause)
			}
			pause = min(2*pause, prefetchLongest)
		}
		<-done // without end of ctx
		if ready, _ := r.now(); !ready || told != 1 {
			t.Errorf("ready %t, told %d times", ready, told)
		}
		r.end()
		for _, h := range r.handles {
			_ = h.Close()
		}
		if ready, _ := r.now(); ready {
			t.Error("ready after its end")
		}
	})
}

// beats is a client of a stream.
type beats struct {
	began  time.Time
	header http.Header
	mu     sync.Mutex
	lines  []time.Duration
	until  []time.Duration // deadlines of the writes, from when they were set
}

func (s *beats) Header() http.Header { return s.header }
func (s *beats) WriteHeader(int)     {}
func (s *beats) Flush()              {}

func (s *beats) SetWriteDeadline(at time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.until = append(s.until, time.Until(at))
	return nil
}

func (s *beats) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if strings.HasPrefix(string(b), ":") {
		s.lines = append(s.lines, time.Since(s.began))
	}
	return len(b), nil
}

// A stream on which nothing happens says so every 15 seconds, each time with a new deadline for a client that does not read, and
// ends with its client or the server.
func TestHeartbeatOfAStream(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"client", "server"} {
		synctest.Test(t, func(t *testing.T) {
			s := new(Server)
			s.streams.Store(newStreams())
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/v1/watch", nil)
			if err != nil {
				t.Fatal(err)
			}
			out := &beats{began: time.Now(), header: http.Header{}}
			done := make(chan struct{})
			go func() {
				defer close(done)
				s.stream(&request{w: out, r: r, caller: &caller{}}, nil, nil, nil, nil)
			}()
			time.Sleep(time.Minute + time.Second)
			out.mu.Lock()
			if want := []time.Duration{0, heartbeat, 2 * heartbeat, 3 * heartbeat, 4 * heartbeat}; !slices.Equal(out.lines, want) {
				t.Errorf("lines at %v", out.lines)
			}
			if len(out.until) != len(out.lines) || slices.Max(out.until) != writeTimeout || slices.Min(out.until) != writeTimeout {
				t.Errorf("deadlines %v", out.until)
			}
			out.mu.Unlock()
			if by == "client" {
				cancel()
			} else {
				s.streams.Load().cancel()
			}
			<-done
		})
	}
}
