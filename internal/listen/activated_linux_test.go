package listen

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/credresolve/credresolve/backend"
	"golang.org/x/sys/unix"
)

// descriptor gives the file of what systemd would hand over.
func descriptor(t *testing.T, of func() (interface{ File() (*os.File, error) }, error)) *os.File {
	t.Helper()
	l, err := of()
	must(t, err)
	f, err := l.File()
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	if c, ok := l.(interface{ Close() error }); ok {
		t.Cleanup(func() { _ = c.Close() })
	}
	return f
}

func unixSocket(t *testing.T, path string, mode fs.FileMode) *os.File {
	t.Helper()
	return descriptor(t, func() (interface{ File() (*os.File, error) }, error) {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err == nil && path[0] == '/' {
			err = os.Chmod(path, mode)
		}
		return l, err
	})
}

func tcpSocket(t *testing.T, host string) *os.File {
	t.Helper()
	return descriptor(t, func() (interface{ File() (*os.File, error) }, error) {
		return net.ListenTCP("tcp", &net.TCPAddr{IP: net.ParseIP(host)})
	})
}

func plainSocket(t *testing.T, family, kind int) *os.File {
	t.Helper()
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	f := os.NewFile(uintptr(fd), "socket")
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestActivated(t *testing.T) {
	t.Parallel()
	none := map[string]string{}
	fds := func(n int) map[string]string {
		return map[string]string{"LISTEN_PID": "ours", "LISTEN_FDS": strconv.Itoa(n)}
	}
	named := func(names string, n int) map[string]string {
		env := fds(n)
		env["LISTEN_FDNAMES"] = names
		return env
	}
	type files func(t *testing.T, dir string) []*os.File
	unixOf := func(mode fs.FileMode) files {
		return func(t *testing.T, dir string) []*os.File { return []*os.File{unixSocket(t, dir+"/sock", mode)} }
	}
	both := func(t *testing.T, dir string) []*os.File {
		return []*os.File{tcpSocket(t, "127.0.0.1"), unixSocket(t, dir+"/sock", 0o660)}
	}
	for _, c := range []struct {
		name  string
		env   map[string]string
		files files
		root  bool
		names []string
		nets  []string
		says  string
	}{
		{name: "nothing set", env: none},
		{name: "another process", env: map[string]string{"LISTEN_PID": "1", "LISTEN_FDS": "1"}, files: unixOf(0o666)},
		{name: "none", env: fds(0)},
		{name: "a Unix socket", env: named("credresolve.socket", 1), files: unixOf(0o600), names: []string{"credresolve.socket"}, nets: []string{"unix"}},
		{name: "two, in their order", env: named("tcp:main", 2), files: both, names: []string{"tcp", "main"}, nets: []string{"tcp", "unix"}},
		{name: "without names", env: fds(2), files: both, names: []string{"", ""}, nets: []string{"tcp", "unix"}},
		{name: "IPv6", env: fds(1), files: func(t *testing.T, _ string) []*os.File { return []*os.File{tcpSocket(t, "::1")} }, names: []string{""}, nets: []string{"tcp"}},
		{name: "a socket that is open to all, as SocketMode= is by default", env: fds(1), files: unixOf(0o666), says: "SocketMode=0600"},
		{name: "the second is open to all", env: fds(2), says: "mode 0666",
			files: func(t *testing.T, dir string) []*os.File {
				return []*os.File{tcpSocket(t, "127.0.0.1"), unixSocket(t, dir+"/sock", 0o666)}
			}},
		{name: "a socket that all can see and nobody else connect to", env: fds(1), files: unixOf(0o755), names: []string{""}, nets: []string{"unix"}},
		{name: "a socket of another user", env: fds(1), root: true, says: "SocketUser=",
			files: func(t *testing.T, dir string) []*os.File {
				f := unixSocket(t, dir+"/sock", 0o600)
				must(t, os.Chown(dir+"/sock", nobody, nobody))
				return []*os.File{f}
			}},
		{name: "an abstract socket", env: fds(1), says: "has no file",
			files: func(t *testing.T, dir string) []*os.File {
				return []*os.File{unixSocket(t, "@"+filepath.Base(dir), 0)}
			}},
		{name: "a socket whose file is gone", env: fds(1), says: "is not there",
			files: func(t *testing.T, dir string) []*os.File {
				f := unixSocket(t, dir+"/sock", 0o600)
				must(t, os.Remove(dir+"/sock"))
				return []*os.File{f}
			}},
		{name: "every interface", env: fds(1), says: "not a loopback address",
			files: func(t *testing.T, _ string) []*os.File { return []*os.File{tcpSocket(t, "0.0.0.0")} }},
		{name: "datagrams", env: fds(1), says: "not a stream socket",
			files: func(t *testing.T, _ string) []*os.File {
				return []*os.File{plainSocket(t, unix.AF_INET, unix.SOCK_DGRAM)}
			}},
		{name: "a socket that does not listen", env: fds(1), says: "Accept=no",
			files: func(t *testing.T, _ string) []*os.File {
				return []*os.File{plainSocket(t, unix.AF_UNIX, unix.SOCK_STREAM)}
			}},
		{name: "a file", env: fds(1), says: "not a socket",
			files: func(t *testing.T, dir string) []*os.File {
				f, err := os.Create(dir + "/file")
				must(t, err)
				t.Cleanup(func() { _ = f.Close() })
				return []*os.File{f}
			}},
		{name: "fewer than announced", env: fds(4), files: unixOf(0o600), says: "not a socket"},
		{name: "more names than sockets", env: named("a:b", 1), files: unixOf(0o600), says: "2 names for 1"},
		{name: "LISTEN_PID is no number", env: map[string]string{"LISTEN_PID": canary, "LISTEN_FDS": "1"}, says: "LISTEN_PID"},
		{name: "LISTEN_FDS is no number", env: map[string]string{"LISTEN_PID": "ours", "LISTEN_FDS": canary}, says: "LISTEN_FDS"},
		{name: "LISTEN_FDS is missing", env: map[string]string{"LISTEN_PID": "ours"}, says: "LISTEN_FDS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.root {
				asRoot(t, "give files away")
			}
			dir := tempDir(t)
			var handed []*os.File
			if c.files != nil {
				handed = c.files(t, dir)
			}
			_, a, _ := start(t, "activated", "", func(cmd *exec.Cmd) {
				for name, value := range c.env {
					cmd.Env = append(cmd.Env, "TEST_"+name+"="+value)
				}
				cmd.ExtraFiles = handed
			})
			if c.says != "" {
				if a.Code != backend.CodeInvalidConfig || !strings.Contains(a.Error, c.says) || strings.Contains(a.Error, "c4nary") {
					t.Errorf("%s: %s; want invalid_config and %q", a.Code, a.Error, c.says)
				}
			} else if a.Error != "" {
				t.Error(a.Error)
			}
			if !slices.Equal(a.Names, c.names) {
				t.Errorf("names %q, want %q", a.Names, c.names)
			}
			for i, want := range c.nets {
				if i >= len(a.Addrs) || !strings.HasPrefix(a.Addrs[i], want+" ") {
					t.Errorf("addresses %q, want of %q", a.Addrs, c.nets)
				}
			}
			if a.Fewer != len(c.names) && c.says == "" {
				t.Errorf("of %d descriptors %d are not passed on to programs", len(c.names), a.Fewer)
			}
		})
	}
}

func TestActivatedBySystemd(t *testing.T) {
	t.Parallel()
	tool, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		t.Skip("needs systemd-socket-activate")
	}
	path := filepath.Join(tempDir(t), "sock")
	dialed := make(chan error, 1)
	go func() { // the program is started by the first connection
		var c net.Conn
		var err error
		for range 2000 {
			if c, err = net.Dial("unix", path); err == nil {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		if err == nil {
			_, err = c.Write([]byte("x"))
			err = errors.Join(err, c.Close())
		}
		dialed <- err
	}()
	_, a, _ := start(t, "activated", "", func(cmd *exec.Cmd) {
		self := cmd.Path
		cmd.Path = tool
		cmd.Args = []string{tool, "--listen=" + path, "--fdname=main", "--setenv=" + childDoes + "=activated", "--setenv=LISTEN_TEST_ACCEPT=yes", self}
		cmd.Stderr = nil
	})
	must(t, <-dialed)
	if a.Error != "" || a.Heard != "x" || !slices.Equal(a.Names, []string{"main"}) || !slices.Equal(a.Addrs, []string{"unix " + path}) {
		t.Errorf("%+v", a)
	}
}
