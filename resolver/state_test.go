package resolver

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// TestTransitions plays random histories, and finds every event of every credential to be a step of the table, from the state
// that the one before led to: none is illegal, and none is missing. Whenever nothing moves the last one tells how things are.
func TestTransitions(t *testing.T) {
	seen := map[transition]int{}
	rapid.Check(t, func(rt *rapid.T) {
		var failed any // as in TestModel
		synctest.Test(t, func(*testing.T) {
			defer func() { failed = recover() }()
			playTransitions(rt, seen)
		})
		if failed != nil {
			panic(failed)
		}
	})
	for _, step := range transitions {
		if seen[step] == 0 {
			t.Logf("not come across: %v", step)
		}
	}
}

func playTransitions(t *rapid.T, seen map[transition]int) {
	ids := []string{"plain", "token", "lease", "short"}
	// What the store does; it is asked by others than who says so.
	var fail atomic.Value
	var content atomic.Int64
	var refuseRevoke atomic.Bool
	fail.Store(backend.Code(""))
	store := &renewing{revoker: revoker{
		get: func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
			code, text := fail.Load().(backend.Code), fmt.Sprint("v", content.Load())
			if err := pause(ctx, 200*time.Millisecond); err != nil {
				return nil, err
			}
			if code != "" {
				return nil, backend.Errorf(code, "as told")
			}
			c := plain(text)
			switch req.ID {
			case "token":
				c.Expires = time.Now().Add(5 * time.Minute)
			case "lease":
				c.Lease = &backend.Lease{ID: text, Duration: 90 * time.Second, Renewable: true}
			case "short":
				c.Expires = time.Now().Add(2 * time.Second)
			}
			return c, nil
		},
		revoke: func(*backend.Credential) error {
			time.Sleep(100 * time.Millisecond)
			if refuseRevoke.Load() {
				return backend.Errorf(backend.CodeUnavailable, "as told")
			}
			return nil
		},
	}, renew: func(context.Context) error {
		if code := fail.Load().(backend.Code); code != "" {
			return backend.Errorf(code, "as told")
		}
		return nil
	}}
	ttl := rapid.SampledFrom([]time.Duration{time.Minute, 2 * time.Second, -1}).Draw(t, "ttl")
	config := Config{
		Providers: map[string]Provider{"p": {
			Backend: store, Digest: "d", TTL: ttl, MaxStale: rapid.SampledFrom([]time.Duration{0, 2 * time.Minute}).Draw(t, "max stale"), NegativeTTL: 5 * time.Second, Retries: -1,
			Breaker: Breaker{Failures: -1}, Scope: rapid.SampledFrom([][]Scope{nil, {ScopeSession, ScopeTenant}}).Draw(t, "scope"),
		}},
		Cache:    CacheLimits{Entries: rapid.SampledFrom([]int{1, 3, 100}).Draw(t, "entries")},
		OnChange: func(Change) {},
	}
	r, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	at := map[key]State{}
	wrong := ""
	r.hub.tap = func(k key, ev Event) {
		from := StateConfigured
		if s, known := at[k]; known {
			from = s
		}
		step := transition{from, ev.Kind, ev.State}
		if !slices.Contains(transitions[:], step) && wrong == "" {
			wrong = fmt.Sprintf("%s of %q: %s, by %s, to %s", k.id, k.whom(), from, ev.Kind, ev.State)
		}
		seen[step]++
		if served := ev.State != StateConfigured && ev.State != StateResolving && ev.State != StateRevoked && ev.State != StateAuthRequired; served && ev.Revision == "" {
			wrong = fmt.Sprintf("%s: served without a revision: %+v", k.id, ev)
		}
		at[k] = ev.State
	}
	go func() {
		for range r.Watch(context.Background()) {
		}
	}()
	synctest.Wait()
	session := credref.Subject{Tenant: "t", Session: "s"}
	drawView := func(t *rapid.T) *View {
		return r.For(rapid.SampledFrom([]credref.Subject{{}, {Tenant: "t"}, session}).Draw(t, "subject"))
	}
	drawRef := func(t *rapid.T) credref.Ref { return ref(rapid.SampledFrom(ids).Draw(t, "id")) }
	var handles []*Handle

	t.Repeat(map[string]func(*rapid.T){
		"resolve":              func(t *rapid.T) { _, _ = drawView(t).Resolve(context.Background(), drawRef(t)) },
		"resolve, and another": func(t *rapid.T) { _, _ = drawView(t).Resolve(context.Background(), drawRef(t)) },
		"resolve in the background": func(t *rapid.T) {
			view, one := drawView(t), drawRef(t)
			go func() { _, _ = view.Resolve(context.Background(), one) }()
		},
		"all": func(t *rapid.T) {
			drawView(t).ResolveAll(context.Background(), []credref.Ref{ref("plain"), ref("token"), ref("lease")})
		},
		"anew": func(t *rapid.T) {
			drawView(t).ResolveWith(context.Background(), []credref.Ref{drawRef(t)}, Demand{NoCache: true})
		},
		"long": func(t *rapid.T) {
			drawView(t).ResolveWith(context.Background(), []credref.Ref{drawRef(t)}, Demand{MinFreshness: time.Minute})
		},
		"report": func(t *rapid.T) {
			view, one := drawView(t), drawRef(t)
			if v, err := view.Resolve(context.Background(), one); err == nil {
				_, _ = view.Report(context.Background(), one, v.Revision())
			}
		},
		"handle": func(t *rapid.T) {
			h := drawView(t).Handle(drawRef(t))
			handles = append(handles, h)
			_, _ = h.Get(context.Background())
		},
		"close handles": func(*rapid.T) {
			for _, h := range handles {
				h.Close()
			}
			handles = nil
		},
		"fail": func(t *rapid.T) {
			fail.Store(rapid.SampledFrom([]backend.Code{
				backend.CodeUnavailable, backend.CodeThrottled, backend.CodeDenied, backend.CodeAuthRequired, backend.CodeNotFound, backend.CodeExpired, backend.CodeInternal,
			}).Draw(t, "code"))
		},
		"heal":   func(*rapid.T) { fail.Store(backend.Code("")) },
		"rotate": func(*rapid.T) { content.Add(1) },
		"forget": func(t *rapid.T) { r.Forget(drawRef(t)) },
		"wrote":  func(t *rapid.T) { r.Wrote(drawRef(t)) },
		"revoke": func(t *rapid.T) {
			refuseRevoke.Store(rapid.Bool().Draw(t, "refused"))
			_ = drawView(t).Revoke(context.Background(), drawRef(t))
		},
		"revoke in the background": func(t *rapid.T) {
			view, one := drawView(t), drawRef(t)
			go func() { _ = view.Revoke(context.Background(), one) }()
		},
		"end session":   func(*rapid.T) { _ = r.EndSession(context.Background(), "s") },
		"revoke leases": func(*rapid.T) { _, _ = r.RevokeLeases(context.Background()) },
		"restart":       func(*rapid.T) { r.Restore(r.Snapshot(), time.Hour) },
		"forget, and restore": func(t *rapid.T) {
			kept, one := r.Snapshot(), drawRef(t)
			r.Forget(one)
			r.Restore(kept, time.Hour)
		},
		"apply": func(t *rapid.T) {
			next := config
			p := config.Providers["p"]
			p.Digest = rapid.SampledFrom([]string{"d", "e"}).Draw(t, "digest")
			next.Providers = map[string]Provider{"p": p}
			if rapid.IntRange(0, 5).Draw(t, "gone") == 0 {
				next.Providers = nil
			}
			if err := r.Apply(next); err != nil {
				t.Fatal(err)
			}
		},
		"wait": func(t *rapid.T) {
			time.Sleep(time.Duration(rapid.Int64Range(0, int64(2*time.Minute)).Draw(t, "for")))
		},
		"wait a little": func(t *rapid.T) {
			time.Sleep(time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "for")))
		},
		"": func(t *rapid.T) {
			synctest.Wait()
			r.mu.Lock()
			defer r.mu.Unlock()
			if wrong != "" {
				t.Fatal(wrong)
			}
			for k, last := range at {
				is := r.state(k)
				over := last == StateRevoked || last == StateAuthRequired
				if is != last && (is != StateConfigured || !over) {
					t.Fatalf("%s of %q: the last event told of %s, and it is %s", k.id, k.whom(), last, is)
				}
			}
		},
	})
	for _, h := range handles {
		h.Close()
	}
}

// renewing is a store that renews leases too.
type renewing struct {
	revoker
	renew func(context.Context) error
}

func (s *renewing) Renew(ctx context.Context, l backend.Lease, _ time.Duration) (backend.Lease, error) {
	return l, s.renew(ctx)
}
