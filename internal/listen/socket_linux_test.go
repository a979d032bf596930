package listen

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/credresolve/credresolve/backend"
)

func wantMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	if st, err := os.Lstat(path); err != nil || st.Mode() != want {
		t.Errorf("%s: %v, %v; want %v", path, st, err, want)
	}
}

func open(t *testing.T, path string, o Options) *Socket {
	t.Helper()
	s, err := Unix(path, o)
	must(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestUnix(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	path := filepath.Join(dir, "run", "credresolve", "sock")
	s := open(t, path, Options{})
	wantMode(t, filepath.Dir(path), fs.ModeDir|0o700)
	wantMode(t, path, fs.ModeSocket|0o600)
	if got := s.Addr().String(); got != path {
		t.Errorf("address %q, want %q", got, path)
	}
	c, err := net.Dial("unix", path)
	must(t, err)
	accepted, err := s.Accept()
	must(t, err)
	if _, ok := accepted.(*net.UnixConn); !ok {
		t.Errorf("Accept gave a %T", accepted)
	}
	must(t, errors.Join(s.Close(), s.Close()))
	if c, err := s.Accept(); !errors.Is(err, net.ErrClosed) || c != nil {
		t.Errorf("Accept after Close: %v, %v", c, err)
	}
	if _, err := accepted.Write([]byte("x")); err != nil {
		t.Errorf("a connection ended with its listener: %v", err)
	}
	must(t, errors.Join(c.Close(), accepted.Close()))
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 0 {
		t.Errorf("after Close the directory holds %v, %v", entries, err)
	}
	must(t, open(t, path, Options{}).Close())
}

func TestUnixRefuses(t *testing.T) { // not parallel: it counts descriptors
	mkdir := func(path string, mode fs.FileMode) error {
		return errors.Join(os.MkdirAll(path, 0o755), os.Chmod(path, mode))
	}
	serve := func(path, network string) (err error) { // with a descriptor that ends with the test program
		kind := map[string]int{"stream": syscall.SOCK_STREAM, "dgram": syscall.SOCK_DGRAM}[network]
		fd, err := syscall.Socket(syscall.AF_UNIX, kind|syscall.SOCK_CLOEXEC, 0)
		if err == nil {
			err = syscall.Bind(fd, &syscall.SockaddrUnix{Name: path})
		}
		if err == nil && kind == syscall.SOCK_STREAM {
			err = syscall.Listen(fd, 1)
		}
		return err
	}
	for _, c := range []struct {
		name    string
		root    bool
		prepare func(dir string) error
		path    string // within the directory
		options Options
		code    backend.Code
		says    string
	}{
		{name: "a directory that others can read", path: "d/sock", says: "mode 0755", code: backend.CodeInvalidConfig,
			prepare: func(dir string) error { return mkdir(dir+"/d", 0o755) }},
		{name: "a directory that others can enter", path: "d/sock", says: "chmod 700", code: backend.CodeInvalidConfig,
			prepare: func(dir string) error { return mkdir(dir+"/d", 0o711) }},
		{name: "a directory for a group that is not wanted", path: "d/sock", says: "serve.socket.group", code: backend.CodeInvalidConfig,
			prepare: func(dir string) error { return mkdir(dir+"/d", 0o710) }},
		{name: "a directory without the group that is wanted", path: "d/sock", says: "chmod 710", code: backend.CodeInvalidConfig,
			options: Options{Group: strconv.Itoa(os.Getegid())},
			prepare: func(dir string) error { return mkdir(dir+"/d", 0o700) }},
		{name: "a sticky directory", path: "d/sock", says: "mode 0777", code: backend.CodeInvalidConfig,
			prepare: func(dir string) error { return mkdir(dir+"/d", 0o777|fs.ModeSticky) }},
		{name: "a directory above that others can write to", path: "open/d/sock", says: "others can write", code: backend.CodeInvalidConfig,
			prepare: func(dir string) error { return errors.Join(mkdir(dir+"/open/d", 0o700), os.Chmod(dir+"/open", 0o777)) }},
		{name: "a missing directory in one that others can write to", path: "open/d/e/sock", says: "others can write", code: backend.CodeInvalidConfig,
			prepare: func(dir string) error { return mkdir(dir+"/open", 0o777) }},
		{name: "a file for a directory", path: "d/sock", says: "not a directory", code: backend.CodeInvalidConfig,
			prepare: func(dir string) error { return os.WriteFile(dir+"/d", nil, 0o600) }},
		{name: "a directory of another user", path: "d/sock", says: "user 65534", code: backend.CodeInvalidConfig, root: true,
			prepare: func(dir string) error { return errors.Join(mkdir(dir+"/d", 0o700), os.Chown(dir+"/d", nobody, nobody)) }},
		{name: "a directory above of another user", path: "theirs/d/sock", says: "user 65534", code: backend.CodeInvalidConfig, root: true,
			prepare: func(dir string) error {
				return errors.Join(mkdir(dir+"/theirs/d", 0o700), os.Chown(dir+"/theirs", nobody, nobody))
			}},
		{name: "a link of another user", path: "link/sock", says: "symbolic link of user 65534", code: backend.CodeInvalidConfig, root: true,
			prepare: func(dir string) error {
				return errors.Join(mkdir(dir+"/d", 0o700), os.Symlink("d", dir+"/link"), os.Lchown(dir+"/link", nobody, nobody))
			}},
		{name: "a link that leads nowhere", path: "link/sock", says: "link", code: backend.CodeUnavailable,
			prepare: func(dir string) error { return os.Symlink("nowhere", dir+"/link") }},
		{name: "a file", path: "d/sock", says: "not a socket", code: backend.CodeInvalidConfig,
			prepare: func(dir string) error {
				return errors.Join(mkdir(dir+"/d", 0o700), os.WriteFile(dir+"/d/sock", []byte("kept"), 0o600))
			}},
		{name: "a directory in its place", path: "d/sock", says: "not a socket", code: backend.CodeInvalidConfig,
			prepare: func(dir string) error { return errors.Join(mkdir(dir+"/d", 0o700), mkdir(dir+"/d/sock", 0o700)) }},
		{name: "a link in its place", path: "d/sock", says: "not a socket", code: backend.CodeInvalidConfig,
			prepare: func(dir string) error { return errors.Join(mkdir(dir+"/d", 0o700), os.Symlink("other", dir+"/d/sock")) }},
		{name: "a pipe in its place", path: "d/sock", says: "not a socket", code: backend.CodeInvalidConfig,
			prepare: func(dir string) error {
				return errors.Join(mkdir(dir+"/d", 0o700), syscall.Mkfifo(dir+"/d/sock", 0o600))
			}},
		{name: "a socket that somebody else serves without our lock", path: "d/sock", says: "process " + strconv.Itoa(os.Getpid()), code: backend.CodeUnavailable,
			prepare: func(dir string) error { return errors.Join(mkdir(dir+"/d", 0o700), serve(dir+"/d/sock", "stream")) }},
		{name: "a datagram socket", path: "d/sock", says: "socket of another process", code: backend.CodeUnavailable,
			prepare: func(dir string) error { return errors.Join(mkdir(dir+"/d", 0o700), serve(dir+"/d/sock", "dgram")) }},
		{name: "a long path", path: "a/" + strings.Repeat("x", 110), says: "needs", code: backend.CodeInvalidConfig},
		{name: "a group that is not there", path: "a/b/sock", says: "no group", options: Options{Group: "no-such-group"}, code: backend.CodeInvalidConfig},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.root {
				asRoot(t, "give files away")
			}
			dir := tempDir(t)
			if c.prepare != nil {
				must(t, c.prepare(dir))
			}
			before, open := tree(t, dir), descriptors(t)
			s, err := Unix(filepath.Join(dir, c.path), c.options)
			if err == nil {
				_ = s.Close()
				t.Fatal("no error")
			}
			if backend.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v; want %s and %q", backend.CodeOf(err), err, c.code, c.says)
			}
			if e, ok := errors.AsType[*backend.Error](err); c.code == backend.CodeInvalidConfig && (!ok || e.Remedy == "") {
				t.Errorf("no remedy: %v", err)
			}
			if after := tree(t, dir); after != before {
				t.Errorf("it left\n%sof\n%s", after, before)
			}
			if now := descriptors(t); now != open {
				t.Errorf("it left %d descriptors", now-open)
			}
		})
	}
	if s, err := Unix("run/sock", Options{}); backend.CodeOf(err) != backend.CodeInvalidConfig {
		t.Errorf("a relative path: %v, %v", s, err)
	}
}

