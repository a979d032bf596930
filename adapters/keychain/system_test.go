package keychain

import (
	"runtime"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/backend"
)

// A store of another system is a clear error, and says so before it is used.
func TestForeignSystem(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"keychain", "wincred", "keyctl"} {
		s := newSystem(name, Config{}.withDefaults(), false)
		if s.missing() == nil {
			continue // it is this system's
		}
		b := open(t, Config{Backend: name}, backend.Host{StateDir: state(t)})
		for _, err := range []error{getError(t, b, "a"), putError(t, b, "a", canary, backend.Condition{}), b.Probe(t.Context())} {
			wantCode(t, err, backend.CodeUnavailable)
		}
		if d := b.Describe(); !strings.Contains(d.Detail, runtime.GOOS) && !strings.Contains(d.Detail, "cgo") {
			t.Errorf("%s: %q", name, d.Detail)
		}
		// The same where the choice is open: it is said before anything is chosen.
		a := &Backend{config: Config{Backend: auto}, candidates: []store{s}}
		if d := a.Describe(); !strings.Contains(d.Detail, name+" ("+reason(s.missing())+")") {
			t.Errorf("%s among others: %q", name, d.Detail)
		}
	}
}

func TestWindowsLimits(t *testing.T) {
	t.Parallel()
	b := open(t, Config{Backend: "wincred"}, backend.Host{StateDir: state(t)})
	err := putError(t, b, "a", strings.Repeat("x", maxWincred+1), backend.Condition{})
	wantCode(t, err, backend.CodeUnsupported)
	if err == nil || !strings.Contains(err.Error(), "2560 bytes that wincred holds") {
		t.Error(err)
	}
	wantCode(t, putError(t, b, "a", "p\x00w\x00", backend.Condition{}), backend.CodeUnsupported)
	if d := newSystem("wincred", Config{}.withDefaults(), false).target("id"); d != "keyring:credresolve:id" {
		t.Error(d)
	}
}
