package statedir_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/credresolve/credresolve/internal/statedir"
)

func TestPath(t *testing.T) {
	env := map[string]string{"HOME": "/home/u", "LocalAppData": `C:\u`}
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	env["XDG_STATE_HOME"] = "/var/s"
	if got, err := statedir.Path(lookup); err != nil || got != filepath.Join("/var/s", "credresolve") {
		t.Errorf("with XDG_STATE_HOME: %q, %v", got, err)
	}
	env["XDG_STATE_HOME"] = "relative"
	if got, err := statedir.Path(lookup); err != nil || !strings.HasPrefix(got, "/home/u/") {
		t.Errorf("with a relative XDG_STATE_HOME: %q, %v", got, err)
	}
	clear(env)
	if got, err := statedir.Path(lookup); err == nil {
		t.Errorf("with an empty environment: %q, want an error", got)
	}
}

func TestKeyIsTheSameForAll(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "state")
	keys := make([][]byte, 20)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			var err error
			if keys[i], err = statedir.Key(dir, "revision"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, k := range keys {
		if len(k) != statedir.KeySize || !bytes.Equal(k, keys[0]) {
			t.Fatalf("two keys, or one of the wrong size")
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("the directory holds %v, %v; want the key alone", entries, err)
	}
	st, err := os.Stat(filepath.Join(dir, "revision.key"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v", st.Mode(), err)
	}
}

func TestOpenDirectoryIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := statedir.Key(dir, "k"); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("Key in an open directory: %v", err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if err := statedir.Ensure(link); err == nil {
		t.Error("Ensure took a link")
	}
}

func TestLockExcludes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	unlock, err := statedir.Lock(t.Context(), dir, "l")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := statedir.Lock(ctx, dir, "l"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second Lock gave %v, want context.DeadlineExceeded", err)
	}
	unlock()
	again, err := statedir.Lock(t.Context(), dir, "l")
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestLockUnless(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	never := func() bool { return false }
	unlock, err := statedir.LockUnless(t.Context(), dir, "l", never)
	if err != nil || unlock == nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := statedir.LockUnless(ctx, dir, "l", never); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second one gave %v, want context.DeadlineExceeded", err)
	}
	asked := 0
	given, err := statedir.LockUnless(t.Context(), dir, "l", func() bool { asked++; return asked == 3 })
	if err != nil || given != nil || asked != 3 {
		t.Errorf("it was asked %d times, and gave %v", asked, err)
	}
	unlock()
	again, err := statedir.Lock(t.Context(), dir, "l")
	if err != nil {
		t.Fatal(err)
	}
	again()
}