func TestUnixThroughOwnLinksAndStickyDirectories(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	must(t, errors.Join(os.Mkdir(dir+"/tmp", 0o777), os.Chmod(dir+"/tmp", 0o777|fs.ModeSticky), os.Symlink("tmp", dir+"/link")))
	s := open(t, dir+"/link/credresolve/sock", Options{})
	wantMode(t, dir+"/tmp/credresolve", fs.ModeDir|0o700)
	wantMode(t, dir+"/tmp/credresolve/sock", fs.ModeSocket|0o600)
	must(t, s.Close())
}

func TestSocketOfAProcessThatWasKilled(t *testing.T) {
	t.Parallel()
	path := filepath.Join(tempDir(t), "d", "sock")
	cmd, a, end := start(t, "serve", path, nil)
	if a.Error != "" {
		t.Fatal(a.Error)
	}
	if s, err := Unix(path, Options{}); backend.CodeOf(err) != backend.CodeUnavailable || !strings.Contains(err.Error(), fmt.Sprintf("served by process %d", cmd.Process.Pid)) {
		t.Errorf("while it lives: %v, %v", s, err)
	}
	must(t, cmd.Process.Kill())
	end()
	wantMode(t, path, fs.ModeSocket|0o600)
	s := open(t, path, Options{})
	c, err := net.Dial("unix", path)
	must(t, err)
	must(t, errors.Join(c.Close(), s.Close()))
}

