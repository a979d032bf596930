package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
)

func TestNeedsTrust(t *testing.T) {
	t.Parallel()
	f := load(t, `
version: 1
providers:
  mem: {kind: memory}
  inside: {kind: box, path: sub/secrets.json}
  outside: {kind: box, path: ../elsewhere}
  away: {kind: box, address: "https://vault.example"}
  chained: {kind: box, path: x, password: {provider: away, id: y}}
`)
	if err := os.Symlink("/etc", filepath.Join(f.Dir(), "link")); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(f.NeedsTrust(), "\n")
	want := `away (box): address https://vault.example
chained (box): a secret of its own from cred://away/y
outside (box): file ../elsewhere`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	linked := load(t, "version: 1\nproviders:\n  a: {kind: box, path: link/passwd}\n")
	if err := os.Symlink("/etc", filepath.Join(linked.Dir(), "link")); err != nil {
		t.Fatal(err)
	}
	if len(linked.NeedsTrust()) != 1 {
		t.Error("a file behind a link that leads outside needs no trust")
	}
}

func TestTrustHoldsForOneStateOfTheFile(t *testing.T) {
	t.Parallel()
	store := config.TrustStore{Dir: filepath.Join(t.TempDir(), "state")}
	f := load(t, "version: 1\nproviders:\n  away: {kind: box, address: a}\n")
	trusted := func(f *config.File) bool {
		t.Helper()
		ok, err := store.Trusted(f)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	if trusted(f) {
		t.Fatal("trusted from the start")
	}
	if err := store.Add(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	if !trusted(f) {
		t.Fatal("not trusted after Add")
	}
	if err := os.WriteFile(f.Path(), []byte("version: 1\nproviders:\n  away: {kind: box, address: b}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	changed, err := config.Load(f.Path(), registry(nil))
	if err != nil {
		t.Fatal(err)
	}
	if trusted(changed) {
		t.Error("a changed file is trusted still")
	}
	if err := store.Remove(t.Context(), f.Path()); err != nil {
		t.Fatal(err)
	}
	if trusted(f) {
		t.Error("trusted after Remove")
	}
	if err := store.Remove(t.Context(), f.Path()); !errors.Is(err, backend.ErrNotFound) {
		t.Errorf("a second Remove: %v", err)
	}
}

func TestWithoutTrustNothingOutsideIsReached(t *testing.T) {
	t.Parallel()
	opened := map[string]boxConfig{}
	path := write(t, "version: 1\nproviders:\n  mem: {kind: memory, values: {a: b}}\n  away: {kind: box, address: x}\n")
	f, err := config.Load(path, registry(opened))
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Open(config.Options{Untrusted: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Resolve(t.Context(), credref.Ref{Provider: "away", ID: "x"}); !errors.Is(err, backend.ErrDenied) || !strings.Contains(err.Error(), "credresolve trust "+path) {
		t.Errorf("away: %v", err)
	}
	if _, err := r.Resolve(t.Context(), credref.Ref{Provider: "mem", ID: "a"}); err != nil {
		t.Errorf("mem: %v", err)
	}
	if len(opened) != 0 {
		t.Error("the provider that needs trust was opened")
	}
}
