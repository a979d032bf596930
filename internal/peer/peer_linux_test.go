package peer

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/credresolve/credresolve/backend"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// The test program is its own children: what they do is in childDoes.
const (
	childDoes = "PEER_TEST_CHILD"
	childAt   = "PEER_TEST_SOCKET"
	nobody    = 65534
)

func TestMain(m *testing.M) {
	if what := os.Getenv(childDoes); what != "" {
		if err := child(what, os.Getenv(childAt)); err != nil {
			fmt.Fprintln(os.Stderr, what, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// child is what a child does. The first descriptor that it inherits is 4; 3 is its program.
func child(what, at string) error {
	switch what {
	case "stay": // connect and stay until standard input ends
		c, err := net.Dial("unix", at)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = io.Copy(io.Discard, os.Stdin)
		return err
	case "die":
		_, err := net.Dial("unix", at)
		return err
	case "pass": // connect, give the connection to a child, and end
		c, err := net.Dial("unix", at)
		if err != nil {
			return err
		}
		f, err := c.(*net.UnixConn).File()
		if err != nil {
			return err
		}
		heir := exec.Command("/proc/self/exe")
		heir.Env = []string{childDoes + "=inherit"}
		heir.Stdin = os.Stdin
		heir.ExtraFiles = []*os.File{f, f}
		return heir.Start()
	case "inherit": // use what was inherited, and stay
		c, err := net.FileConn(os.NewFile(4, "connection"))
		if err != nil {
			return err
		}
		if _, err := c.Write([]byte("x")); err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, os.Stdin)
		return err
	case "judge": // tell who made the inherited connection
		c, err := net.FileConn(os.NewFile(4, "connection"))
		if err != nil {
			return err
		}
		p, err := Of(c.(*net.UnixConn))
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(p)
	case "masquerade": // lay this program over the file at PEER_TEST_TARGET, in a mount namespace of its own, and run that
		target := os.Getenv("PEER_TEST_TARGET")
		self, err := os.Readlink("/proc/self/exe") // the link itself leads to the mount of the other namespace
		if err != nil {
			return err
		}
		if err := unix.Mount(self, target, "", unix.MS_BIND, ""); err != nil {
			return err
		}
		return syscall.Exec(target, []string{target}, []string{childDoes + "=stay", childAt + "=" + at})
	}
	return errors.New("unknown")
}

// start starts a child, which executes the test program by a descriptor: another user cannot reach its path.
func start(t *testing.T, what, at string, change func(*exec.Cmd)) (cmd *exec.Cmd, end func()) {
	t.Helper()
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	cmd = exec.Command("/proc/self/fd/3")
	cmd.Env = []string{childDoes + "=" + what, childAt + "=" + at}
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{self}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(cmd)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() {
		_ = stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("child %s: %v", what, err)
		}
	})
	t.Cleanup(end)
	return cmd, end
}

func listener(t *testing.T) (*net.UnixListener, string) {
	t.Helper()
	dir := t.TempDir()
	for at := dir; at != os.TempDir() && at != "/"; at = filepath.Dir(at) {
		if err := os.Chmod(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	at := filepath.Join(dir, "sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: at, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if err := errors.Join(l.SetDeadline(time.Now().Add(20*time.Second)), os.Chmod(at, 0o666)); err != nil {
		t.Fatal(err)
	}
	return l, at
}

func accept(t *testing.T, l *net.UnixListener) *net.UnixConn {
	t.Helper()
	c, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func known(t *testing.T, c *net.UnixConn) *Peer {
	t.Helper()
	p, err := Of(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func asRoot(t *testing.T, to string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to " + to + ": run the tests as root")
	}
}

func executableOf(t *testing.T, pid int) string {
	t.Helper()
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAnotherProcess(t *testing.T) {
	t.Parallel()
	l, at := listener(t)
	cmd, end := start(t, "stay", at, nil)
	p := known(t, accept(t, l))
	if p.UID != os.Geteuid() || p.GID != os.Getegid() || p.PID != cmd.Process.Pid {
		t.Errorf("uid %d, gid %d, pid %d; want %d, %d, %d", p.UID, p.GID, p.PID, os.Geteuid(), os.Getegid(), cmd.Process.Pid)
	}
	if want := executableOf(t, os.Getpid()); p.Executable != want {
		t.Errorf("executable %q, want %q", p.Executable, want)
	}
	if p.pidfd == nil {
		t.Error("the process is not pinned")
	}
	if !p.Alive() {
		t.Error("a process that waits is not alive")
	}
	end()
	if p.Alive() {
		t.Error("a process that has ended is alive")
	}
}

func TestProcessThatEnded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, does string
		reap       bool
	}{
		{"and was reaped", "die", true},
		{"and is a zombie", "die", false},
		{"and left its connection to another", "pass", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l, at := listener(t)
			var keep *os.File
			cmd, end := start(t, c.does, at, func(cmd *exec.Cmd) {
				if c.does == "pass" { // the heir lives as long as this pipe is open
					r, w, err := os.Pipe()
					if err != nil {
						t.Fatal(err)
					}
					cmd.Stdin, keep = r, w
					t.Cleanup(func() { _, _ = w.Close(), r.Close() })
				}
			})
			if c.reap {
				end()
			} else if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
				t.Fatal(err)
			}
			conn := accept(t, l)
			if keep != nil {
				if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
					t.Fatalf("the heir does not use the connection: %v", err)
				}
			}
			p, err := Of(conn)
			if !errors.Is(err, backend.ErrDenied) || p != nil {
				t.Fatalf("Of: %+v, %v; want denied", p, err)
			}
			if !strings.Contains(err.Error(), "has ended") {
				t.Errorf("the error does not say why: %v", err)
			}
		})
	}
}

func TestProcessOfAnotherUser(t *testing.T) {
	t.Parallel()
	asRoot(t, "start a process of another user")
	l, at := listener(t)
	cmd, _ := start(t, "stay", at, func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	})
	p := known(t, accept(t, l))
	if p.UID != nobody || p.GID != nobody || p.PID != cmd.Process.Pid || !p.Alive() {
		t.Errorf("%+v, alive %v; want uid and gid %d, pid %d", p, p.Alive(), nobody, cmd.Process.Pid)
	}
	if want := executableOf(t, os.Getpid()); p.Executable != want {
		t.Errorf("root sees the executable %q, want %q", p.Executable, want)
	}
}