func TestOneOfManyStartersServes(t *testing.T) {
	t.Parallel()
	path := filepath.Join(tempDir(t), "d", "sock")
	for round := range 20 {
		if round%2 == 1 { // what a killed process left
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
			must(t, err)
			l.SetUnlinkOnClose(false)
			must(t, l.Close())
		}
		var won atomic.Int32
		var first atomic.Pointer[Socket]
		var starting sync.WaitGroup
		for range 8 {
			starting.Go(func() {
				s, err := Unix(path, Options{})
				if err == nil {
					won.Add(1)
					first.Store(s)
				} else if backend.CodeOf(err) != backend.CodeUnavailable {
					t.Error(err)
				}
			})
		}
		starting.Wait()
		if n := won.Load(); n != 1 {
			t.Fatalf("%d serve the same socket", n)
		}
		c, err := net.Dial("unix", path)
		must(t, err)
		must(t, errors.Join(c.Close(), first.Load().Close()))
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestLockIsHandedOn(t *testing.T) {
	t.Parallel()
	path := filepath.Join(tempDir(t), "lock")
	var inside, most atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 20 {
				l, err := take(path, tokenPatience)
				if err != nil {
					t.Error(err)
					return
				}
				if n := inside.Add(1); n > most.Load() {
					most.Store(n)
				}
				inside.Add(-1)
				l.release()
			}
		})
	}
	all.Wait()
	if most.Load() != 1 {
		t.Errorf("%d held the lock at once", most.Load())
	}
}

