package sealed

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/credresolve/credresolve/adapters/memory"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
)

// process is a sidecar as far as it matters here: a resolver and its keeper.
type process struct {
	*resolver.Resolver
	t      *testing.T
	keeper *Keeper
	n      int
	warned error
}

// store gives a store with these secrets; with none it is dead.
func store(t *testing.T, of ...string) resolver.Provider {
	t.Helper()
	values := map[string]string{}
	for _, id := range of {
		values[id] = canary + "-" + id
	}
	b, err := memory.New(memory.Config{Values: values})
	must(t, err)
	if len(of) == 0 {
		must(t, b.Close())
	}
	return resolver.Provider{Backend: b, Digest: "same", TTL: time.Hour, Retries: -1}
}

func start(t *testing.T, path string, providers map[string]resolver.Provider) *process {
	t.Helper()
	p := &process{t: t}
	var err error
	p.Resolver, err = resolver.New(resolver.Config{Providers: providers, OnChange: func(c resolver.Change) { p.keeper.Changed(c) }})
	must(t, err)
	t.Cleanup(func() { _ = p.Close() })
	p.keeper = Open(Options{Path: path, Source: p.Resolver, Key: goodKey})
	p.n, p.warned = p.keeper.Load(t.Context())
	return p
}

// kill ends p without a last word.
func (p *process) kill() {
	p.t.Helper()
	abandon(p.keeper)
	must(p.t, p.Close())
}

// get gives the value of id, and whether it is stale.
func (p *process) get(provider, id string) (text string, stale bool, err error) {
	v, err := p.Resolve(context.Background(), credref.Ref{Provider: provider, ID: id})
	if err != nil {
		return "", false, err
	}
	return string(v.Secret().Reveal()), v.Stale(), nil
}

func (p *process) want(provider, id string, stale bool) {
	p.t.Helper()
	text, is, err := p.get(provider, id)
	if err != nil || text != canary+"-"+id || is != stale {
		p.t.Errorf("%s/%s: stale %v, %v; want stale %v", provider, id, is, err, stale)
	}
}

func (p *process) wantNot(provider, id string) {
	p.t.Helper()
	if _, _, err := p.get(provider, id); !errors.Is(err, backend.ErrUnavailable) {
		p.t.Errorf("%s/%s: %v, want that the store is unavailable", provider, id, err)
	}
}

func one(p resolver.Provider) map[string]resolver.Provider {
	return map[string]resolver.Provider{"app": p}
}

func TestOutageAfterRestart(t *testing.T) {
	t.Parallel()
	path := tempPath(t)
	p := start(t, path, one(store(t, "a", "b")))
	p.want("app", "a", false)
	p.want("app", "b", false)
	must(t, p.keeper.Flush(t.Context()))
	clean(t, path, true)
	p.kill()

	p = start(t, path, one(store(t)))
	if p.n != 2 || p.warned != nil {
		t.Fatalf("restored %d, %v", p.n, p.warned)
	}
	p.want("app", "a", true)
	p.want("app", "b", true)
	p.wantNot("app", "c")
	must(t, p.keeper.Close(t.Context()))
	must(t, p.Close())

	// The outage goes on, and the process is started again: nothing is lost by having been restored.
	p = start(t, path, one(store(t)))
	p.want("app", "a", true)
	p.kill()

	// The store is back.
	p = start(t, path, one(store(t, "a", "b")))
	p.want("app", "a", false)
	p.kill()
}

