package resolver

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// guarded is a store that must not be used once it is closed, answers with whom it was asked for, and fails now and then.
type guarded struct {
	t      testing.TB
	under  atomic.Int64
	closed atomic.Bool
}

func (g *guarded) enter() func() {
	g.under.Add(1)
	if g.closed.Load() {
		g.t.Error("a closed backend was called")
	}
	return func() { g.under.Add(-1) }
}

func (g *guarded) Get(ctx context.Context, req backend.Request) (*backend.Credential, error) {
	defer g.enter()()
	if err := pause(ctx, time.Duration(rand.IntN(300))*time.Microsecond); err != nil {
		return nil, err
	}
	switch rand.IntN(20) {
	case 0:
		return nil, backend.Errorf(backend.CodeNotFound, "no")
	case 1:
		return nil, backend.Errorf(backend.CodeUnavailable, "no")
	case 2:
		return nil, backend.Errorf(backend.CodeDenied, "no")
	}
	c := plain(whose(req))
	if rand.IntN(2) == 0 {
		c.Lease = &backend.Lease{ID: "l", Duration: 5 * time.Second, Renewable: true}
	}
	return c, nil
}

func whose(req backend.Request) string {
	return strings.Join([]string{req.ID, req.Subject.Tenant, req.Subject.EndUser, req.Subject.Session, req.Subject.Plugin}, "|")
}

func (g *guarded) GetBatch(ctx context.Context, reqs []backend.Request) ([]backend.Result, error) {
	defer g.enter()()
	out := make([]backend.Result, len(reqs))
	for i, req := range reqs {
		out[i].Credential, out[i].Err = g.Get(ctx, req)
	}
	return out, nil
}

func (g *guarded) Renew(ctx context.Context, l backend.Lease, _ time.Duration) (backend.Lease, error) {
	defer g.enter()()
	return l, ctx.Err()
}

func (g *guarded) Revoke(ctx context.Context, _ backend.Request, _ *backend.Credential) error {
	defer g.enter()()
	return pause(ctx, 100*time.Microsecond)
}

func (g *guarded) Close() error {
	if g.closed.Swap(true) {
		g.t.Error("closed twice")
	}
	if n := g.under.Load(); n != 0 {
		g.t.Errorf("closed under %d calls", n)
	}
	return nil
}

// TestEverythingAtOnce does all that can be done to a Resolver from many goroutines, and closes it under them. Nobody may
// hang, or be given what is another's.
func TestEverythingAtOnce(t *testing.T) {
	t.Parallel()
	config := func() Config {
		provider := func(scope ...Scope) Provider {
			return Provider{
				Backend: &guarded{t: t}, Digest: fmt.Sprint(rand.IntN(3)), Scope: scope, Concurrency: 2, TTL: 2 * time.Millisecond,
				MaxStale: time.Millisecond, NegativeTTL: time.Millisecond, Breaker: Breaker{Failures: -1},
			}
		}
		scope := [][]Scope{nil, {ScopeTenant}, {ScopeTenant, ScopePlugin}}
		p, q := provider(scope[rand.IntN(3)]...), provider(ScopeTenant, ScopeEndUser)
		p.Digest += fmt.Sprint(len(p.Scope))
		return Config{Providers: map[string]Provider{"p": p, "q": q}, Cache: CacheLimits{Entries: 2 + rand.IntN(10)}}
	}
	r, err := New(config())
	if err != nil {
		t.Fatal(err)
	}
	check := func(s credref.Subject, ref credref.Ref, v *Value, err error) {
		if err != nil {
			if code := backend.CodeOf(err); code == backend.CodeInternal {
				t.Errorf("%v: %v", ref, err)
			}
			return
		}
		got := strings.Split(string(v.Secret().Reveal()), "|")
		of := func(i int, part string) bool { return got[i] == "" || got[i] == part }
		if got[0] != ref.ID || !of(1, s.Tenant) || !of(2, s.EndUser) || !of(3, s.Session) || !of(4, s.Plugin) {
			t.Errorf("%+v got %q for %v", s, got, ref)
		}
	}
	var wg sync.WaitGroup
	end := time.Now().Add(700 * time.Millisecond)
	for range 16 {
		wg.Go(func() {
			for time.Now().Before(end) {
				s := credref.Subject{Tenant: fmt.Sprint("t", rand.IntN(2)), Plugin: fmt.Sprint("x", rand.IntN(2)), EndUser: fmt.Sprint("u", rand.IntN(2))}
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.IntN(2000))*time.Microsecond)
				ref := credref.Ref{Provider: []string{"p", "q"}[rand.IntN(2)], ID: fmt.Sprint("k", rand.IntN(4))}
				view := r.For(s)
				switch rand.IntN(14) {
				case 0:
					view.Forget(ref)
				case 1:
					_ = view.Revoke(ctx, ref)
				case 2:
					r.Wrote(ref)
				case 3:
					if err := r.Apply(config()); err != nil {
						t.Error(err)
					}
				case 4:
					for range view.Watch(ctx) {
					}
				case 5, 6:
					for _, out := range view.ResolveAll(ctx, []credref.Ref{ref, {Provider: "p", ID: "k0"}, {Provider: "q", ID: "k1"}}) {
						check(s, out.Ref, out.Value, out.Err)
					}
				case 7:
					v, err := view.Resolve(ctx, ref)
					check(s, ref, v, err)
					if err == nil {
						v, err = view.Report(ctx, ref, v.Revision())
						check(s, ref, v, err)
					}
				case 8, 9:
					h := view.Handle(ref)
					for range 10 {
						v, err := h.Get(ctx)
						check(s, ref, v, err)
					}
					_ = h.Close()
				default:
					v, err := r.Resolve(credref.WithSubject(ctx, s), ref)
					check(s, ref, v, err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	for range 8 {
		wg.Go(func() {
			for range 3 {
				_, err := r.Resolve(context.Background(), ref("last"))
				if err != nil && backend.CodeOf(err) == backend.CodeInternal {
					t.Error(err)
				}
			}
		})
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if s := r.Stats(); s.Entries != 0 || s.FetchesUnder != 0 || s.OpenHandles != 0 {
		t.Errorf("left behind: %+v", s)
	}
}
