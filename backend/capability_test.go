package backend_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credresolve/credresolve/adapters/memory"
	"github.com/credresolve/credresolve/backend"
)

// plain has no capability: it answers each id with its name, but for "nope".
type plain struct{ calls, most, now atomic.Int64 }

func (p *plain) Get(_ context.Context, req backend.Request) (*backend.Credential, error) {
	p.calls.Add(1)
	if n := p.now.Add(1); n > p.most.Load() {
		p.most.Store(n)
	}
	defer p.now.Add(-1)
	time.Sleep(time.Millisecond)
	if req.ID == "nope" {
		return nil, backend.ErrNotFound
	}
	return &backend.Credential{Secret: backend.NewSecretString(req.ID)}, nil
}

// short is a batch backend that loses a result, none one that has no batch in its configuration.
type short struct{ plain }

func (*short) GetBatch(context.Context, []backend.Request) ([]backend.Result, error) {
	return make([]backend.Result, 1), nil
}

type none struct{ plain }

func (*none) GetBatch(context.Context, []backend.Request) ([]backend.Result, error) {
	return nil, fmt.Errorf("here: %w", errors.ErrUnsupported)
}

func TestGetBatchWithoutABatchCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reqs := make([]backend.Request, 100)
		for i := range reqs {
			reqs[i].ID = fmt.Sprint("id", i/2) // each twice
		}
		reqs[7].ID = "nope"
		p := &none{}
		results, err := backend.GetBatch(t.Context(), p, reqs)
		if err != nil || len(results) != len(reqs) {
			t.Fatalf("%d results, %v", len(results), err)
		}
		for i, r := range results {
			if i == 7 {
				if !errors.Is(r.Err, backend.ErrNotFound) {
					t.Errorf("result 7: %v", r.Err)
				}
			} else if r.Err != nil || string(r.Credential.Secret.Reveal()) != reqs[i].ID {
				t.Errorf("result %d: %v, %v", i, r.Credential, r.Err)
			}
		}
		if most := p.most.Load(); most < 2 || most > 16 {
			t.Errorf("%d calls at once", most)
		}
	})
}

func TestGetBatchRefusesTheWrongNumberOfResults(t *testing.T) {
	t.Parallel()
	if _, err := backend.GetBatch(t.Context(), &short{}, make([]backend.Request, 2)); backend.CodeOf(err) != backend.CodeInternal {
		t.Errorf("got %v", err)
	}
}

func TestFallbacks(t *testing.T) {
	t.Parallel()
	ctx, p := t.Context(), &plain{}
	have := &backend.Credential{Secret: backend.NewSecretString("a")}
	_, asWriter := backend.AsWriter(p)
	_, asLogin := backend.AsLogin(p)
	_, renew := backend.Renew(ctx, p, backend.Lease{Renewable: true}, 0)
	var list error
	for _, err := range backend.List(ctx, p, "") {
		list = err
	}
	for name, err := range map[string]error{"probe": backend.Probe(ctx, p), "write": asWriter, "login": asLogin, "renew": renew,
		"revoke": backend.Revoke(ctx, p, backend.Request{}, have), "list": list} {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v, want ErrUnsupported", name, err)
		}
	}
	if g, err := backend.Refresh(ctx, p, backend.Request{ID: "a"}, &backend.Grant{Credential: have}); err != nil || g.Credential == nil {
		t.Errorf("refresh: %v, %v", g, err)
	}
	if found, known, err := backend.ParseFile(ctx, p, "f", have.Secret); known || found != nil || err != nil {
		t.Errorf("parse: %v, %v, %v", found, known, err)
	}
	if changed, got, err := backend.Changed(ctx, p, backend.Request{ID: "a"}, have); changed || got == nil || err != nil {
		t.Errorf("the same secret: %v, %v, %v", changed, got, err)
	}
	if changed, got, err := backend.Changed(ctx, p, backend.Request{ID: "b"}, have); !changed || got == nil || err != nil {
		t.Errorf("another secret: %v, %v, %v", changed, got, err)
	}
	if caps := backend.Capabilities(p); caps != nil {
		t.Errorf("capabilities: %v", caps)
	}
	if d := backend.Describe(p); d != (backend.Description{}) {
		t.Errorf("description: %+v", d)
	}
}

