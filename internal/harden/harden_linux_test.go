package harden

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/process"
	"golang.org/x/sys/unix"
)

// The test program is its own children: what they do is in child.
const (
	childDoes = "HARDEN_TEST_CHILD"
	nobody    = 65534
)

func TestMain(m *testing.M) {
	if what := os.Getenv(childDoes); what != "" {
		if err := json.NewEncoder(os.Stdout).Encode(child(what)); err != nil {
			os.Exit(1)
		}
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// answer is what a child says on its first line. Then it waits until its standard input ends.
type answer struct {
	Report   Report
	Text     string
	Code     backend.Code
	Error    string
	Core     unix.Rlimit
	Dumpable int
	VmLck    int // KiB
	VmRSS    int
	Ran      string
	Tried    map[string]string // what a spy did to the process: the error, empty if it could
}

func child(what string) (a answer) {
	fill := func(err error) answer {
		if err != nil {
			a.Code, a.Error = backend.CodeOf(err), err.Error()
		}
		return a
	}
	switch what {
	case "plain":
		return a
	case "apply":
		var err error
		a.Report, err = Apply(Settings{Lock: os.Getenv("HARDEN_TEST_LOCK")})
		a.Text = a.Report.String()
		if err == nil && os.Getenv("HARDEN_TEST_WORK") != "" {
			err = work()
			a.Ran, _ = runByDescriptor()
		}
		_ = unix.Getrlimit(unix.RLIMIT_CORE, &a.Core)
		a.Dumpable, _ = unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
		status, _ := os.ReadFile("/proc/self/status")
		a.VmLck, a.VmRSS = kib(status, "VmLck"), kib(status, "VmRSS")
		return fill(err)
	case "spy":
		a.Tried = spy(os.Getenv("HARDEN_TEST_PID"))
		return a
	}
	return fill(errors.New("unknown"))
}

func kib(status []byte, name string) int {
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			n, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			return n
		}
	}
	return -1
}

// work uses and frees memory, threads and programs, as a sidecar does.
func work() error {
	for range 4 {
		var all sync.WaitGroup
		for range 16 {
			all.Go(func() {
				runtime.LockOSThread() // a thread of its own, which ends
				b := make([]byte, 8<<20)
				for i := 0; i < len(b); i += 4096 {
					b[i] = 1
				}
				time.Sleep(time.Millisecond)
			})
		}
		all.Wait()
		debug.FreeOSMemory()
	}
	_, err := exec.Command("/bin/true").Output()
	return err
}

// runByDescriptor runs a program as pinned ones are run.
func runByDescriptor() (string, error) {
	f, err := os.Open("/bin/echo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	out, err := process.Run(context.Background(), process.Command{Path: "/bin/echo", Executable: f, Args: []string{"echo", "ran"}})
	return strings.TrimSpace(string(out)), err
}

// spy tries to get at the memory of another process.
func spy(pid string) map[string]string {
	runtime.LockOSThread()
	tried := map[string]string{}
	did := func(what string, err error) {
		tried[what] = ""
		if err != nil {
			tried[what] = err.Error()
		}
	}
	for _, name := range []string{"mem", "environ", "maps"} {
		f, err := os.Open(filepath.Join("/proc", pid, name))
		if err == nil {
			_, err = f.Read(make([]byte, 1))
			if name == "mem" && errors.Is(err, unix.EIO) { // nothing is mapped at 0: it could be read elsewhere
				err = nil
			}
			_ = f.Close()
		}
		did(name, err)
	}
	n, _ := strconv.Atoi(pid)
	buf := make([]byte, 1)
	_, err := unix.ProcessVMReadv(n, []unix.Iovec{{Base: &buf[0], Len: 1}}, []unix.RemoteIovec{{Base: 1, Len: 1}}, 0)
	if errors.Is(err, unix.EFAULT) { // as above
		err = nil
	}
	did("process_vm_readv", err)
	err = unix.PtraceAttach(n)
	did("ptrace", err)
	if err == nil {
		var status unix.WaitStatus
		_, _ = unix.Wait4(n, &status, unix.WALL, nil)
		_ = unix.PtraceDetach(n)
	}
	return tried
}

// start starts a child and gives its answer. Another user cannot reach the program by its path, so it is executed by a
// descriptor.
func start(t *testing.T, what string, uid uint32, change func(*exec.Cmd)) (cmd *exec.Cmd, a answer, end func()) {
	t.Helper()
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	cmd = exec.Command("/proc/self/fd/3")
	cmd.ExtraFiles = []*os.File{self}
	cmd.Env = []string{childDoes + "=" + what}
	cmd.Stderr = os.Stderr
	if int(uid) != os.Geteuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
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

func asRoot(t *testing.T, to string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to " + to + ": run the tests as root")
	}
}

func applied(lock string, more ...string) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) { cmd.Env = append(append(cmd.Env, "HARDEN_TEST_LOCK="+lock), more...) }
}

