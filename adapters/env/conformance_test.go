package env_test

import (
	"os"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/adapters/env"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/conformance"
	"github.com/credresolve/credresolve/internal/conformancetest"
)

// Not parallel: the environment belongs to the whole process.
func TestConformance(t *testing.T) {
	const start = "CREDRESOLVE_CONFORMANCE_"
	conformancetest.Run(t, "env", conformance.Harness{
		Open: func(t conformance.T, _ *conformance.Dialer) backend.Backend {
			b, err := env.New(env.Config{Allow: []string{start + "*"}, AllowBlank: true}, backend.Host{})
			if err != nil {
				t.Fatalf("opening: %v", err)
			}
			return b
		},
		Put: func(t conformance.T, id string, v backend.Value) {
			text := v.Secret.Reveal()
			if v.Fields != nil {
				var err error
				if text, err = backend.FieldsToJSON(v.Fields); err != nil {
					t.Fatalf("encoding: %v", err)
				}
			}
			if err := os.Setenv(id, string(text)); err != nil {
				t.Fatalf("setting: %v", err)
			}
		},
		Delete:     func(_ conformance.T, id string) { _ = os.Unsetenv(id) },
		ID:         func(name string) string { return start + strings.ReplaceAll(name, "-", "_") },
		InvalidIDs: []string{"", "A=", "1", "A B", "A\x00"},
		Limits:     conformance.Limits{NoNUL: true},
	})
}
