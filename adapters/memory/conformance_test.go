package memory_test

import (
	"testing"
	"time"

	"github.com/credresolve/credresolve/adapters/memory"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/conformance"
	"github.com/credresolve/credresolve/internal/conformancetest"
)

// harness is for one run at a time.
func harness() conformance.Harness {
	var store *memory.Backend
	put := func(t conformance.T, id string, v backend.Value) {
		if _, err := store.Put(t.Context(), backend.Request{ID: id}, v, backend.Condition{}); err != nil {
			t.Fatalf("putting: %v", err)
		}
	}
	return conformance.Harness{
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
	}
}

func TestConformance(t *testing.T) { conformancetest.Run(t, "memory", harness()) }

// The suite itself must cost little, also under the race detector. A busy machine may delay it, but not each time.
func TestConformanceIsFast(t *testing.T) {
	const most = 5 * time.Second
	var took time.Duration
	for range 3 {
		start := time.Now()
		conformance.Check(t.Context(), harness())
		if took = time.Since(start); took < most {
			return
		}
	}
	t.Errorf("the suite took %v, want less than %v", took, most)
}
