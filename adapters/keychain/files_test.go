package keychain

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/99designs/keyring"

	"github.com/credresolve/credresolve/backend"
)

func fileConfig(dir, password string) Config {
	return Config{Backend: "file", Path: dir, Password: backend.Literal(backend.NewSecretString(password))}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new", "secrets")
	b := open(t, fileConfig(dir, "pw"), backend.Host{StateDir: state(t)})
	testStore(t, b, 0, true)
	testDone(t, b)
	st, err := os.Stat(dir)
	if err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("the directory is %v, %v", st.Mode(), err)
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != len(odd) {
		t.Errorf("%d files for %d items, %v", len(names), len(odd), err)
	}
	for _, name := range names {
		content, err := os.ReadFile(filepath.Join(dir, name.Name()))
		if err != nil || bytes.Contains(content, []byte(canary)) {
			t.Errorf("%s: %v, or it holds a secret in plain text", name.Name(), err)
		}
		if st, err := name.Info(); err != nil || st.Mode() != 0o600 {
			t.Errorf("%s is %v, %v", name.Name(), st.Mode(), err)
		}
	}
	if d := b.Describe(); d.Detail != "file, as configured: encrypted files in "+dir {
		t.Errorf("%q", d.Detail)
	}
}

func TestFilesOfLibrary(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ring, err := keyring.Open(keyring.Config{AllowedBackends: []keyring.BackendType{keyring.FileBackend}, FileDir: dir, FilePasswordFunc: keyring.FixedStringPrompt("pw")})
	if err != nil {
		t.Fatal(err)
	}
	if err := ring.Set(keyring.Item{Key: "100% a/b", Data: []byte(canary)}); err != nil {
		t.Fatal(err)
	}
	b := open(t, fileConfig(dir, "pw"), backend.Host{})
	if got := get(t, b, "100% a/b"); got != canary {
		t.Errorf("%q", got)
	}
	put(t, b, "c/d%2F", canary+"2", backend.Condition{})
	if it, err := ring.Get("c/d%2F"); err != nil || string(it.Data) != canary+"2" {
		t.Errorf("%q %v", it.Data, err)
	}
	if got := ids(t, b, ""); !slices.Equal(got, []string{"100% a/b", "c/d%2F"}) {
		t.Errorf("%q", got)
	}
}

func TestFilesPassword(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	right := open(t, fileConfig(dir, "right"), backend.Host{})
	put(t, right, "a", canary, backend.Condition{})

	wrong := open(t, fileConfig(dir, "wrong"), backend.Host{})
	wantCode(t, getError(t, wrong, "a"), backend.CodeAuthRequired)
	wantCode(t, putError(t, wrong, "a", canary, backend.Condition{}), backend.CodeAuthRequired)
	wantCode(t, putError(t, wrong, "b", canary, backend.Condition{}), backend.CodeAuthRequired)
	wantCode(t, getError(t, wrong, "b"), backend.CodeNotFound)
	wantCode(t, getError(t, open(t, fileConfig(dir, ""), backend.Host{}), "a"), backend.CodeAuthRequired)

	// A source whose secret has rotated gives the newer one once the older is rejected.
	var rejected atomic.Bool
	rotated := backend.NewSource(func(context.Context) (backend.Secret, string, error) {
		if rejected.Load() {
			return backend.NewSecretString("right"), "2", nil
		}
		return backend.NewSecretString("old"), "1", nil
	}, func(revision string) { rejected.Store(revision == "1") })
	if got := get(t, open(t, Config{Backend: "file", Path: dir, Password: rotated}, backend.Host{}), "a"); got != canary {
		t.Errorf("%q", got)
	}

	failing := backend.NewSource(func(context.Context) (backend.Secret, string, error) {
		return backend.Secret{}, "", backend.Errorf(backend.CodeDenied, "no")
	}, nil)
	b := open(t, Config{Backend: "file", Path: dir, Password: failing}, backend.Host{})
	wantCode(t, getError(t, b, "a"), backend.CodeDenied)
	wantCode(t, getError(t, b, "missing"), backend.CodeNotFound)
	wantCode(t, b.Probe(t.Context()), backend.CodeDenied)
	lost := backend.NewSource(func(context.Context) (backend.Secret, string, error) {
		return backend.Secret{}, "", backend.Errorf(backend.CodeNotFound, "no")
	}, nil)
	wantCode(t, getError(t, open(t, Config{Backend: "file", Path: dir, Password: lost}, backend.Host{}), "a"), backend.CodeAuthRequired)
}

func TestFilesDamaged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := open(t, fileConfig(dir, "pw"), backend.Host{})
	put(t, b, "good", canary, backend.Condition{})
	whole, err := os.ReadFile(filepath.Join(dir, "good"))
	if err != nil {
		t.Fatal(err)
	}
	tampered := slices.Clone(whole)
	if at := len(tampered) - 30; tampered[at] == 'A' { // in the ciphertext, which is base64
		tampered[at] = 'B'
	} else {
		tampered[at] = 'A'
	}
	for name, test := range map[string]struct {
		content []byte
		want    backend.Code
	}{
		"empty":     {nil, backend.CodeInternal},
		"truncated": {whole[:len(whole)-10], backend.CodeInternal},
		"half":      {whole[:len(whole)/2], backend.CodeInternal},
		"foreign":   {[]byte("hello\n"), backend.CodeInternal},
		"unsigned":  {[]byte("eyJhbGciOiJub25lIn0.e30."), backend.CodeInternal},
		"tampered":  {tampered, backend.CodeAuthRequired},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), test.content, 0o600); err != nil {
			t.Fatal(err)
		}
		wantCode(t, getError(t, b, name), test.want)
	}
	put(t, b, "truncated", canary, backend.Condition{})
	if got := get(t, b, "truncated"); got != canary {
		t.Errorf("%q", got)
	}
	if err := os.Mkdir(filepath.Join(dir, "directory"), 0o700); err != nil {
		t.Fatal(err)
	}
	wantCode(t, getError(t, b, "directory"), backend.CodeInvalidID)
	if slices.Contains(ids(t, b, ""), "directory") {
		t.Error("a directory is listed")
	}
	for _, id := range []string{".", "..", staging + "x", strings.Repeat("x", 256), strings.Repeat("/", 100)} {
		wantCode(t, putError(t, b, id, canary, backend.Condition{}), backend.CodeInvalidID)
	}
}

func TestFilesStaging(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	left, recent := filepath.Join(dir, staging+"1"), filepath.Join(dir, staging+"2")
	for _, d := range []string{left, recent} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-2 * stagingLife)
	if err := os.Chtimes(left, old, old); err != nil {
		t.Fatal(err)
	}
	b := open(t, fileConfig(dir, "pw"), backend.Host{})
	put(t, b, "a", canary, backend.Condition{})
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what a killed process left is there: %v", err)
	}
	if _, err := os.Stat(recent); err != nil {
		t.Errorf("what another process works on is gone: %v", err)
	}
	if got := ids(t, b, ""); !slices.Equal(got, []string{"a"}) {
		t.Errorf("%q", got)
	}
}
