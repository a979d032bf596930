package main

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// listenAs listens on a Unix socket as another user, which is what who connects is told.
func listenAs(uid int, path string) (net.Listener, error) {
	const same = ^uintptr(0)
	runtime.LockOSThread() // the call is of this thread alone
	defer runtime.UnlockOSThread()
	if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESUID, same, uintptr(uid), same); e != 0 {
		return nil, e
	}
	l, err := net.Listen("unix", path)
	if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESUID, same, 0, same); e != 0 {
		panic("the thread cannot be root again")
	}
	return l, err
}

// Nothing is asked of a sidecar that another user runs, and nobody is told but at debug level.
func TestSidecarOfAnotherUserIsNotAsked(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root: only root can be another user")
	}
	u := newUser(t)
	u.write("credresolve.yaml", "version: 1\nproviders:\n  m: {kind: memory, values: {x: x-c4nary}}\n")
	u.env = append(u.env, "CREDRESOLVE_CONFIG="+filepath.Join(u.dir, "credresolve.yaml"))
	dir, err := os.MkdirTemp("", "other") // which another user can reach, as not every t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "sock")
	got := u.compare(func() {
		l, err := listenAs(65534, socket)
		if errors.Is(err, os.ErrPermission) { // bind looks at the directory
			if err = os.Chown(dir, 65534, 65534); err == nil {
				l, err = listenAs(65534, socket)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan bool)
		go func() {
			defer close(done)
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				if text, _ := io.ReadAll(c); len(text) > 0 {
					t.Errorf("it was sent %q", text)
				}
				_ = c.Close()
			}
		}()
		t.Cleanup(func() {
			_ = l.Close()
			<-done
		})
		u.env = append(u.env, "CREDRESOLVE_SOCKET="+socket)
	}, []string{"get", "cred://m/x"}, []string{"get", "cred://m/none"})
	if got[0].stdout != "x-c4nary" {
		t.Errorf("%+v", got[0])
	}
	if told := u.run("--verbose", "get", "cred://m/x").stderr; !strings.Contains(told, "65534") {
		t.Errorf("at debug level nothing is told of it: %s", told)
	}
}
