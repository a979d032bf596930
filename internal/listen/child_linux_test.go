package listen

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/credresolve/credresolve/backend"
	"go.uber.org/goleak"
)

// The test program is its own children: what they do is in child.
const (
	childDoes = "LISTEN_TEST_CHILD"
	childAt   = "LISTEN_TEST_PATH"
	canary    = "hunter2-c4nary"
	nobody    = 65534
)

func TestMain(m *testing.M) {
	if what := os.Getenv(childDoes); what != "" {
		answer := child(what, os.Getenv(childAt))
		if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
			os.Exit(1)
		}
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// answer is what a child says on its first line. Then it waits until its standard input ends.
type answer struct {
	Code  backend.Code
	Error string
	Modes []string // that the socket's file had
	Names []string // of what was handed over
	Addrs []string
	Heard string
	Fewer int // descriptors that a program gets than before
}

func (a answer) with(err error) answer {
	if err != nil {
		a.Code, a.Error = backend.CodeOf(err), err.Error()
	}
	return a
}

func child(what, at string) (a answer) {
	switch what {
	case "serve":
		_, err := Unix(at, Options{Group: os.Getenv("LISTEN_TEST_GROUP")})
		return a.with(err)
	case "connect":
		c, err := net.Dial("unix", at)
		if err == nil {
			_ = c.Close()
		}
		return a.with(err)
	case "modes":
		mask, err := strconv.ParseInt(os.Getenv("LISTEN_TEST_UMASK"), 8, 32)
		if err != nil {
			return a.with(err)
		}
		syscall.Umask(int(mask))
		a.Modes, err = modes(at, Options{Group: os.Getenv("LISTEN_TEST_GROUP")}, os.Getenv("LISTEN_TEST_ASIDE") != "")
		return a.with(err)
	case "token":
		token, err := Token(at)
		a.Heard = string(token)
		return a.with(err)
	case "activated":
		before, err := passedOn()
		if err != nil {
			return a.with(err)
		}
		handed, err := Activated(func(name string) (string, bool) {
			if v, ok := os.LookupEnv("TEST_" + name); ok { // the pid is not known before the process is
				if v == "ours" {
					v = strconv.Itoa(os.Getpid())
				}
				return v, true
			}
			return os.LookupEnv(name)
		})
		for _, l := range handed {
			a.Names = append(a.Names, l.Name)
			a.Addrs = append(a.Addrs, l.Addr().Network()+" "+l.Addr().String())
		}
		if len(handed) > 0 && os.Getenv("LISTEN_TEST_ACCEPT") != "" {
			c, err := handed[0].Accept()
			if err != nil {
				return a.with(err)
			}
			b := make([]byte, 1)
			_, err = io.ReadFull(c, b)
			if a.Heard = string(b); err != nil {
				return a.with(err)
			}
		}
		after, failed := passedOn()
		a.Fewer = before - after
		return a.with(cmp.Or(err, failed))
	}
	return a.with(fmt.Errorf("unknown"))
}

// passedOn counts the descriptors that a program gets, some of which may be the test's own inheritance.
func passedOn() (int, error) {
	out, err := exec.Command("/bin/sh", "-c", "ls /proc/self/fd | wc -l").Output()
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(out)))
}

// modes opens and closes the socket often, and gives the modes that others see meanwhile.
func modes(at string, o Options, aside bool) ([]string, error) {
	stop := make(chan struct{})
	var mu sync.Mutex
	seen := map[fs.FileMode]bool{}
	look := func() {
		if st, err := os.Lstat(at); err == nil {
			mu.Lock()
			defer mu.Unlock()
			seen[st.Mode()] = true
		}
	}
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			look()
		}
	})
	err := func() error {
		for range 300 {
			if aside {
				l, err := bindAside(at)
				if err != nil {
					return err
				}
				if st, err := os.Lstat(at); err != nil || st.Mode().Perm() != 0o600 {
					return fmt.Errorf("bindAside made %v, %v", st, err)
				}
				_ = os.Remove(at)
				_ = l.Close()
				continue
			}
			s, err := Unix(at, o)
			if err != nil {
				return err
			}
			look()
			_ = s.Close()
		}
		return nil
	}()
	close(stop)
	watching.Wait()
	var texts []string
	for m := range seen {
		texts = append(texts, m.String())
	}
	return texts, err
}

// start starts a child and gives its answer.
func start(t *testing.T, what, at string, change func(*exec.Cmd)) (cmd *exec.Cmd, a answer, end func()) {
	t.Helper()
	cmd = exec.Command("/proc/" + strconv.Itoa(os.Getpid()) + "/exe")
	cmd.Env = []string{childDoes + "=" + what, childAt + "=" + at}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
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
		_ = cmd.Wait()
	})
	t.Cleanup(end)
	late := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	if err := json.NewDecoder(stdout).Decode(&a); err != nil {
		t.Fatalf("child %s: %v", what, err)
	}
	return cmd, a, end
}

// as makes a child one of another user, who cannot reach the program by its path: it is executed by a descriptor.
func as(t *testing.T, uid, gid uint32, more func(*exec.Cmd)) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) {
		self, err := os.Open("/proc/self/exe")
		must(t, err)
		t.Cleanup(func() { _ = self.Close() })
		cmd.Path, cmd.ExtraFiles = "/proc/self/fd/3", []*os.File{self}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
		if more != nil {
			more(cmd)
		}
	}
}

func asRoot(t *testing.T, to string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to " + to + ": run the tests as root")
	}
}

// tempDir gives a directory that is reached without links, and that every user can enter but not write to.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "listen")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	dir, err = filepath.EvalSymlinks(dir)
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tree lists what is below dir, with modes.
func tree(t *testing.T, dir string) string {
	t.Helper()
	all := ""
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		all += fmt.Sprintln(path, st.Mode())
		return nil
	}))
	return all
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}
