//go:build unix

package audit

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/credresolve/credresolve/backend"
)

func TestFileIsRefused(t *testing.T) {
	t.Parallel()
	make := func(path string) error { return os.WriteFile(path, []byte("{}\n"), 0o600) }
	for _, tt := range []struct {
		name    string
		prepare func(path string) error
		want    string // empty: taken
	}{
		{"a file of before", make, ""},
		{"one that a group may read", func(p string) error { return errors.Join(make(p), os.Chmod(p, 0o640)) }, ""},
		{"one that others may read", func(p string) error { return errors.Join(make(p), os.Chmod(p, 0o604)) }, "others can read or write it, or its group write; run: chmod 600 on it"},
		{"one that a group may write", func(p string) error { return errors.Join(make(p), os.Chmod(p, 0o660)) }, "others can read or write it, or its group write; run: chmod 600 on it"},
		{"a link", func(p string) error { return errors.Join(make(p+"x"), os.Symlink(p+"x", p)) }, "it is a symbolic link"},
		{"a link to nothing", func(p string) error { return os.Symlink(p+"x", p) }, "it is a symbolic link"},
		{"two names", func(p string) error { return errors.Join(make(p+"x"), os.Link(p+"x", p)) }, "it has more than one name; move it away"},
		{"a directory", func(p string) error { return os.Mkdir(p, 0o700) }, "is a directory"},
		{"a FIFO", func(p string) error { return unix.Mkfifo(p, 0o600) }, "it is not a regular file"},
		{"somebody else's", func(p string) error { return errors.Join(make(p), os.Chown(p, 4711, -1)) }, "it belongs to another user; move it away"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.name == "somebody else's" && os.Geteuid() != 0 {
				t.Skip("needs root to give a file away")
			}
			s, _ := toFile(t)
			path := filepath.Join(s.Dir, FileName)
			if err := tt.prepare(path); err != nil {
				t.Fatal(err)
			}
			l, err := Open(s)
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				_ = l.Close()
				return
			}
			if err == nil || !strings.HasPrefix(err.Error(), "the audit log "+path+" cannot be opened: ") || !strings.HasSuffix(err.Error(), tt.want) {
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
}

func TestNewFileIsTheOwnersAlone(t *testing.T) {
	t.Parallel()
	s, _ := toFile(t)
	open(t, s)
	st, err := os.Stat(filepath.Join(s.Dir, FileName))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

func TestFileMovedAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, w := toFile(t)
		path := filepath.Join(s.Dir, FileName)
		l, err := Open(s)
		if err != nil {
			t.Fatal(err)
		}
		move := func(to string) {
			t.Helper()
			if err := os.Rename(path, filepath.Join(s.Dir, to)); err != nil {
				t.Fatal(err)
			}
		}
		say(t, l, "1")
		move("first")
		if err := l.Apply(s); err != nil {
			t.Fatal(err)
		}
		say(t, l, "2") // at once after Apply
		move("second")
		time.Sleep(lookEvery)
		say(t, l, "3")
		say(t, l, "4")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * leaseTime)
		say(t, l, "5") // without the second, since 3 and 4 would follow into nowhere
		move("third")
		if err := os.Symlink("/etc/passwd", path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lookEvery)
		if err := l.Write([]Record{{Event: EventReveal}}); !errors.Is(err, backend.ErrInvalidConfig) && !errors.Is(err, backend.ErrUnavailable) {
			t.Errorf("a link in the place of the file: %v", err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		say(t, l, "6")
		time.Sleep(2 * syncEvery)
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		for name, want := range map[string]string{"first": "1", "second": "2", "third": "5", FileName: "6"} {
			expect(t, []string{want}, filepath.Join(s.Dir, name))
		}
		if told := w.take(); len(told) != 2 {
			t.Errorf("told: %q", told)
		}
	})
}

// What a process that was killed left behind does not take the next line with it.
func TestTornLineIsEnded(t *testing.T) {
	t.Parallel()
	s, _ := toFile(t)
	path := filepath.Join(s.Dir, FileName)
	tear := func() {
		t.Helper()
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(`{"time":"torn`); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	tear()
	l := open(t, s)
	say(t, l, "1")
	tear()
	say(t, l, "2")
	say(t, l, "3")
	time.Sleep(2 * leaseTime)
	tear()
	say(t, l, "4")
	got, broken := reasons(t, path)
	if !slices.Equal(got, []string{"1", "2", "3", "4"}) || len(broken) != 3 {
		t.Errorf("%v, %q", got, broken)
	}
}

// Several logs, as several processes have them, with rotation among them.
func TestSeveralWriters(t *testing.T) {
	t.Parallel()
	s, w := toFile(t)
	keep := 1000
	s.Keep, s.MaxBytes = &keep, 2000
	const logs, callers, calls = 3, 4, 40
	var wg sync.WaitGroup
	var want []string
	for n := range logs {
		l := open(t, s)
		for c := range callers {
			for i := range calls {
				want = append(want, fmt.Sprintf("%d %d %d", n, c, i))
			}
			wg.Go(func() {
				for i := range calls {
					say(t, l, fmt.Sprintf("%d %d %d", n, c, i))
				}
			})
		}
	}
	wg.Wait()
	files, err := filepath.Glob(filepath.Join(s.Dir, FileName+"*"))
	if err != nil || len(files) < 10 {
		t.Errorf("%d files, %v", len(files), err)
	}
	expect(t, want, files...)
	if told := w.take(); told != nil {
		t.Errorf("told: %q", told)
	}
}

// A process that was stopped while it has the lock holds nobody up for long.
func TestLockThatIsNotGiven(t *testing.T) {
	t.Parallel()
	s, w := toFile(t)
	path := filepath.Join(s.Dir, FileName)
	l := open(t, s)
	holder, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	if err := unix.Flock(int(holder.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	for n := range 5 {
		say(t, l, fmt.Sprint(n))
	}
	if took := time.Since(begun); took < lockPatience || took > 3*lockPatience {
		t.Errorf("took %v", took)
	}
	expect(t, []string{"0", "1", "2", "3", "4"}, path)
	if told := w.take(); told != nil {
		t.Errorf("told: %q", told)
	}
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Skip("needs root to mount a tmpfs")
	}
	for _, onFailure := range []string{"deny", "allow"} {
		t.Run(onFailure, func(t *testing.T) {
			t.Parallel()
			s, w := toFile(t)
			if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", s.Dir).CombinedOutput(); err != nil {
				t.Skipf("needs root to mount a tmpfs: %v: %s", err, out)
			}
			t.Cleanup(func() {
				if out, err := exec.Command("umount", "-l", s.Dir).CombinedOutput(); err != nil {
					t.Errorf("%v: %s", err, out)
				}
			})
			s.OnFailure = onFailure
			path := filepath.Join(s.Dir, FileName)
			other := filepath.Join(s.Dir, "ballast")
			if err := os.WriteFile(other, make([]byte, 20<<10), 0o600); err != nil {
				t.Fatal(err)
			}
			l := open(t, s)
			var mu sync.Mutex
			var kept []string
			lost := 0
			fill := func(round string) {
				var wg sync.WaitGroup
				for c := range 8 {
					wg.Go(func() {
						for n := range 100 {
							reason := fmt.Sprintf("%s %d %d %s", round, c, n, strings.Repeat("x", n%50))
							before := l.Lost()
							err := l.Write([]Record{{Event: EventReveal, Reason: reason}})
							mu.Lock()
							switch {
							case err != nil:
								lost++
								if !errors.Is(err, backend.ErrUnavailable) || err.Error() != "the audit log cannot be written: no space left on device" {
									t.Error(err)
								}
							case onFailure == "deny" || l.Lost() == before: // else it may be another's that is lost
								kept = append(kept, reason)
							}
							mu.Unlock()
						}
					})
				}
				wg.Wait()
			}
			fill("full")
			long := []Record{{Event: EventReveal, Reason: strings.Repeat("x", maxText)}} // a short one may find room yet
			if err := l.Write(long); err != nil {
				lost++
			}
			told := w.take()
			if onFailure == "deny" && (lost == 0 || l.Lost() != 0) || onFailure == "allow" && (lost != 0 || l.Lost() == 0) || len(told)%2 != 1 { // it fails, works, fails
				t.Errorf("%d refused, %d lost, told %q", lost, l.Lost(), told)
			}
			if !strings.HasPrefix(told[0], "the audit log cannot be written: no space left on device; requests are ") {
				t.Error(told[0])
			}
			got, broken := reasons(t, path)
			if len(broken) > 0 || len(got) < 100 || len(got)+lost+int(l.Lost()) != 801 {
				t.Errorf("%d lines, %d refused, %d lost, broken %q", len(got), lost, l.Lost(), broken)
			}
			if err := os.Remove(other); err != nil {
				t.Fatal(err)
			}
			say(t, l, "room")
			if told := w.take(); len(told) != 1 || !strings.HasPrefix(told[0], "the audit log is written again; requests without their lines: ") {
				t.Errorf("told %q", told)
			}
			got, broken = reasons(t, path)
			if len(broken) > 0 || got[len(got)-1] != "room" {
				t.Errorf("broken %q", broken)
			}
			there := map[string]bool{}
			for _, reason := range got {
				if there[reason] {
					t.Errorf("twice: %s", reason)
				}
				there[reason] = true
			}
			for _, reason := range kept {
				if !there[reason] {
					t.Errorf("acknowledged and not there: %s", reason)
				}
			}
		})
	}
}

func TestKilledProcessLosesNoAcknowledgedLine(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, FileName)
	var mu sync.Mutex
	var acknowledged []string
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for range 4 {
				cmd := exec.Command(self)
				cmd.Env = append(os.Environ(), "AUDIT_TEST_CHILD="+path)
				out, err := cmd.StdoutPipe()
				if err != nil {
					t.Error(err)
					return
				}
				if err := cmd.Start(); err != nil {
					t.Error(err)
					return
				}
				lines := bufio.NewScanner(out)
				var own []string
				for lines.Scan() {
					if len(own) == 0 {
						time.AfterFunc(time.Duration(rand.IntN(30_000))*time.Microsecond, func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
					}
					own = append(own, lines.Text())
				}
				_ = cmd.Wait()
				mu.Lock()
				acknowledged = append(acknowledged, own...)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	files, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	got, broken := reasons(t, files...)
	there := map[string]bool{}
	for _, reason := range got {
		there[reason] = true
	}
	missing := 0
	for _, reason := range acknowledged {
		// The pipe may end in the middle of an acknowledgement.
		if !there[reason] && len(strings.Fields(reason)) >= 3 && !slices.ContainsFunc(got, func(g string) bool { return strings.HasPrefix(g, reason) }) {
			missing++
			t.Errorf("acknowledged and not there: %.60s", reason)
		}
	}
	if len(acknowledged) < 100 {
		t.Errorf("%d lines were acknowledged", len(acknowledged))
	}
	if len(broken) > 2*12 {
		t.Errorf("%d broken lines: %.300q", len(broken), broken)
	}
	t.Logf("%d acknowledged, %d there in %d files, %d torn by a kill", len(acknowledged), len(got), len(files), len(broken))
}