func store(t *testing.T, values map[string]string) *memory.Backend {
	t.Helper()
	m, err := memory.New(memory.Config{Values: values})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestChangedAsksForTheVersionAlone(t *testing.T) {
	t.Parallel()
	m := store(t, map[string]string{"a": "1"})
	have, err := m.Get(t.Context(), backend.Request{ID: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if changed, got, err := backend.Changed(t.Context(), m, backend.Request{ID: "a"}, have); changed || got != nil || err != nil {
		t.Errorf("unchanged: %v, %v, %v", changed, got, err)
	}
	if _, err := m.Put(t.Context(), backend.Request{ID: "a"}, backend.Value{Secret: backend.NewSecretString("2")}, backend.Condition{}); err != nil {
		t.Fatal(err)
	}
	if changed, got, err := backend.Changed(t.Context(), m, backend.Request{ID: "a"}, have); !changed || got != nil || err != nil {
		t.Errorf("changed: %v, %v, %v", changed, got, err)
	}
	if caps := backend.Capabilities(m); !slices.Equal(caps, []string{"batch", "probe", "check", "write", "list", "watch"}) {
		t.Errorf("capabilities: %v", caps)
	}
}

// unwatched hides that a store can watch, so that it is looked at each interval.
type unwatched struct{ b *memory.Backend }

func (u unwatched) Get(ctx context.Context, req backend.Request) (*backend.Credential, error) {
	return u.b.Get(ctx, req)
}

func TestWatchByLooking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := store(t, map[string]string{"a": "1"})
		ctx, cancel := context.WithCancel(t.Context())
		var calls []string
		done := make(chan error)
		go func() {
			done <- backend.Watch(ctx, unwatched{m}, []backend.Request{{ID: "a"}, {ID: "b"}}, time.Second, func(r backend.Request) { calls = append(calls, r.ID) })
		}()
		put := func(id string) {
			if _, err := m.Put(ctx, backend.Request{ID: id}, backend.Value{Secret: backend.NewSecretString(id + "2")}, backend.Condition{}); err != nil {
				t.Error(err)
			}
			time.Sleep(1500 * time.Millisecond)
			synctest.Wait()
		}
		time.Sleep(5 * time.Second)
		put("a")
		put("b")
		if err := m.Delete(ctx, backend.Request{ID: "a"}, backend.Condition{}); err != nil {
			t.Error(err)
		}
		time.Sleep(1500 * time.Millisecond)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch ended with %v", err)
		}
		if want := []string{"a", "b", "a", "b", "a"}; !slices.Equal(calls, want) {
			t.Errorf("calls for %v, want %v", calls, want)
		}
	})
}

func TestPutField(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	m := store(t, map[string]string{"db": `{"user":"u","port":1}`, "plain": "text"})
	put := func(id, field string, cond backend.Condition) error {
		_, err := backend.PutField(ctx, m, backend.Request{ID: id}, field, backend.NewSecretString("new"), cond)
		return err
	}
	if err := put("db", "user", backend.Condition{Absent: true}); !errors.Is(err, backend.ErrConflict) {
		t.Errorf("a field that exists: %v", err)
	}
	if err := put("db", "password", backend.Condition{Absent: true}); err != nil {
		t.Error(err)
	}
	if err := put("db", "user", backend.Condition{Version: "1"}); !errors.Is(err, backend.ErrConflict) {
		t.Errorf("a version that is gone: %v", err)
	}
	if err := put("plain", "x", backend.Condition{}); !errors.Is(err, backend.ErrConflict) {
		t.Errorf("a plain secret: %v", err)
	}
	if err := put("fresh", "x", backend.Condition{}); err != nil {
		t.Error(err)
	}
	if err := put("nope", "x", backend.Condition{Version: "3"}); !errors.Is(err, backend.ErrConflict) {
		t.Errorf("a version of what is not there: %v", err)
	}
	c, err := m.Get(ctx, backend.Request{ID: "db"})
	if err != nil {
		t.Fatal(err)
	}
	out, err := backend.FieldsToJSON(c.Fields)
	if err != nil || string(out) != `{"password":"new","port":1,"user":"u"}` {
		t.Errorf("%s, %v", out, err)
	}
}

