package client_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/credresolve/credresolve/adapters/memory"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/server"
	"github.com/credresolve/credresolve/resolver"
)

// settings are those of the tests' sidecar.
const settings = `version: 1
providers:
  app:
    kind: memory
    values: {key: k-c4nary, empty: "", number: "7", kv/db: '{"user": "app", "password": "p-c4nary", "port": 1e3, "deep": {"x": [1, "y"]}}', "ö/a?b#c": o-c4nary}
  kept: {kind: memory}
serve:
  audit: {to: off}
  memory: {lock: off}
  plugins: {store: kept}
`

// start runs a sidecar in the directory dir, and gives its socket and what ends it.
func start(dir string) (socket string, stop func() error, err error) {
	path := filepath.Join(dir, "credresolve.yaml")
	socket = filepath.Join(dir, "run", "sock")
	if err := os.WriteFile(path, []byte(settings), 0o600); err != nil {
		return "", nil, err
	}
	ready := make(chan struct{})
	s, err := server.Open(context.Background(), server.Options{
		Load: func(context.Context) (*config.File, error) {
			return config.Load(path, backend.NewRegistry(memory.Kind()))
		},
		Open: config.Options{
			StateDir:  filepath.Join(dir, "state"),
			LookupEnv: func(name string) (string, bool) { return socket, name == "CREDRESOLVE_SOCKET" },
		},
		Ready: func() { close(ready) },
	})
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	select {
	case <-ready:
	case err := <-ended:
		cancel()
		return "", nil, err
	}
	return socket, func() error {
		cancel()
		return <-ended
	}, nil
}

// A program asks the sidecar of its user with an empty Config; this one has a socket of its own.
func Example() {
	dir, err := os.MkdirTemp("", "credresolve")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	socket, stop, err := start(dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()

	c, _ := client.New(client.Config{Socket: socket})
	defer c.Close()
	v, err := c.Resolve(context.Background(), credref.Ref{Provider: "app", ID: "kv/db", Field: "password"})
	fmt.Println(v.Secret(), err)
	// Output: [redacted] <nil>
}

// A host starts a session for a plugin, which then keeps secrets that no other plugin sees.
func ExampleClient_Plugin() {
	dir, err := os.MkdirTemp("", "credresolve")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	socket, stop, err := start(dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()

	ctx := context.Background()
	host, _ := client.New(client.Config{Socket: socket})
	defer host.Close()
	session, _ := host.StartSession(ctx, client.SessionRequest{
		Consumer: "host", Subject: &client.Subject{Plugin: "weather"}, Secrets: []string{"read", "write"},
	})
	c, _ := client.New(client.Config{Socket: socket, Token: backend.Literal(backend.NewSecretString(session.Token))})
	defer c.Close()

	secrets := c.Plugin()
	fmt.Println(secrets.Set(ctx, "api_key", backend.NewSecretString("k")))
	fmt.Println(secrets.Has(ctx, "api_key"))
	key, err := secrets.Get(ctx, "api_key")
	fmt.Println(key, err)
	fmt.Println(host.EndPlugin(ctx, "weather"))
	// Output:
	// <nil>
	// true <nil>
	// [redacted] <nil>
	// <nil>
}

// What a sidecar answers is what a resolver of the same providers does: values, codes and texts.
func TestAnswersAreThoseOfAResolver(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	socket, stop, err := start(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	c, err := client.New(client.Config{Socket: socket})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	file, err := config.Load(filepath.Join(dir, "credresolve.yaml"), backend.NewRegistry(memory.Kind()))
	if err != nil {
		t.Fatal(err)
	}
	own, err := file.Open(config.Options{StateDir: filepath.Join(dir, "state")})
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	refs := []credref.Ref{
		{Provider: "app", ID: "key"}, {Provider: "app", ID: "empty"}, {Provider: "app", ID: "number"}, {Provider: "app", ID: "key", Version: "1"},
		{Provider: "app", ID: "key", Version: "9"}, {Provider: "app", ID: "key", Field: "x"}, {Provider: "app", ID: "kv/db"}, {Provider: "app", ID: "kv/db", Field: "user"},
		{Provider: "app", ID: "kv/db", Field: "port"}, {Provider: "app", ID: "kv/db", Field: "/deep/x/1"}, {Provider: "app", ID: "kv/db", Field: "/deep/x"}, {Provider: "app", ID: "kv/db", Field: "nope"},
		{Provider: "app", ID: "ö/a?b#c"}, {Provider: "app", ID: "nope"}, {Provider: "ap", ID: "key"}, {Provider: "elsewhere", ID: "key"},
		{Provider: "app"}, {Provider: "App", ID: "key"}, {Provider: "app", ID: "a\xff"}, {Provider: "app", ID: "a\nb"}, {Provider: "app", ID: "key", Field: "/~"}, {}, {Provider: "app", ID: "key"},
	}
	for _, whole := range []bool{false, true} {
		demand := resolver.Demand{Whole: whole}
		theirs, ours := c.ResolveWith(t.Context(), refs, demand), own.ResolveWith(t.Context(), refs, demand)
		for i, ref := range refs {
			same(t, ref, theirs[i], ours[i])
		}
	}
	for _, ref := range refs {
		v, err := c.Resolve(t.Context(), ref)
		w, want := own.Resolve(t.Context(), ref)
		same(t, ref, resolver.Outcome{Ref: ref, Value: v, Err: err}, resolver.Outcome{Ref: ref, Value: w, Err: want})
	}
}

func same(t *testing.T, ref credref.Ref, got, want resolver.Outcome) {
	t.Helper()
	if got.Ref != ref || fmt.Sprint(got.Err) != fmt.Sprint(want.Err) || backend.CodeOf(got.Err) != backend.CodeOf(want.Err) || (got.Value == nil) != (want.Value == nil) {
		t.Errorf("%s: %v, and from a resolver %v", ref, got.Err, want.Err)
		return
	}
	if got.Value == nil {
		return
	}
	g, w := got.Value, want.Value
	if !g.Secret().Equal(w.Secret()) || g.Secret().IsZero() != w.Secret().IsZero() || g.Secret().IsJSON() != w.Secret().IsJSON() || g.Type() != w.Type() ||
		g.Version() != w.Version() || g.Revision() != w.Revision() || g.Stale() != w.Stale() || len(g.Fields()) != len(w.Fields()) {
		t.Errorf("%s: it is another value than that of a resolver", ref)
	}
	for name, f := range w.Fields() {
		if h := g.Fields()[name]; !h.Equal(f) || h.IsJSON() != f.IsJSON() {
			t.Errorf("%s: field %s is another", ref, name)
		}
	}
}