func TestCloseLeavesWhatIsAnothers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(tempDir(t), "d", "sock")
	s := open(t, path, Options{})
	must(t, os.Remove(path))
	must(t, os.WriteFile(path, []byte("another's"), 0o600))
	must(t, s.Close())
	if text, err := os.ReadFile(path); err != nil || string(text) != "another's" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestSocketHasItsModeFromTheBeginning(t *testing.T) {
	t.Parallel()
	own, group := (fs.ModeSocket | 0o600).String(), (fs.ModeSocket | 0o660).String()
	for _, c := range []struct {
		name, umask, group, aside string
		want                      []string
	}{
		{"nothing masked", "0", "", "", []string{own}},
		{"all masked", "0777", "", "", []string{own, fs.ModeSocket.String()}},
		{"a group, nothing masked", "0", strconv.Itoa(os.Getegid()), "", []string{own, group}},
		{"made aside, nothing masked", "0", "", "yes", []string{own}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t)
			path := filepath.Join(dir, "d", "sock")
			if c.aside != "" {
				must(t, os.Mkdir(filepath.Dir(path), 0o700))
			}
			_, a, _ := start(t, "modes", path, func(cmd *exec.Cmd) {
				cmd.Env = append(cmd.Env, "LISTEN_TEST_UMASK="+c.umask, "LISTEN_TEST_GROUP="+c.group, "LISTEN_TEST_ASIDE="+c.aside)
			})
			if a.Error != "" {
				t.Fatal(a.Error)
			}
			for _, m := range a.Modes {
				if !slices.Contains(c.want, m) {
					t.Errorf("the socket had mode %s; want %v alone", m, c.want)
				}
			}
			if c.aside == "" && len(a.Modes) == 0 {
				t.Error("nothing was seen")
			}
			if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 0 {
				t.Errorf("left: %v, %v", entries, err)
			}
		})
	}
}

func TestGroup(t *testing.T) {
	t.Parallel()
	asRoot(t, "be a process of another user")
	dir := tempDir(t)
	const group = 54321
	with, without := filepath.Join(dir, "with", "sock"), filepath.Join(dir, "without", "sock")
	open(t, with, Options{Group: strconv.Itoa(group)})
	open(t, without, Options{})
	wantMode(t, filepath.Dir(with), fs.ModeDir|0o710)
	wantMode(t, with, fs.ModeSocket|0o660)
	for _, path := range []string{with, filepath.Dir(with)} {
		if st, err := os.Lstat(path); err != nil || st.Sys().(*syscall.Stat_t).Gid != group {
			t.Errorf("%s: group of %v, %v; want %d", path, st, err, group)
		}
	}
	for _, c := range []struct {
		name, path string
		gid        uint32
		lets       bool
	}{
		{"a member", with, group, true},
		{"another user", with, nobody, false},
		{"a member of no matter what", without, group, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, a, _ := start(t, "connect", c.path, as(t, nobody, c.gid, nil))
			if lets := a.Error == ""; lets != c.lets {
				t.Errorf("connects: %v (%s), want %v", lets, a.Error, c.lets)
			}
		})
	}
	t.Run("an existing directory", func(t *testing.T) {
		again := filepath.Join(filepath.Dir(with), "again")
		must(t, open(t, again, Options{Group: strconv.Itoa(group)}).Close())
	})
	t.Run("of which we are no member", func(t *testing.T) {
		own := filepath.Join(dir, "own")
		must(t, errors.Join(os.Mkdir(own, 0o700), os.Chown(own, nobody, nobody)))
		before := tree(t, own)
		_, a, _ := start(t, "serve", filepath.Join(own, "d", "e", "sock"), as(t, nobody, nobody, func(cmd *exec.Cmd) {
			cmd.Env = append(cmd.Env, "LISTEN_TEST_GROUP="+strconv.Itoa(group))
		}))
		if a.Code != backend.CodeUnavailable || !strings.Contains(a.Error, "a member of the group") {
			t.Errorf("%s: %s", a.Code, a.Error)
		}
		if after := tree(t, own); after != before {
			t.Errorf("it left\n%s", after)
		}
	})
}

func TestDescriptorsEndWithTheSocket(t *testing.T) { // not parallel
	path := filepath.Join(tempDir(t), "d", "sock")
	must(t, open(t, path, Options{}).Close()) // the runtime's own
	before := descriptors(t)
	for range 20 {
		must(t, open(t, path, Options{}).Close())
	}
	if now := descriptors(t); now != before {
		t.Errorf("%d descriptors before, %d after", before, now)
	}
}
