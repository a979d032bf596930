//go:build unix

package file_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/credresolve/credresolve/adapters/file"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/conformance"
	"github.com/credresolve/credresolve/internal/conformancetest"
)

// replace exchanges the file at path as an editor does, so that nobody reads half of it.
func replace(t conformance.T, path string, content []byte, mode os.FileMode) {
	next := filepath.Join(filepath.Dir(path), "..next")
	if err := os.WriteFile(next, content, mode); err != nil {
		t.Fatalf("writing: %v", err)
	}
	if err := os.Rename(next, path); err != nil {
		t.Fatalf("writing: %v", err)
	}
}

// content is what a file holds that as a whole is v.
func content(t conformance.T, v backend.Value) []byte {
	if v.Fields == nil {
		return v.Secret.Reveal()
	}
	text, err := backend.FieldsToJSON(v.Fields)
	if err != nil {
		t.Fatalf("encoding: %v", err)
	}
	return text
}

func opener(c file.Config) func(conformance.T, *conformance.Dialer) backend.Backend {
	return func(t conformance.T, _ *conformance.Dialer) backend.Backend {
		b, err := file.New(c, backend.Host{})
		if err != nil {
			t.Fatalf("opening: %v", err)
		}
		return b
	}
}

func TestConformanceOfADirectory(t *testing.T) {
	dir := tempDir(t)
	conformancetest.Run(t, "file-directory", conformance.Harness{
		Open: opener(file.Config{Path: dir, Layout: "docker"}),
		Put: func(t conformance.T, id string, v backend.Value) {
			replace(t, filepath.Join(dir, id), content(t, v), 0o444)
		},
		Delete:     func(_ conformance.T, id string) { _ = os.Remove(filepath.Join(dir, id)) },
		Fault:      unreadable(dir),
		InvalidIDs: []string{"", ".", "..", "../x", "a/b", "..data", "a\x00"},
		Limits:     conformance.Limits{MaxValue: 1 << 20},
	})
}

func TestConformanceOfADocument(t *testing.T) {
	path := filepath.Join(tempDir(t), "secrets.json")
	var mu sync.Mutex
	store := map[string]json.RawMessage{}
	change := func(t conformance.T, change func() error) {
		mu.Lock()
		defer mu.Unlock()
		err := change()
		if err != nil {
			t.Fatalf("encoding: %v", err)
		}
		text, err := json.Marshal(store)
		if err != nil {
			t.Fatalf("encoding: %v", err)
		}
		replace(t, path, text, 0o600)
	}
	must(t, os.WriteFile(path, []byte("{}"), 0o600))
	conformancetest.Run(t, "file-document", conformance.Harness{
		Open: opener(file.Config{Path: path, MaxBytes: 16 << 20}),
		Put: func(t conformance.T, id string, v backend.Value) {
			change(t, func() (err error) {
				if v.Fields != nil {
					store[id] = content(t, v)
				} else {
					store[id], err = json.Marshal(string(v.Secret.Reveal()))
				}
				return err
			})
		},
		Delete:     func(t conformance.T, id string) { change(t, func() error { delete(store, id); return nil }) },
		Fault:      unreadable(path),
		InvalidIDs: []string{"/a~", "/~2"},
		Limits:     conformance.Limits{MaxValue: 1 << 20, Text: true},
	})
}

// unreadable opens path to others, whom the adapter then refuses.
func unreadable(path string) func(conformance.T, conformance.Fault) func() {
	return func(t conformance.T, f conformance.Fault) func() {
		if f.Kind != conformance.FaultDeny || f.ID != "" {
			return nil
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatalf("breaking: %v", err)
		}
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatalf("breaking: %v", err)
		}
		return func() { _ = os.Chmod(path, info.Mode().Perm()) }
	}
}