func TestNothingIsDumped(t *testing.T) {
	t.Parallel()
	for _, lock := range []string{"", LockAuto, LockOff} {
		_, a, _ := start(t, "apply", uint32(os.Geteuid()), applied(lock))
		if a.Error != "" {
			t.Fatal(a.Error)
		}
		if a.Core != (unix.Rlimit{}) || a.Dumpable != 0 || !a.Report.NoCores || !a.Report.NotDumpable {
			t.Errorf("lock %q: core limit %v, dumpable %d, %+v", lock, a.Core, a.Dumpable, a.Report)
		}
		if strings.Contains(a.Text, "\n") || !strings.Contains(a.Text, "no core dumps") {
			t.Errorf("lock %q: report %q", lock, a.Text)
		}
	}
}

func TestCoreDumps(t *testing.T) {
	t.Parallel()
	pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil || bytes.ContainsAny(pattern, "|/") {
		t.Skip("needs core dumps that go to the working directory")
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil || limit.Max == 0 {
		t.Skip("needs a limit that lets core dumps be written")
	}
	for _, c := range []struct {
		does string
		want bool
	}{{"plain", true}, {"apply", false}} {
		dir := t.TempDir()
		cmd, _, end := start(t, c.does, uint32(os.Geteuid()), func(cmd *exec.Cmd) {
			cmd.Dir = dir
			cmd.Path = "/bin/sh"
			cmd.Args = []string{"sh", "-c", "ulimit -S -c 1024; exec /proc/self/fd/3"}
			cmd.Env = append(cmd.Env, "GOTRACEBACK=crash")
			cmd.Stderr = nil
		})
		if err := cmd.Process.Signal(syscall.SIGSYS); err != nil {
			t.Fatal(err)
		}
		end()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		status := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if !status.Signaled() {
			t.Errorf("%s: ended as %v, not by a signal", c.does, cmd.ProcessState)
		}
		if status.CoreDump() != c.want || len(entries) > 0 != c.want {
			t.Errorf("%s: dumped core: %v, files %v; want %v", c.does, status.CoreDump(), entries, c.want)
		}
	}
}

func TestLock(t *testing.T) {
	t.Parallel()
	t.Run("with CAP_IPC_LOCK", func(t *testing.T) {
		t.Parallel()
		if !lockCapable() {
			t.Skip("needs CAP_IPC_LOCK: run the tests as root")
		}
		_, off, _ := start(t, "apply", uint32(os.Geteuid()), applied(LockOff, "HARDEN_TEST_WORK=yes"))
		if off.Report.Locked || off.VmLck != 0 || off.Report.Unlocked == "" {
			t.Errorf("off: %+v, %d KiB locked", off.Report, off.VmLck)
		}
		for _, lock := range []string{LockAuto, LockRequire} {
			_, a, _ := start(t, "apply", uint32(os.Geteuid()), applied(lock, "HARDEN_TEST_WORK=yes"))
			if a.Error != "" {
				t.Fatal(a.Error)
			}
			if !a.Report.Locked || a.VmLck <= 0 || a.Report.Unlocked != "" || !strings.Contains(a.Text, "out of swap") {
				t.Errorf("%s: %+v, %d KiB locked", lock, a.Report, a.VmLck)
			}
			if a.VmRSS > off.VmRSS+64<<10 { // 128 MiB were used four times
				t.Errorf("%s: %d KiB are resident, %d without: memory is not given back", lock, a.VmRSS, off.VmRSS)
			}
		}
	})
	t.Run("with a finite limit", func(t *testing.T) {
		t.Parallel()
		asRoot(t, "start a process without capabilities")
		var limit unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil || limit.Max == unix.RLIM_INFINITY {
			t.Skip("needs a finite RLIMIT_MEMLOCK")
		}
		_, a, _ := start(t, "apply", nobody, applied(LockAuto, "HARDEN_TEST_WORK=yes"))
		if a.Error != "" || a.Report.Locked || a.VmLck != 0 || !strings.Contains(a.Text, "RLIMIT_MEMLOCK is") {
			t.Errorf("auto: %s, %+v, %d KiB locked", a.Error, a.Report, a.VmLck)
		}
		if a.Ran != "ran" {
			t.Errorf("a program run by its descriptor said %q", a.Ran)
		}
		_, a, _ = start(t, "apply", nobody, applied(LockRequire))
		if a.Code != backend.CodeUnavailable || !strings.Contains(a.Error, "LimitMEMLOCK=infinity") || a.VmLck != 0 {
			t.Errorf("require: %s: %s, %d KiB locked", a.Code, a.Error, a.VmLck)
		}
	})
	t.Run("with no limit", func(t *testing.T) {
		t.Parallel()
		asRoot(t, "start a process without capabilities")
		var limit unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil || limit.Max != unix.RLIM_INFINITY {
			t.Skip("needs an unlimited RLIMIT_MEMLOCK: run the tests after ulimit -l unlimited")
		}
		_, a, _ := start(t, "apply", nobody, applied(LockRequire, "HARDEN_TEST_WORK=yes"))
		if a.Error != "" || !a.Report.Locked || a.VmLck <= 0 {
			t.Errorf("%s, %+v, %d KiB locked", a.Error, a.Report, a.VmLck)
		}
	})
	if _, err := Apply(Settings{Lock: "perhaps"}); backend.CodeOf(err) != backend.CodeInvalidConfig {
		t.Errorf("an unknown setting: %v", err)
	}
}

func TestCapabilityInAUserNamespace(t *testing.T) {
	t.Parallel()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil || limit.Max == unix.RLIM_INFINITY {
		t.Skip("needs a finite RLIMIT_MEMLOCK")
	}
	if out, err := exec.Command("unshare", "--user", "--map-root-user", "true").CombinedOutput(); err != nil {
		t.Skipf("needs user namespaces: %s", out)
	}
	_, a, _ := start(t, "apply", uint32(os.Geteuid()), func(cmd *exec.Cmd) {
		applied(LockAuto)(cmd)
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		}
	})
	if a.Error != "" || a.Report.Locked || a.VmLck != 0 {
		t.Errorf("%s, %+v, %d KiB locked", a.Error, a.Report, a.VmLck)
	}
}

