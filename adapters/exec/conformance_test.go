//go:build unix

package exec_test

import (
	"encoding/json"
	"os"
	osexec "os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/credresolve/credresolve/adapters/exec"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/conformance"
	"github.com/credresolve/credresolve/internal/conformancetest"
)

// store is what testdata/store answers from: values and errors by id.
type store struct {
	Values map[string]json.RawMessage
	Errors map[string]map[string]any
	Fault  map[string]any // of every id
	Hang   bool
	Gone   bool
}

func TestConformance(t *testing.T) {
	program := filepath.Join(tempDir(t), "store")
	if out, err := osexec.Command("go", "build", "-o", program, "./testdata/store").CombinedOutput(); err != nil {
		t.Skipf("needs the go command: install Go and put it on PATH (%v, %s)", err, out)
	}
	path := filepath.Join(tempDir(t), "store.json")
	var mu sync.Mutex
	s := store{Values: map[string]json.RawMessage{}, Errors: map[string]map[string]any{}}
	change := func(t conformance.T, change func()) {
		mu.Lock()
		defer mu.Unlock()
		change()
		text, err := json.Marshal(s)
		if err == nil {
			err = os.WriteFile(path+".new", text, 0o600)
		}
		if err == nil {
			err = os.Rename(path+".new", path)
		}
		if err != nil {
			t.Fatalf("writing: %v", err)
		}
	}
	must(t, os.WriteFile(path, []byte("{}"), 0o600))
	conformancetest.Run(t, "exec", conformance.Harness{
		Open: func(t conformance.T, _ *conformance.Dialer) backend.Backend {
			b, err := exec.New(exec.Config{Command: program, Args: []string{path}, Timeout: time.Minute}, backend.Host{Provider: "corp"})
			if err != nil {
				t.Fatalf("opening: %v", err)
			}
			return b
		},
		Put: func(t conformance.T, id string, v backend.Value) {
			var text []byte
			var err error
			if v.Fields != nil {
				text, err = backend.FieldsToJSON(v.Fields)
			} else {
				text, err = json.Marshal(string(v.Secret.Reveal()))
			}
			if err != nil {
				t.Fatalf("encoding: %v", err)
			}
			change(t, func() { s.Values[id] = text })
		},
		Delete: func(t conformance.T, id string) { change(t, func() { delete(s.Values, id) }) },
		Fault: func(t conformance.T, f conformance.Fault) func() {
			answer := map[string]any{"message": canary}
			switch f.Kind {
			case conformance.FaultDeny:
				answer["code"] = "DENIED"
			case conformance.FaultLock:
				answer["code"] = "LOCKED"
			case conformance.FaultLogout:
				answer["code"] = "AUTH_REQUIRED"
			case conformance.FaultHang, conformance.FaultDisappear:
				if f.ID != "" {
					return nil
				}
				change(t, func() { s.Hang, s.Gone = f.Kind == conformance.FaultHang, f.Kind == conformance.FaultDisappear })
				return func() { change(t, func() { s.Hang, s.Gone = false, false }) }
			default:
				return nil
			}
			change(t, func() {
				if f.ID == "" {
					s.Fault = answer
				} else {
					s.Errors[f.ID] = answer
				}
			})
			return func() { change(t, func() { s.Fault = nil; delete(s.Errors, f.ID) }) }
		},
		InvalidIDs: []string{"", "a\x00"},
		Limits:     conformance.Limits{Text: true, MaxValue: 1 << 20},
		CaseTime:   time.Minute,
	})
}
