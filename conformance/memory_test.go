package conformance_test

import (
	"testing"

	"github.com/credresolve/credresolve/adapters/memory"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/conformance"
)

func TestMemory(t *testing.T) {
	var store *memory.Backend
	put := func(t conformance.T, id string, v backend.Value) {
		if _, err := store.Put(t.Context(), backend.Request{ID: id}, v, backend.Condition{}); err != nil {
			t.Fatalf("putting: %v", err)
		}
	}
	conformance.Run(t, conformance.Harness{
		Private: true,
		Open: func(t conformance.T, _ *conformance.Dialer) backend.Backend {
			b, err := memory.New(memory.Config{})
			if err != nil {
				t.Fatalf("opening: %v", err)
			}
			store = b
			return b
		},
		Put: put,
		Delete: func(t conformance.T, id string) {
			_ = store.Delete(t.Context(), backend.Request{ID: id}, backend.Condition{})
		},
		Advance: func(t conformance.T, id string, next backend.Value) conformance.Versions {
			before, err := store.CurrentVersion(t.Context(), backend.Request{ID: id})
			if err != nil {
				t.Fatalf("advancing: %v", err)
			}
			put(t, id, next)
			after, _ := store.CurrentVersion(t.Context(), backend.Request{ID: id})
			return conformance.Versions{Previous: before, Current: after, Missing: "999"}
		},
	})
}
