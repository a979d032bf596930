package keychain

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/conformance"
	"github.com/credresolve/credresolve/internal/conformancetest"
	"github.com/credresolve/credresolve/internal/secretservicetest"
)

// harness opens backends as c says. A backend of the test's own changes the store behind the suite's back.
func harness(t *testing.T, c Config, host backend.Host) conformance.Harness {
	t.Helper()
	other := open(t, c, host)
	host.StateDir = state(t)
	return conformance.Harness{
		Open: func(t conformance.T, _ *conformance.Dialer) backend.Backend {
			if host.LookupEnv == nil {
				host.LookupEnv = noEnv
			}
			b, err := New(c, host)
			if err != nil {
				t.Fatalf("opening: %v", err)
			}
			return b
		},
		Put: func(t conformance.T, id string, v backend.Value) {
			if _, err := other.Put(t.Context(), backend.Request{ID: id}, v, backend.Condition{}); err != nil {
				t.Fatalf("putting: %v", err)
			}
		},
		Delete: func(t conformance.T, id string) {
			_ = other.Delete(t.Context(), backend.Request{ID: id}, backend.Condition{})
		},
		InvalidIDs: []string{"a\x01b"},
		CaseTime:   time.Minute, // package dbus decodes byte by byte, which the race detector slows down
	}
}

func TestFilesConform(t *testing.T) {
	t.Parallel()
	h := harness(t, fileConfig(t.TempDir(), "the files' password"), backend.Host{})
	h.InvalidIDs = append(h.InvalidIDs, "..", ".")
	h.Secrets = [][]byte{[]byte("the files' password")}
	h.Limits.MaxValue = maxValue
	conformancetest.Run(t, "keychain-file", h)
}

func TestSecretServiceConforms(t *testing.T) {
	t.Parallel()
	s := secretservicetest.Start(t)
	h := harness(t, secretServiceConfig(), backend.Host{LookupEnv: s.LookupEnv})
	h.InvalidIDs = append(h.InvalidIDs, "?", "?a")
	h.Fault = func(_ conformance.T, f conformance.Fault) func() {
		if f.ID != "" {
			return nil
		}
		switch f.Kind {
		case conformance.FaultLock:
			s.Lock(t)
			return func() { s.Unlock(t) }
		case conformance.FaultHang:
			return s.Hang(t)
		case conformance.FaultDisappear:
			return s.Stop(t)
		}
		return nil
	}
	conformancetest.Run(t, "keychain-secret-service", h)
}

func TestPassConforms(t *testing.T) {
	t.Parallel()
	env := passHome(t, "")
	h := harness(t, Config{Backend: "pass", Service: "app"}, backend.Host{LookupEnv: lookup(env)})
	h.Limits.MaxValue = maxValue
	if os.Getenv(conformancetest.Variable) == "" { // each call runs bash and gpg: all of the suite takes a minute
		h.Only = func(c conformance.Case) bool {
			subject, _, _ := strings.Cut(c.Name, "/")
			return slices.Contains([]string{"open", "get", "error", "value", "write", "secrecy"}, subject)
		}
	}
	conformancetest.Run(t, "keychain-pass", h)
}
