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

func TestWhatLiesBelowTheFile(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	for _, tt := range []struct {
		name, path string
		trust      bool // it is needed
		link       [2]string
	}{
		{"a file", "x", false, [2]string{}},
		{"a file to come", "a/b/c", false, [2]string{}},
		{"parent", "../x", true, [2]string{}},
		{"parent by a detour", "a/../../x", true, [2]string{}},
		{"absolute", "/etc/passwd", true, [2]string{}},
		{"home", "~/x", true, [2]string{}},
		{"somebody's home", "~root/x", true, [2]string{}},
		{"link inside", "l/x", false, [2]string{"l", "."}},
		{"link outside", "l/x", true, [2]string{"l", outside}},
		{"link to what is not there yet", "l", true, [2]string{"l", outside + "/nothing"}},
		{"link to a directory that is not there yet", "l/x", true, [2]string{"l", outside + "/nothing"}},
		{"link to itself", "l", true, [2]string{"l", "l"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := load(t, "version: 1\nproviders:\n  a: {kind: box, path: "+tt.path+"}\n")
			if tt.link[0] != "" {
				if err := os.Symlink(tt.link[1], filepath.Join(f.Dir(), tt.link[0])); err != nil {
					t.Fatal(err)
				}
			}
			if needs := len(f.NeedsTrust()) > 0; needs != tt.trust {
				t.Errorf("needs trust: %v", needs)
			}
		})
	}
}

// TestTrustDoesNotFollowLinks has a project whose configuration is a link to one that is trusted: its relative paths would
// lead to other files than its user was shown.
func TestTrustDoesNotFollowLinks(t *testing.T) {
	t.Parallel()
	store := config.TrustStore{Dir: filepath.Join(t.TempDir(), "state")}
	good := load(t, "version: 1\nproviders:\n  a: {kind: box, path: ../program}\n")
	if err := store.Add(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	byAnotherWay := filepath.Join(t.TempDir(), "way")
	hostile := filepath.Join(t.TempDir(), config.FileName)
	for link, to := range map[string]string{byAnotherWay: good.Dir(), hostile: good.Path()} {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]bool{good.Path(): true, filepath.Join(byAnotherWay, filepath.Base(good.Path())): true, hostile: false} {
		f, err := config.Load(path, registry(nil))
		if err != nil {
			t.Fatal(err)
		}
		if trusted, err := store.Trusted(f); trusted != want || err != nil {
			t.Errorf("%s: trusted %v, %v", path, trusted, err)
		}
	}
	if err := store.Remove(t.Context(), filepath.Join(byAnotherWay, filepath.Base(good.Path()))); err != nil {
		t.Error(err)
	}
}
