//go:build unix

package authprofiles_test

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/credresolve/credresolve/adapters/authprofiles"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/conformance"
	"github.com/credresolve/credresolve/internal/conformancetest"
)

// store is what stands in a store, as another program than ours writes it.
type store struct {
	mu       sync.Mutex
	profiles map[string]any
	save     func(t conformance.T, text []byte)
	load     func() []byte // what the adapter wrote meanwhile; nil: it does not
}

func (s *store) change(t conformance.T, change func(profiles map[string]any)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var whole map[string]any
	if s.load != nil {
		if err := json.Unmarshal(s.load(), &whole); err != nil {
			t.Fatalf("reading: %v", err)
		}
		s.profiles, _ = whole["profiles"].(map[string]any)
	}
	if s.profiles == nil {
		s.profiles = make(map[string]any)
	}
	change(s.profiles)
	text, err := json.MarshalIndent(map[string]any{"version": 1, "profiles": s.profiles}, "", "  ")
	if err != nil {
		t.Fatalf("encoding: %v", err)
	}
	s.save(t, text)
}

func (s *store) put(t conformance.T, id string, v backend.Value) {
	text := v.Secret.Reveal()
	if v.Fields != nil {
		var err error
		if text, err = backend.FieldsToJSON(v.Fields); err != nil {
			t.Fatalf("encoding: %v", err)
		}
	}
	s.change(t, func(profiles map[string]any) {
		profiles[id] = map[string]any{
			"type": "api_key", "provider": "test", "key": string(text),
			"metadata": map[string]string{"managedBy": "credresolve"},
		}
	})
}

func (s *store) delete(t conformance.T, id string) {
	s.change(t, func(profiles map[string]any) { delete(profiles, id) })
}

func harness(path string, s *store) conformance.Harness {
	return conformance.Harness{
		Open: func(t conformance.T, _ *conformance.Dialer) backend.Backend {
			b, err := authprofiles.New(authprofiles.Config{Path: path, MaxBytes: 32 << 20}, backend.Host{})
			if err != nil {
				t.Fatalf("opening: %v", err)
			}
			return b
		},
		Put:        s.put,
		Delete:     s.delete,
		Fault:      unreadable(path),
		ID:         func(name string) string { return "test:" + name },
		InvalidIDs: []string{""},
		Limits:     conformance.Limits{Text: true, NoEmpty: true},
		CaseTime:   time.Minute, // everything is read each time, also the large values of other cases
	}
}

func TestConformanceOfAFile(t *testing.T) {
	path := filepath.Join(tempDir(t), "auth-profiles.json")
	s := &store{
		save: func(t conformance.T, text []byte) {
			next := filepath.Join(filepath.Dir(path), "next")
			if err := os.WriteFile(next, text, 0o600); err != nil {
				t.Fatalf("writing: %v", err)
			}
			if err := os.Rename(next, path); err != nil {
				t.Fatalf("writing: %v", err)
			}
		},
		load: func() []byte {
			text, err := os.ReadFile(path)
			if err != nil {
				return []byte("{}")
			}
			return text
		},
	}
	conformancetest.Run(t, "authprofiles-file", harness(path, s))
}

func TestConformanceOfADatabase(t *testing.T) {
	path := filepath.Join(tempDir(t), "openclaw-agent.sqlite")
	db := start(t, path)
	s := &store{save: db.save}
	s.change(t, func(map[string]any) {})
	conformancetest.Run(t, "authprofiles-database", harness(path, s))
}

// unreadable opens path to others, whom the adapter then refuses.
func unreadable(path string) func(conformance.T, conformance.Fault) func() {
	return func(t conformance.T, f conformance.Fault) func() {
		if f.Kind != conformance.FaultDeny || f.ID != "" {
			return nil
		}
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatalf("breaking: %v", err)
		}
		return func() { _ = os.Chmod(path, 0o600) }
	}
}

// database is a process that owns a database as OpenClaw does: in journal mode WAL, open all the time.
type database struct {
	in  io.Writer
	out *bufio.Reader
}

const owner = `
import json, os, sqlite3, sys
os.umask(0o077)
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode=WAL").fetchall()
db.execute("CREATE TABLE IF NOT EXISTS auth_profile_store (store_key TEXT NOT NULL PRIMARY KEY, store_json TEXT NOT NULL, updated_at INTEGER NOT NULL) STRICT")
n = 0
for line in sys.stdin:
    n += 1
    db.execute("INSERT INTO auth_profile_store VALUES ('primary', ?, ?) ON CONFLICT (store_key) DO UPDATE SET store_json=excluded.store_json, updated_at=excluded.updated_at", (json.loads(line), n))
    print("ok", flush=True)
`

func start(t *testing.T, path string) *database {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("needs python3 with sqlite3, to own a database")
	}
	cmd := exec.Command(python, "-c", owner, path)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	return &database{in, bufio.NewReader(out)}
}

func (d *database) save(t conformance.T, text []byte) {
	line, err := json.Marshal(string(text))
	if err == nil {
		_, err = d.in.Write(append(line, '\n'))
	}
	if err != nil {
		t.Fatalf("writing: %v", err)
	}
	if answer, err := d.out.ReadString('\n'); err != nil || answer != "ok\n" {
		t.Fatalf("the database's owner said %q, %v", answer, err)
	}
}
