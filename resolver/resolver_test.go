package resolver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/credresolve/credresolve/adapters/memory"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// flaky is a store with faults that a memory store has none of: it takes time, fails, and counts calls.
type flaky struct {
	calls atomic.Int64
	get   func(ctx context.Context, req backend.Request) (*backend.Credential, error)
}

func (b *flaky) Get(ctx context.Context, req backend.Request) (*backend.Credential, error) {
	b.calls.Add(1)
	return b.get(ctx, req)
}

// slow answers every id with its own name after d.
func slow(d time.Duration) *flaky {
	return &flaky{get: func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
		return plain(req.ID), pause(ctx, d)
	}}
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func plain(text string) *backend.Credential {
	return &backend.Credential{Secret: backend.NewSecretString(text)}
}

// open gives a Resolver of one provider p, closed at the end of the test.
func open(t testing.TB, p Provider) *Resolver {
	t.Helper()
	return openAll(t, map[string]Provider{"p": p})
}

func openAll(t testing.TB, providers map[string]Provider) *Resolver {
	t.Helper()
	r, err := New(Config{Providers: providers})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return r
}

func text(t testing.TB, v *Value, err error) string {
	t.Helper()
	if err != nil {
		t.Fatalf("unexpected error: %v", err)
	}
	return string(v.Secret().Reveal())
}

func want(t testing.TB, v *Value, err error, want string) {
	t.Helper()
	if got := text(t, v, err); got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func wantCode(t testing.TB, err error, code backend.Code) {
	t.Helper()
	if got := backend.CodeOf(err); got != code {
		t.Fatalf("got code %s (%v), want %s", got, err, code)
	}
}

func ref(id string) credref.Ref { return credref.Ref{Provider: "p", ID: id} }

func field(id, f string) credref.Ref { return credref.Ref{Provider: "p", ID: id, Field: f} }

func TestResolve(t *testing.T) {
	t.Parallel()
	store, err := memory.New(memory.Config{Values: map[string]string{
		"plain": "s3cret", "db": `{"user":"u","port":5432,"nested":{"a":[1,{"b/c":"x"}]}}`, "list": `["a",{"k":1.50}]`,
	}})
	if err != nil {
		t.Fatal(err)
	}
	r := openAll(t, map[string]Provider{"p": {Backend: store}, "other": {Backend: slow(0)}})
	for _, c := range []struct {
		ref  credref.Ref
		want string
		code backend.Code
		text string // of the error
	}{
		{ref: ref("plain"), want: "s3cret"},
		{ref: ref("db"), want: `{"user":"u","port":5432,"nested":{"a":[1,{"b/c":"x"}]}}`},
		{ref: field("db", "user"), want: "u"},
		{ref: field("db", "port"), want: "5432"},
		{ref: field("db", "/port"), want: "5432"},
		{ref: field("db", "nested"), want: `{"a":[1,{"b/c":"x"}]}`},
		{ref: field("db", "/nested/a/1/b~1c"), want: "x"},
		{ref: field("db", "/nested/a/1"), want: `{"b/c":"x"}`},
		{ref: field("list", "/1/k"), want: "1.50"},
		{ref: field("list", "/0"), want: "a"},
		{ref: field("list", "/01"), code: backend.CodeNotFound, text: "no element"},
		{ref: field("db", "usr"), code: backend.CodeNotFound, text: `no field "usr"; there are: nested, port, user; did you mean "user"?`},
		{ref: field("db", "/nested/x"), code: backend.CodeNotFound, text: "there are: a"},
		{ref: field("db", "/user/x"), code: backend.CodeNotFound, text: "neither a JSON object nor a list"},
		{ref: field("plain", "x"), code: backend.CodeNotFound, text: "no fields"},
		{ref: ref("none"), code: backend.CodeNotFound, text: "cred://p/none: "},
		{ref: credref.Ref{Provider: "P", ID: "topsecret"}, code: backend.CodeUsage, text: "provider must match"},
		{ref: credref.Ref{Provider: "zzz", ID: "x"}, code: backend.CodeInvalidConfig, text: `unknown provider "zzz"; see: credresolve providers`},
		{ref: credref.Ref{Provider: "othr", ID: "x"}, code: backend.CodeInvalidConfig, text: `unknown provider "othr"; did you mean "other"?`},
		{ref: credref.Ref{Provider: "p", ID: "plain", Version: "7"}, code: backend.CodeNotFound},
	} {
		t.Run(c.ref.String(), func(t *testing.T) {
			for range 2 { // from the store, then from the cache
				v, err := r.Resolve(t.Context(), c.ref)
				all := r.ResolveAll(t.Context(), []credref.Ref{c.ref, c.ref})
				if c.code == "" {
					want(t, v, err, c.want)
					want(t, all[1].Value, all[1].Err, c.want)
					continue
				}
				wantCode(t, err, c.code)
				wantCode(t, all[0].Err, c.code)
				var re *RefError
				if !errors.As(err, &re) || re.Ref != c.ref {
					t.Errorf("%#v is no RefError of the ref", err)
				}
				if !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "topsecret") {
					t.Errorf("error %q, want %q in it", err, c.text)
				}
			}
		})
	}
}

