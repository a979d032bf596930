package keychain

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/99designs/keyring"
	"golang.org/x/sys/unix"

	"github.com/credresolve/credresolve/backend"
)

func TestKeyctl(t *testing.T) {
	t.Parallel()
	if _, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_USER_KEYRING, true); err != nil {
		t.Skip("needs the kernel's keyrings, which this sandbox forbids: run make test outside of it")
	}
	for _, scope := range keyctlScopes() {
		t.Run(scope, func(t *testing.T) {
			t.Parallel()
			if scope == "session" && os.Getenv(inSession) == "" {
				testInSession(t)
				return
			}
			service := fmt.Sprintf("credresolve-test-%d-%s", os.Getpid(), scope)
			b := open(t, Config{Backend: "keyctl", Service: service, KeyctlScope: scope}, backend.Host{StateDir: state(t)})
			t.Cleanup(func() {
				_, err := call(context.Background(), newSystem("keyctl", Config{Service: service, KeyctlScope: scope}, false), "clean", func(keyring.Keyring) (struct{}, error) {
					parent, err := keyring.GetKeyringIDForScope(scope)
					if err != nil {
						return struct{}{}, err
					}
					id, err := unix.KeyctlSearch(int(parent), "keyring", service, 0)
					if err == nil {
						_, err = unix.KeyctlInt(unix.KEYCTL_UNLINK, id, int(parent), 0, 0)
					}
					return struct{}{}, err
				})
				if err != nil {
					t.Error(err)
				}
			})
			testStore(t, b, 0, false)
			testDone(t, b)
			wantCode(t, putError(t, b, "x", strings.Repeat("x", maxKeyctl+1), backend.Condition{}), backend.CodeUnsupported)
			wantCode(t, putError(t, b, "a;b", canary, backend.Condition{}), backend.CodeInvalidID)
			d := b.Describe()
			if bound := scope == "session"; d.CallerBound != bound || d.MaxValue != maxKeyctl || !strings.Contains(d.Detail, "until the system restarts") {
				t.Errorf("%+v", d)
			}
		})
	}
}

// inSession is set where this test program runs in a session keyring of its own.
const inSession = "CREDRESOLVE_KEYCHAIN_IN_SESSION"

// testInSession runs the test of the scope session where there is a session.
func testInSession(t *testing.T) {
	t.Helper()
	keyctl, err := exec.LookPath("keyctl")
	if err != nil {
		t.Skip("needs keyutils: run make test")
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), keyctl, "session", "-", program, "-test.run=^TestKeyctl$/^session$", "-test.v")
	cmd.Env = append(os.Environ(), inSession+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestKeyctl/session") {
		t.Errorf("%v\n%s", err, out)
	}
}

// Without a session, keys would be gone as soon as they are written.
func TestKeyctlNoSession(t *testing.T) {
	t.Parallel()
	session, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false)
	if err != nil {
		t.Skip("needs the kernel's keyrings, which this sandbox forbids: run make test outside of it")
	}
	if shared, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_USER_SESSION_KEYRING, false); err != nil || shared != session {
		t.Skip("needs a process without a login session: run make test from a service")
	}
	b := open(t, Config{Backend: "keyctl", KeyctlScope: "session"}, backend.Host{})
	for _, err := range []error{b.Probe(t.Context()), getError(t, b, "a"), putError(t, b, "a", canary, backend.Condition{})} {
		wantCode(t, err, backend.CodeUnavailable)
		if err == nil || !strings.Contains(err.Error(), "keyctl session") {
			t.Errorf("%v does not say what to do", err)
		}
	}
}

func TestOSError(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err  error
		want backend.Code
	}{
		{syscall.ENOKEY, backend.CodeNotFound},
		{fmt.Errorf("adding key to session failed: %v", syscall.EDQUOT), backend.CodeUnavailable},
		{fmt.Errorf("setting permission failed: %v", syscall.EACCES), backend.CodeDenied},
		{&os.PathError{Op: "open", Path: canary, Err: syscall.EACCES}, backend.CodeDenied},
		{&os.PathError{Op: "open", Path: canary, Err: syscall.ENOSPC}, backend.CodeUnavailable},
		{syscall.EKEYEXPIRED, backend.CodeExpired},
		{errors.New(canary), backend.CodeUnavailable},
	} {
		err := osError("write", test.err)
		wantCode(t, err, test.want)
		if strings.Contains(err.Error(), canary) {
			t.Errorf("%v holds the text of its cause", err)
		}
	}
}