func TestExecutableThatMayNotBeRead(t *testing.T) {
	t.Parallel()
	asRoot(t, "be a process of another user")
	l, at := listener(t)
	cmd, _ := start(t, "stay", at, nil)
	f, err := accept(t, l).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, end := start(t, "judge", "", func(cmd *exec.Cmd) {
		cmd.Stdout = w
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	})
	_ = w.Close()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	end()
	var p Peer
	if err := json.Unmarshal([]byte(line), &p); err != nil {
		t.Fatal(err)
	}
	if p.UID != 0 || p.PID != cmd.Process.Pid || p.Executable != "" {
		t.Errorf("another user sees %+v; want uid 0, pid %d and no executable", p, cmd.Process.Pid)
	}
}

// program copies the test program, so that it can be replaced.
func program(t *testing.T) string {
	t.Helper()
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	path := filepath.Join(t.TempDir(), "program")
	to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(to, from)
	if err := errors.Join(err, to.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExecutableByItsPath(t *testing.T) {
	t.Parallel()
	other := func(path string) error { return os.WriteFile(path, []byte("another program"), 0o755) }
	for _, c := range []struct {
		name   string
		change func(path string) error
		kept   bool
	}{
		{"unchanged", func(string) error { return nil }, true},
		{"removed", os.Remove, false},
		{"replaced", func(path string) error { return errors.Join(os.Remove(path), other(path)) }, false},
		{"removed, and another file under the name that the kernel shows", func(path string) error {
			return errors.Join(os.Remove(path), other(path+" (deleted)"))
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := program(t)
			l, at := listener(t)
			link := filepath.Join(t.TempDir(), "link")
			if err := os.Symlink(path, link); err != nil {
				t.Fatal(err)
			}
			start(t, "stay", at, func(cmd *exec.Cmd) { cmd.Path, cmd.ExtraFiles = link, nil })
			conn := accept(t, l)
			if err := c.change(path); err != nil {
				t.Fatal(err)
			}
			want := ""
			if c.kept {
				want = path
			}
			if p := known(t, conn); p.Executable != want {
				t.Errorf("executable %q, want %q", p.Executable, want)
			}
		})
	}
}

func TestExecutableUnderAFalsePath(t *testing.T) {
	t.Parallel()
	asRoot(t, "mount")
	l, at := listener(t)
	target := filepath.Join(t.TempDir(), "trusted")
	if err := os.WriteFile(target, []byte("the program that is trusted"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd, _ := start(t, "masquerade", at, func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, "PEER_TEST_TARGET="+target)
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	})
	p := known(t, accept(t, l))
	if shown := executableOf(t, cmd.Process.Pid); shown != target {
		t.Fatalf("the kernel shows %q; the trick needs %q", shown, target)
	}
	if p.Executable != "" {
		t.Errorf("executable %q of a process that runs another file", p.Executable)
	}
}

func TestProcessInAnotherPIDNamespace(t *testing.T) {
	t.Parallel()
	asRoot(t, "make a pid namespace")
	l, at := listener(t)
	cmd, _ := start(t, "stay", at, nil)
	conn := accept(t, l)
	f, err := conn.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	start(t, "judge", "", func(cmd *exec.Cmd) { // it does not see our processes
		cmd.Stdout = w
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	})
	_ = w.Close()
	var p Peer
	if err := json.NewDecoder(r).Decode(&p); err != nil {
		t.Fatal(err)
	}
	if p.UID != os.Geteuid() || p.PID != 0 || p.Executable != "" {
		t.Errorf("%+v of pid %d; want the uid alone", p, cmd.Process.Pid)
	}
}

func TestPinByNumber(t *testing.T) {
	t.Parallel()
	_, at := listener(t)
	cmd, end := start(t, "stay", at, nil)
	fd, err := pinByNumber(cmd.Process.Pid)
	if err != nil || fd < 0 {
		t.Fatalf("pinByNumber: %d, %v", fd, err)
	}
	p := &Peer{PID: cmd.Process.Pid, pidfd: os.NewFile(uintptr(fd), "pidfd")}
	defer p.Close()
	unpinned := &Peer{PID: cmd.Process.Pid}
	if !p.Alive() || !unpinned.Alive() {
		t.Error("a process that waits is not alive")
	}
	end()
	if p.Alive() || unpinned.Alive() {
		t.Error("a process that has ended is alive")
	}
	if fd, err := pinByNumber(cmd.Process.Pid); !errors.Is(err, backend.ErrDenied) {
		t.Errorf("pinByNumber of a process that has ended: %d, %v; want denied", fd, err)
	}
	if fd, err := pinByNumber(0); fd != -1 || err != nil {
		t.Errorf("pinByNumber of no process: %d, %v; want none", fd, err)
	}
}

func TestCloseWhileAliveIsAsked(t *testing.T) {
	t.Parallel()
	l, at := listener(t)
	start(t, "stay", at, nil)
	p := known(t, accept(t, l))
	var asking sync.WaitGroup
	for range 4 {
		asking.Go(func() {
			for range 100 {
				p.Alive()
			}
		})
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	asking.Wait()
	if p.Alive() {
		t.Error("a closed Peer is alive")
	}
	if err := (*Peer)(nil).Close(); err != nil {
		t.Errorf("Close of none: %v", err)
	}
}

func TestNoConnection(t *testing.T) {
	t.Parallel()
	l, at := listener(t)
	c, err := net.Dial("unix", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	conn := accept(t, l)
	_ = conn.Close()
	if p, err := Of(conn); err == nil {
		t.Errorf("Of a closed connection: %+v", p)
	}
}

func BenchmarkOf(b *testing.B) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(pair[1])
	f := os.NewFile(uintptr(pair[0]), "connection")
	c, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	for b.Loop() {
		p, err := Of(c.(*net.UnixConn))
		if err != nil {
			b.Fatal(err)
		}
		_ = p.Close()
	}
}