func TestForbidden(t *testing.T) {
	t.Parallel()
	const inf = uint64(unix.RLIM_INFINITY)
	for _, c := range []struct {
		name     string
		cur, max uint64
		capable  bool
		want     bool
	}{
		{"a limit", 8 << 20, 8 << 20, false, true},
		{"a great limit", 64 << 30, 64 << 30, false, true},
		{"a limit that does not count", 8 << 20, 8 << 20, true, false},
		{"a limit that can be lifted", 8 << 20, inf, false, false},
		{"no limit", inf, inf, false, false},
		{"nothing may be locked", 0, 0, false, true},
	} {
		if why := forbidden(unix.Rlimit{Cur: c.cur, Max: c.max}, c.capable); (why != "") != c.want {
			t.Errorf("%s: %q; forbidden: %v", c.name, why, c.want)
		}
	}
}

func TestOthersCannotRead(t *testing.T) {
	t.Parallel()
	asRoot(t, "be two processes of another user")
	const other = 65533
	try := func(does string, uid, spyUID uint32) map[string]string {
		cmd, a, _ := start(t, does, uid, applied(LockOff))
		if a.Error != "" {
			t.Fatal(a.Error)
		}
		_, spied, _ := start(t, "spy", spyUID, func(cmd2 *exec.Cmd) {
			cmd2.Env = append(cmd2.Env, fmt.Sprint("HARDEN_TEST_PID=", cmd.Process.Pid))
		})
		return spied.Tried
	}
	// Without it, a process of the same user can, though a module such as Yama may forbid to trace.
	if failed := try("plain", nobody, nobody)["maps"]; failed != "" {
		t.Errorf("the test shows nothing, for this is refused anyway: %s", failed)
	}
	for _, c := range []struct {
		name     string
		uid, spy uint32
	}{{"the same user", nobody, nobody}, {"another user", nobody, other}, {"a user, from root", 0, nobody}} {
		tried := try("apply", c.uid, c.spy)
		if len(tried) == 0 {
			t.Errorf("%s tried nothing", c.name)
		}
		for what, failed := range tried {
			if failed == "" {
				t.Errorf("%s can: %s", c.name, what)
			}
		}
	}
}
