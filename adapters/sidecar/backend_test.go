package sidecar_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/credresolve/credresolve/adapters/memory"
	"github.com/credresolve/credresolve/adapters/sidecar"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/conformance"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/conformancetest"
	"github.com/credresolve/credresolve/internal/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type none struct{}

// Reach tells that the store touches nothing.
func (none) Reach() []backend.Reach { return nil }

// start runs a sidecar in this process whose provider m has store, and gives its socket and a client of it.
func start(t *testing.T, store backend.Backend) (socket string, c *client.Client) {
	t.Helper()
	dir := t.TempDir()
	socket = filepath.Join(dir, "run", "sock")
	path := filepath.Join(dir, "credresolve.yaml")
	if err := os.WriteFile(path, []byte("version: 1\nproviders:\n  m: {kind: held}\nserve:\n  audit: {to: off}\n  memory: {lock: off}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	kinds := backend.NewRegistry(backend.NewKind("held", "of a test", func(none, backend.Host) (backend.Backend, error) { return store, nil }))
	ready := make(chan struct{})
	s, err := server.Open(t.Context(), server.Options{
		Load: func(context.Context) (*config.File, error) { return config.Load(path, kinds) },
		Open: config.Options{
			StateDir:  filepath.Join(dir, "state"),
			LookupEnv: func(name string) (string, bool) { return socket, name == "CREDRESOLVE_SOCKET" },
		},
		Ready: func() { close(ready) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	if c, err = client.New(client.Config{Socket: socket}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return socket, c
}

func TestConformance(t *testing.T) {
	store, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	held := &breakable{Backend: store}
	real, c := start(t, held)
	way := newWay(t, real)
	socket := way.socket
	id := func(full string) string { return full[len("m/"):] }
	forget := func(t conformance.T, full string) {
		if err := c.Forget(t.Context(), credref.Ref{Provider: "m", ID: id(full)}); err != nil {
			t.Fatalf("invalidating: %v", err)
		}
	}
	put := func(t conformance.T, full string, v backend.Value) {
		if _, err := store.Put(t.Context(), backend.Request{ID: id(full)}, v, backend.Condition{}); err != nil {
			t.Fatalf("putting: %v", err)
		}
		forget(t, full)
	}
	conformancetest.Run(t, "sidecar", conformance.Harness{
		Open: func(t conformance.T, _ *conformance.Dialer) backend.Backend {
			b, err := sidecar.New(sidecar.Config{Socket: socket}, backend.Host{})
			if err != nil {
				t.Fatalf("opening: %v", err)
			}
			return b
		},
		Put: put,
		Delete: func(t conformance.T, full string) {
			_ = store.Delete(t.Context(), backend.Request{ID: id(full)}, backend.Condition{})
			forget(t, full)
		},
		Advance: func(t conformance.T, full string, next backend.Value) conformance.Versions {
			before, err := store.CurrentVersion(t.Context(), backend.Request{ID: id(full)})
			if err != nil {
				t.Fatalf("advancing: %v", err)
			}
			put(t, full, next)
			after, _ := store.CurrentVersion(t.Context(), backend.Request{ID: id(full)})
			return conformance.Versions{Previous: before, Current: after, Missing: "999"}
		},
		Fault: func(t conformance.T, f conformance.Fault) (undo func()) {
			if f.ID == "" {
				return way.fail(f)
			}
			undo = held.fail(f)
			forget(t, f.ID)
			return undo
		},
		ID:         func(name string) string { return "m/" + name },
		InvalidIDs: []string{"", "m", "m/", "/x", "M/x", "m/a\x00b"},
	})
}

func TestErrorsPassThrough(t *testing.T) {
	t.Parallel()
	store, err := memory.New(memory.Config{Values: map[string]string{"x": "x-c4nary"}})
	if err != nil {
		t.Fatal(err)
	}
	socket, _ := start(t, store)
	b, err := sidecar.New(sidecar.Config{Socket: socket}, backend.Host{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	results, err := b.GetBatch(t.Context(), []backend.Request{{ID: "m/x"}, {ID: "m/none"}, {ID: "nowhere/x"}, {ID: "m/x", Version: "9"}, {ID: "x"}})
	if err != nil {
		t.Fatal(err)
	}
	if c := results[0].Credential; c == nil || string(c.Secret.Reveal()) != "x-c4nary" || c.Version != "1" {
		t.Errorf("the secret: %v", results[0].Err)
	}
	for i, code := range map[int]backend.Code{1: backend.CodeNotFound, 2: backend.CodeInvalidConfig, 3: backend.CodeNotFound, 4: backend.CodeInvalidID} {
		if got := backend.CodeOf(results[i].Err); got != code {
			t.Errorf("result %d: %s, want %s", i, got, code)
		}
	}
	away, err := sidecar.New(sidecar.Config{Socket: filepath.Join(t.TempDir(), "sock")}, backend.Host{})
	if err != nil {
		t.Fatal(err)
	}
	defer away.Close()
	if _, err := away.Get(t.Context(), backend.Request{ID: "m/x"}); !errors.Is(err, backend.ErrUnavailable) {
		t.Errorf("without a sidecar: %v", err)
	}
	if err := away.Probe(t.Context()); !errors.Is(err, backend.ErrUnavailable) {
		t.Errorf("a probe without a sidecar: %v", err)
	}
	for _, c := range []sidecar.Config{{Socket: "/a", Address: "http://127.0.0.1:1"}, {Address: "http://example.com:1"}, {Address: "https://127.0.0.1:1"}} {
		if _, err := sidecar.New(c, backend.Host{}); !errors.Is(err, backend.ErrInvalidConfig) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestWatchTellsOfChanges(t *testing.T) {
	t.Parallel()
	store, err := memory.New(memory.Config{Values: map[string]string{"x": "x-c4nary"}})
	if err != nil {
		t.Fatal(err)
	}
	socket, c := start(t, store)
	b, err := sidecar.New(sidecar.Config{Socket: socket}, backend.Host{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	told, done := make(chan backend.Request, 10), make(chan error, 1)
	go func() { done <- b.Watch(ctx, []backend.Request{{ID: "m/x"}}, func(r backend.Request) { told <- r }) }()
	await := func() {
		t.Helper()
		select {
		case r := <-told:
			if r.ID != "m/x" {
				t.Errorf("told of %s", r.ID)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("nothing is told")
		}
	}
	await()
	if _, err := store.Put(ctx, backend.Request{ID: "x"}, backend.Value{Secret: backend.NewSecretString("y-c4nary")}, backend.Condition{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Invalidate(ctx, "m", ""); err != nil {
		t.Fatal(err)
	}
	await()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("the watch ended with %v", err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

// A refusal keeps its code.
func TestWatchThatIsRefused(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	refusing := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"error":{"code":"denied","message":"the policy does not allow it"}}`)
	})}
	go func() { _ = refusing.Serve(l) }()
	defer refusing.Close()
	b, err := sidecar.New(sidecar.Config{Socket: socket}, backend.Host{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	told := 0
	err = b.Watch(t.Context(), []backend.Request{{ID: "m/x"}}, func(backend.Request) { told++ })
	if !errors.Is(err, backend.ErrDenied) || told != 1 {
		t.Errorf("the watch ended with %v, after %d calls", err, told)
	}
	if err := b.Watch(t.Context(), []backend.Request{{ID: "x"}}, func(backend.Request) {}); !errors.Is(err, backend.ErrInvalidID) {
		t.Errorf("of no provider: %v", err)
	}
}

// known gives a credential with all that can be known of it.
type known struct{ expires, refresh time.Time }

func (l known) Get(context.Context, backend.Request) (*backend.Credential, error) {
	return &backend.Credential{
		Type: backend.TypeBasic, Version: "v7", Expires: l.expires, RefreshAfter: l.refresh, Metadata: map[string]string{"owner": "ops"},
		Fields: map[string]backend.Secret{"value": backend.NewSecretString("v-c4nary"), "n": backend.NewJSONSecret([]byte("7")), "b": backend.NewSecret([]byte{0xff})},
	}, nil
}

func (known) Describe() backend.Description { return backend.Description{Versions: true, Fields: true} }

// Whatever the sidecar knows of a secret comes along.
func TestWhatIsKnownIsKept(t *testing.T) {
	t.Parallel()
	store := known{time.Now().Add(time.Hour), time.Now().Add(time.Minute)}
	socket, _ := start(t, store)
	b, err := sidecar.New(sidecar.Config{Socket: socket}, backend.Host{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	c, err := b.Get(t.Context(), backend.Request{ID: "m/x"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Type != backend.TypeBasic || c.Version != "v7" || !c.Expires.Equal(store.expires) || !c.RefreshAfter.Equal(store.refresh) || c.Metadata["owner"] != "ops" {
		t.Errorf("%+v", c)
	}
	if !c.Secret.IsZero() || len(c.Fields) != 3 || !c.Fields["n"].IsJSON() || c.Fields["n"].Len() != 1 || string(c.Fields["b"].Reveal()) != "\xff" {
		t.Error("the fields are others")
	}
}
