//go:build unix

package file_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/credresolve/credresolve/adapters/file"
	"github.com/credresolve/credresolve/backend"
)

// watching counts what a Watch tells.
type watching struct {
	mu    sync.Mutex
	calls map[string]int
	ended chan error
}

func watch(t *testing.T, b *file.Backend, ids ...string) *watching {
	t.Helper()
	w := &watching{calls: map[string]int{}, ended: make(chan error, 1)}
	var reqs []backend.Request
	for _, id := range ids {
		reqs = append(reqs, backend.Request{ID: id})
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.ended <- b.Watch(ctx, reqs, func(req backend.Request) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.calls[req.ID]++
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	for _, id := range ids {
		w.told(t, id, 1)
	}
	return w
}

func (w *watching) n(id string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls[id]
}

// told waits for the nth call about id.
func (w *watching) told(t *testing.T, id string, n int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); w.n(id) < n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("told of %s %d times, want %d", id, w.n(id), n)
		}
	}
}

// Each way to change a file is one change; what is no change of a secret is none.
func TestWatch(t *testing.T) {
	dir := tempDir(t)
	path := write(t, filepath.Join(dir, "s.json"), `{"a":"1","b":"1"}`, 0o600)
	w := watch(t, open(t, file.Config{Path: path}), "a", "b")
	next := func(content string) string { return write(t, filepath.Join(dir, "next"), content, 0o600) }
	for i, change := range []func(){
		func() { write(t, path, `{"a":"2","b":"1"}`, 0o600) },
		func() { must(t, os.Rename(next(`{"a":"3","b":"1"}`), path)) },
		func() { must(t, os.Remove(path)) },
		func() { write(t, path, `{"a":"3","b":"1"}`, 0o600) },
		func() { must(t, os.Chmod(path, 0o644)) }, // it is refused
		func() { must(t, os.Chmod(path, 0o600)) },
		func() { write(t, path, `{"a":3,"b":"1"}`, 0o600) }, // a number is another value
	} {
		before := w.n("a")
		change()
		w.told(t, "a", before+1)
		if i < 2 && w.n("b") != 1 {
			t.Fatal("what did not change was told of")
		}
	}
	time.Sleep(300 * time.Millisecond)
	a, b := w.n("a"), w.n("b")
	write(t, path, `{"b":"1","a":3}`, 0o600)
	must(t, os.Chtimes(path, time.Now(), time.Now().Add(-time.Hour)))
	for i := range 1000 { // of others in the directory
		write(t, filepath.Join(dir, fmt.Sprint("other", i%10)), fmt.Sprint(i), 0o600)
	}
	time.Sleep(300 * time.Millisecond)
	if w.n("a") != a || w.n("b") != b {
		t.Errorf("told of what did not change: %d and %d times", w.n("a")-a, w.n("b")-b)
	}
}

// The kubelet exchanges all files of a directory by one link.
func TestWatchKubelet(t *testing.T) {
	for name, whole := range map[string]bool{"directory": true, "file": false} {
		t.Run(name, func(t *testing.T) {
			dir := tempDir(t)
			version := func(n int, text string) {
				data := fmt.Sprintf("..v%d", n)
				write(t, filepath.Join(dir, data, "password"), text, 0o400)
				must(t, os.Symlink(data, filepath.Join(dir, "..data_tmp")))
				must(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
				if n > 1 {
					must(t, os.RemoveAll(filepath.Join(dir, fmt.Sprintf("..v%d", n-1))))
				}
			}
			version(1, "one")
			must(t, os.Symlink("..data/password", filepath.Join(dir, "password")))
			path, id := filepath.Join(dir, "password"), "value"
			if whole {
				path, id = dir, "password"
			}
			b := open(t, file.Config{Path: path, Layout: "kubernetes"})
			w := watch(t, b, id)
			for n := 2; n < 5; n++ {
				before := w.n(id)
				version(n, fmt.Sprint("text", n))
				w.told(t, id, before+1)
				c, err := b.Get(t.Context(), backend.Request{ID: id})
				must(t, err)
				if got := show(c); got != fmt.Sprint("text", n) {
					t.Errorf("got %q", got)
				}
			}
		})
	}
}

// A directory that goes, or was never there, ends the watch: who watches begins again. One that is told of first.
func TestWatchEnds(t *testing.T) {
	for name, end := range map[string]func(string) error{
		"removed": os.RemoveAll,
		"renamed": func(dir string) error { return os.Rename(dir, dir+".old") },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(tempDir(t), "d")
			b := open(t, file.Config{Path: write(t, filepath.Join(dir, "f"), canary, 0o600)})
			w := watch(t, b, "value")
			must(t, end(dir))
			w.told(t, "value", 2)
			select {
			case err := <-w.ended:
				if backend.CodeOf(err) != backend.CodeUnavailable {
					t.Errorf("it ended with %v", err)
				}
				w.ended <- err
			case <-time.After(time.Minute):
				t.Fatal("it goes on")
			}
			if err := b.Watch(t.Context(), []backend.Request{{ID: "value"}}, func(backend.Request) {}); backend.CodeOf(err) != backend.CodeUnavailable {
				t.Errorf("a directory that is not there: %v", err)
			}
		})
	}
}

// A file that is written without end is looked at a few times a second.
func TestWatchIsBounded(t *testing.T) {
	path := write(t, filepath.Join(tempDir(t), "f"), "x", 0o600)
	w := watch(t, open(t, file.Config{Path: path}), "value")
	began := time.Now()
	for i := 0; time.Since(began) < 2*time.Second; i++ {
		must(t, os.WriteFile(path, fmt.Append(nil, i), 0o600))
	}
	most := int(time.Since(began)/(100*time.Millisecond)) + 2
	if n := w.n("value"); n > most || n < 2 {
		t.Errorf("told %d times in %v, want 2 to %d", n, time.Since(began), most)
	}
}
