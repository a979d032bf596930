package jsonstore_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"example.com/jsonstore"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/conformance"
)

func TestConformance(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secrets.json")
	secrets := map[string]json.RawMessage{}
	save := func(t conformance.T) {
		text, err := json.Marshal(secrets)
		if err != nil {
			t.Fatalf("encoding: %v", err)
		}
		// A file that is replaced is never seen half written.
		if err := os.WriteFile(path+".new", text, 0o600); err != nil {
			t.Fatalf("writing: %v", err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatalf("writing: %v", err)
		}
	}
	conformance.Run(t, conformance.Harness{
		Open: func(t conformance.T, _ *conformance.Dialer) backend.Backend {
			b, err := jsonstore.New(jsonstore.Config{Path: path})
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
			secrets[id] = text
			save(t)
		},
		Delete: func(t conformance.T, id string) {
			delete(secrets, id)
			save(t)
		},
		Fault: func(t conformance.T, f conformance.Fault) func() {
			if f.Kind != conformance.FaultDisappear || f.ID != "" {
				return nil // a file is neither locked, throttled nor slow
			}
			if err := os.Rename(path, path+".away"); err != nil {
				t.Fatalf("moving: %v", err)
			}
			return func() { _ = os.Rename(path+".away", path) }
		},
		Limits: conformance.Limits{Text: true},
	})
}