func TestTenFieldsAreOneFetch(t *testing.T) {
	t.Parallel()
	fields := map[string]backend.Secret{}
	var refs []credref.Ref
	for i := range 10 {
		name := fmt.Sprint("f", i)
		fields[name] = backend.NewSecretString(name)
		refs = append(refs, field("db", name))
	}
	store := &flaky{get: func(context.Context, backend.Request) (*backend.Credential, error) {
		return &backend.Credential{Fields: fields}, nil
	}}
	r := open(t, Provider{Backend: store})
	for i, out := range r.ResolveAll(t.Context(), refs) {
		want(t, out.Value, out.Err, fmt.Sprint("f", i))
		v, err := r.Resolve(t.Context(), refs[i])
		want(t, v, err, fmt.Sprint("f", i))
	}
	if n, size := store.calls.Load(), r.Stats().Entries; n != 1 || size != 1 {
		t.Errorf("%d calls, %d entries; want one each", n, size)
	}
	_, err := r.Resolve(t.Context(), ref("db"))
	wantCode(t, err, backend.CodeFieldRequired)
}

func TestOneCallForAllWhoMiss(t *testing.T) {
	t.Parallel()
	for range 50 {
		store := slow(2 * time.Millisecond)
		r := open(t, Provider{Backend: store})
		var wg sync.WaitGroup
		for i := range 2000 {
			if i == 1000 {
				time.Sleep(2 * time.Millisecond) // the late ones arrive as the call returns
			}
			wg.Go(func() {
				if v, err := r.Resolve(context.Background(), ref("k")); err != nil || v.Secret().Len() != 1 {
					t.Errorf("got %v, %v", v, err)
				}
			})
		}
		wg.Wait()
		if n := store.calls.Load(); n != 1 {
			t.Fatalf("%d calls, want 1", n)
		}
	}
}

// Those who miss together for one subject share a call, and share none with another subject.
func TestOneCallForEachSubject(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &flaky{get: func(ctx context.Context, req backend.Request) (*backend.Credential, error) {
			return plain("of " + req.Subject.Tenant), pause(ctx, time.Second)
		}}
		r := open(t, Provider{Backend: store, Scope: []Scope{ScopeTenant}})
		began := time.Now()
		var all sync.WaitGroup
		for i := range 300 {
			tenant := []string{"", "a", "b"}[i%3]
			all.Go(func() {
				v, err := r.For(credref.Subject{Tenant: tenant}).Resolve(t.Context(), ref("k"))
				want(t, v, err, "of "+tenant)
			})
		}
		all.Wait()
		if n := store.calls.Load(); n != 3 || time.Since(began) != time.Second {
			t.Errorf("%d calls in %v, want one of each subject, at once", n, time.Since(began))
		}
	})
}

// twoFields answers with a structured secret that has two fields.
func twoFields(password string) func(context.Context, backend.Request) (*backend.Credential, error) {
	return func(context.Context, backend.Request) (*backend.Credential, error) {
		return &backend.Credential{Fields: map[string]backend.Secret{
			"password": backend.NewSecretString(password), "user": backend.NewSecretString("u"),
		}}, nil
	}
}

func TestHitAllocatesNothing(t *testing.T) {
	r := open(t, Provider{Backend: slow(0)})
	ctx, k := t.Context(), ref("k")
	h, view := r.Handle(k), r.For(credref.Subject{Tenant: "t"})
	defer h.Close()
	all := func() {
		if v, err := r.Resolve(ctx, k); v == nil || err != nil {
			t.Fatal(err)
		}
		if v, err := h.Get(ctx); v == nil || err != nil {
			t.Fatal(err)
		}
		r.Cached(&k) // nil now and then, while the clock sleeps
		view.Cached(&k)
	}
	all()
	if n := testing.AllocsPerRun(1000, all); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