// Each way in which a value ends before the kill keeps it from coming back after it.
func TestEndedIsNotRestored(t *testing.T) {
	t.Parallel()
	a := credref.Ref{Provider: "app", ID: "a"}
	for name, end := range map[string]func(t *testing.T, p *process, b backend.Writer){
		"revoke": func(t *testing.T, p *process, _ backend.Writer) {
			// The store has nothing to revoke, and of what was restored alone there is nothing to tell it.
			if err := p.Revoke(t.Context(), a); !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, backend.ErrNotFound) {
				t.Error(err)
			}
		},
		"forget":     func(_ *testing.T, p *process, _ backend.Writer) { p.Forget(a) },
		"wrote":      func(_ *testing.T, p *process, _ backend.Writer) { p.Wrote(a) },
		"invalidate": func(_ *testing.T, p *process, _ backend.Writer) { p.Invalidate("app", "a") },
		"not found": func(t *testing.T, p *process, b backend.Writer) {
			must(t, b.Delete(t.Context(), backend.Request{ID: "a"}, backend.Condition{}))
			time.Sleep(1100 * time.Millisecond) // within a second of a fetch there is no other
			if o := p.ResolveWith(t.Context(), []credref.Ref{a}, resolver.Demand{NoCache: true}); !errors.Is(o[0].Err, backend.ErrNotFound) {
				t.Error(o[0].Err)
			}
		},
	} {
		for _, restored := range []bool{false, true} {
			t.Run(name+map[bool]string{true: " after a restart"}[restored], func(t *testing.T) {
				t.Parallel()
				path := tempPath(t)
				live := store(t, "a", "b")
				p := start(t, path, one(live))
				p.want("app", "a", false)
				p.want("app", "b", false)
				must(t, p.keeper.Flush(t.Context()))
				if restored { // it ends in a process that knows it from the file alone
					p.kill()
					live = store(t, "a", "b")
					p = start(t, path, one(live))
				}
				end(t, p, live.Backend.(backend.Writer))
				must(t, p.keeper.Flush(t.Context()))
				rem, err := p.keeper.read(t.Context()) // the bytes on disk, decrypted
				must(t, err)
				for _, kept := range rem {
					if kept.Ref == a {
						t.Error("the file holds it")
					}
				}
				if len(rem) != 1 {
					t.Errorf("the file holds %d secrets", len(rem))
				}
				p.kill()

				p = start(t, path, one(store(t)))
				p.wantNot("app", "a")
				p.want("app", "b", true)
				p.kill()
			})
		}
	}
}

// What ends is written without anybody asking for it.
func TestEndIsWrittenAtOnce(t *testing.T) {
	t.Parallel()
	path := tempPath(t)
	p := start(t, path, one(store(t, "a")))
	p.want("app", "a", false)
	must(t, p.keeper.Flush(t.Context()))
	p.Forget(credref.Ref{Provider: "app", ID: "a"})
	for deadline := time.Now().Add(keptDelay - time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the file still holds what ended")
		}
	}
	p.kill()
}

// A provider whose definition changed may be another store.
func TestAnotherDefinition(t *testing.T) {
	t.Parallel()
	path := tempPath(t)
	p := start(t, path, one(store(t, "a")))
	p.want("app", "a", false)
	must(t, p.keeper.Close(t.Context()))
	must(t, p.Close())
	other := store(t)
	other.Digest = "another"
	p = start(t, path, one(other))
	p.wantNot("app", "a")
	p.kill()
}

// What was restored of a store that is still dead outlives the writes that others cause.
func TestOthersWrite(t *testing.T) {
	t.Parallel()
	path := tempPath(t)
	p := start(t, path, map[string]resolver.Provider{"app": store(t, "a"), "web": store(t, "w")})
	p.want("app", "a", false)
	must(t, p.keeper.Close(t.Context()))
	must(t, p.Close())
	for range 2 {
		p = start(t, path, map[string]resolver.Provider{"app": store(t), "web": store(t, "w")})
		p.want("web", "w", false)
		must(t, p.keeper.Flush(t.Context()))
		p.kill()
	}
	p = start(t, path, map[string]resolver.Provider{"app": store(t), "web": store(t)})
	p.want("app", "a", true)
	p.want("web", "w", true)
	p.kill()
}

// leasing gives credentials with a lease, which are revoked at the store with it.
type leasing struct{ backend.Backend }

func (l leasing) Get(ctx context.Context, req backend.Request) (*backend.Credential, error) {
	c, err := l.Backend.Get(ctx, req)
	if err != nil {
		return nil, err
	}
	leased := *c
	leased.Lease = &backend.Lease{ID: "l", Duration: time.Hour}
	return &leased, nil
}

func TestLeasesAndSessionsAreNotKept(t *testing.T) {
	t.Parallel()
	path := tempPath(t)
	scoped, leased := store(t, "s"), store(t, "l")
	scoped.Scope = []resolver.Scope{resolver.ScopeSession}
	leased.Backend = leasing{leased.Backend}
	p := start(t, path, map[string]resolver.Provider{"app": store(t, "a"), "mine": scoped, "db": leased})
	p.want("app", "a", false)
	p.want("db", "l", false)
	if _, err := p.For(credref.Subject{Session: "s1"}).Resolve(t.Context(), credref.Ref{Provider: "mine", ID: "s"}); err != nil {
		t.Fatal(err)
	}
	must(t, p.keeper.Flush(t.Context()))
	p.kill()
	got, warning := load(t, Options{Path: path})
	if ids(got) != "a" || warning != nil {
		t.Errorf("kept %q, %v", ids(got), warning)
	}
}