func TestFieldsFromJSON(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`{"a":"x","n":1.50,"b":true,"z":null,"o":{ "k" : [1, 2] }}`: `{"a":"x","b":true,"n":1.50,"o":{"k":[1,2]},"z":null}`,
		"  {}\n":                          `{}`,
		`{"<&>":"<script>"}`:              `{"<&>":"<script>"}`,
		`{"a":1,"a":2}`:                   `{"a":2}`,
		`{"big":12345678901234567890123}`: `{"big":12345678901234567890123}`,
	} {
		fields, ok := backend.FieldsFromJSON([]byte(in))
		out, err := backend.FieldsToJSON(fields)
		if !ok || err != nil || string(out) != want {
			t.Errorf("%s gave %s, %v, %v; want %s", in, out, ok, err, want)
		}
	}
	for _, in := range []string{"", "x", "[1]", "null", `"a"`, `{"a":1} x`, `{"a":`, "{}{}"} {
		if fields, ok := backend.FieldsFromJSON([]byte(in)); ok || fields != nil {
			t.Errorf("%q counts as an object", in)
		}
	}
}

func TestRegistry(t *testing.T) {
	t.Parallel()
	r := backend.NewRegistry(memory.Kind(), backend.Kind{Name: "vault"})
	if _, err := r.Lookup("memroy"); !errors.Is(err, backend.ErrInvalidConfig) || !strings.Contains(err.Error(), `known kinds: memory, vault; did you mean "memory"?`) {
		t.Errorf("Lookup: %v", err)
	}
	if _, err := r.Lookup("x"); err == nil || strings.Contains(err.Error(), "did you mean") {
		t.Errorf("Lookup of what is near to nothing: %v", err)
	}
	k, err := r.Lookup("memory")
	if err != nil {
		t.Fatal(err)
	}
	c := k.NewConfig().(*memory.Config)
	c.Values = map[string]string{"a": "b"}
	b, err := k.Open(c, backend.Host{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := b.Get(t.Context(), backend.Request{ID: "a"}); err != nil || string(got.Secret.Reveal()) != "b" {
		t.Errorf("%v, %v", got, err)
	}
	defer func() {
		if recover() == nil {
			t.Error("a kind registered twice does not panic")
		}
	}()
	backend.NewRegistry(memory.Kind(), memory.Kind())
}

func TestSource(t *testing.T) {
	t.Parallel()
	var zero backend.Source
	if s, rev, err := zero.Get(t.Context()); !zero.IsZero() || !s.IsZero() || rev != "" || err != nil {
		t.Error("the zero Source gives something")
	}
	zero.Reject("x")
	lit := backend.Literal(backend.NewSecretString("l"))
	if s, _, err := lit.Get(t.Context()); !lit.IsLiteral() || lit.IsZero() || string(s.Reveal()) != "l" || err != nil {
		t.Error("a literal")
	}
	var rejected string
	src := backend.NewSource(func(context.Context) (backend.Secret, string, error) { return backend.NewSecretString("s"), "r1", nil },
		func(rev string) { rejected = rev })
	if _, rev, _ := src.Get(t.Context()); rev != "r1" || src.IsLiteral() {
		t.Error("a source")
	}
	src.Reject("r1")
	if rejected != "r1" {
		t.Error("the rejection is lost")
	}
	if out := fmt.Sprintf("%+v %#v", lit, struct{ s backend.Source }{lit}); strings.Contains(out, canary) {
		t.Errorf("a Source shows its secret: %s", out)
	}
}
