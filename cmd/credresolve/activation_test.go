package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A socket that the service manager opened is served, and the manager is told when the sidecar is ready and when it ends.
func TestServeOnASocketOfTheServiceManager(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("needs systemd's protocol: run it on Linux")
	}
	u := newUser(t)
	u.write("credresolve.yaml", "version: 1\nproviders:\n  m: {kind: memory, values: {x: x-c4nary}}\n")
	u.env = append(u.env, "CREDRESOLVE_CONFIG="+filepath.Join(u.dir, "credresolve.yaml"))
	if err := os.Mkdir(filepath.Join(u.dir, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(u.dir, "run", "sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chmod(socket, 0o600); err != nil {
		t.Fatal(err)
	}
	handed, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer handed.Close()
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(u.dir, "notify")})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	cmd := exec.Command("sh", "-c", "LISTEN_PID=$$ exec credresolve serve")
	cmd.Dir, cmd.ExtraFiles = u.dir, []*os.File{handed}
	cmd.Env = append(u.env, "LISTEN_FDS=1", "NOTIFY_SOCKET="+filepath.Join(u.dir, "notify"))
	var said messages
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	told := func(what string) {
		t.Helper()
		buf := make([]byte, 4096)
		_ = manager.SetReadDeadline(time.Now().Add(30 * time.Second))
		for {
			n, err := manager.Read(buf)
			if err != nil {
				t.Fatalf("the manager is not told %s: %v: %s", what, err, said.String())
			}
			if strings.Contains(string(buf[:n]), what) {
				return
			}
		}
	}
	told("READY=1")
	if got := u.run("get", "cred://m/x"); got != (printed{stdout: "x-c4nary"}) || u.reveals() != 1 {
		t.Errorf("a command prints %+v, and the sidecar gave out %d secrets", got, u.reveals())
	}
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	told("RELOADING=1")
	told("READY=1")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	told("STOPPING=1")
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ends with %v: %s", err, said.String())
	}
	if _, err := os.Stat(socket); err != nil {
		t.Errorf("the manager's socket is gone: %v", err)
	}
}
