//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// response is what OpenClaw reads.
type response struct {
	ProtocolVersion int               `json:"protocolVersion"`
	Values          map[string]string `json:"values"`
	Errors          map[string]struct {
		Code string `json:"code"`
	} `json:"errors"`
}

func (p printed) response(t *testing.T) response {
	t.Helper()
	var r response
	if err := json.Unmarshal([]byte(p.stdout), &r); err != nil || r.ProtocolVersion != 1 || r.Values == nil || r.Errors == nil || p.status != 0 {
		t.Fatalf("status %d, no response: %v\n%s", p.status, err, p.stderr)
	}
	if strings.Contains(p.stderr, canary) {
		t.Error("a secret is on standard error")
	}
	return r
}

func requestFor(provider string, ids ...string) string {
	text, _ := json.Marshal(map[string]any{"protocolVersion": 1, "provider": provider, "ids": ids})
	return string(text)
}

// ask runs openclaw-exec with a request on its standard input.
func (u *user) ask(request string, args ...string) printed {
	u.t.Helper()
	return u.askAs(u.dir, u.env, request, args...)
}

func (u *user) askAs(dir string, env []string, request string, args ...string) printed {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(u.t.Context(), 2*time.Minute)
	defer cancel()
	// A busy machine must not be taken for a store that hangs; of two flags the last counts.
	cmd := exec.CommandContext(ctx, "credresolve", append([]string{"openclaw-exec", "--timeout", "100s"}, args...)...)
	cmd.Dir, cmd.Env, cmd.Stdin = dir, env, strings.NewReader(request)
	var out, msg bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &msg
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		u.t.Fatal(err)
	}
	return printed{out.String(), msg.String(), cmd.ProcessState.ExitCode()}
}

// newHangingUser has a store that answers, and one whose program never does, and which tells the process ids of itself and of
// a child of its own in the file "pids".
func newHangingUser(t *testing.T) *user {
	t.Helper()
	u := newUser(t)
	u.write("hang", "#!/bin/sh\ncd \"$1\"\nsleep 1000 &\necho $$ $! > pids.new\nmv pids.new pids\nwait\n")
	if err := os.Chmod(filepath.Join(u.dir, "hang"), 0o700); err != nil {
		t.Fatal(err)
	}
	u.write("credresolve.yaml", fmt.Sprintf(`version: 1
providers:
  m: {kind: memory, values: {a: a-c4nary, b: b-c4nary}}
  conf: {kind: file, path: %[1]s/secrets.json, mode: json}
  hung: {kind: exec, command: %[1]s/hang, args: [%[1]s]}
`, u.dir))
	u.env = append(u.env, "CREDRESOLVE_CONFIG="+filepath.Join(u.dir, "credresolve.yaml"))
	return u
}

// gone waits until the processes of the file "pids" have ended.
func (u *user) gone() {
	u.t.Helper()
	text, err := os.ReadFile(filepath.Join(u.dir, "pids"))
	if err != nil {
		u.t.Fatal(err)
	}
	var self, child int
	if _, err := fmt.Sscan(string(text), &self, &child); err != nil {
		u.t.Fatal(err)
	}
	for _, pid := range []int{self, child} {
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			if errors.Is(unix.Kill(pid, 0), unix.ESRCH) || zombie(pid) {
				break
			}
			if time.Now().After(end) {
				u.t.Errorf("process %d is still there", pid)
				break
			}
		}
	}
}

// zombie reports whether a process has ended and nobody has looked: where tests run, init may not.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "Z")
}

// A store that hangs costs its own ids their value, and no other id; nothing of it is left.
func TestOpenClawHungStore(t *testing.T) {
	t.Parallel()
	for _, sidecar := range []bool{false, true} {
		t.Run(fmt.Sprintf("sidecar %v", sidecar), func(t *testing.T) {
			t.Parallel()
			u := newHangingUser(t)
			if sidecar {
				u.serve()
			}
			r := u.ask(requestFor("credresolve", "hung/x", "m/a", "conf//key"), "--timeout", "3s").response(t)
			if r.Values["m/a"] != "a-c4nary" || r.Values["conf//key"] != "k-c4nary" || r.Errors["hung/x"].Code != "TIMEOUT" || len(r.Values)+len(r.Errors) != 3 {
				t.Errorf("got %v", r)
			}
			if !sidecar { // where it ends as its own time does
				u.gone()
			}
		})
	}
}

// A provider of which nothing is there in time has failed as a whole.
func TestOpenClawHungAltogether(t *testing.T) {
	t.Parallel()
	u := newHangingUser(t)
	p := u.ask(requestFor("credresolve", "hung/x", "hung/y"), "--timeout", "2s")
	if p.status != 11 || p.stdout != "" || !strings.Contains(p.stderr, "not done within 2s") {
		t.Errorf("status %d, %q, %q", p.status, p.stdout, p.stderr)
	}
	u.gone()
}

// A client that never ends its request is not waited for.
func TestOpenClawOpenRequest(t *testing.T) {
	t.Parallel()
	u := newHangingUser(t)
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer out.Close()
	_, _ = io.WriteString(out, `{"protocolVersion":1,`)
	cmd := exec.CommandContext(t.Context(), "credresolve", "openclaw-exec", "--timeout", "500ms")
	cmd.Dir, cmd.Env, cmd.Stdin = u.dir, u.env, in
	var msg bytes.Buffer
	cmd.Stderr = &msg
	printed, _ := cmd.Output()
	if status := cmd.ProcessState.ExitCode(); status != 11 || len(printed) > 0 {
		t.Errorf("status %d, %q, %s", status, printed, msg.String())
	}
}

// SIGTERM in the middle ends everything, with nothing said and nothing left.
func TestOpenClawTerminated(t *testing.T) {
	t.Parallel()
	u := newHangingUser(t)
	temp := filepath.Join(u.dir, "tmp")
	if err := os.Mkdir(temp, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "credresolve", "openclaw-exec", "--timeout", "1m")
	cmd.Dir, cmd.Env, cmd.Stdin = u.dir, append(u.env, "TMPDIR="+temp), strings.NewReader(requestFor("credresolve", "m/a", "hung/x"))
	var out, msg bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &msg
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(u.dir, "pids")); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the store's program does not start")
		}
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait()
	if status := cmd.ProcessState.ExitCode(); status != 143 || out.Len() > 0 || strings.Contains(msg.String(), canary) {
		t.Errorf("status %d, %q, %q", status, out.String(), msg.String())
	}
	u.gone()
	if left, _ := os.ReadDir(temp); len(left) > 0 {
		t.Errorf("%d files are left in the directory for temporary files", len(left))
	}
	if err := filepath.WalkDir(filepath.Join(u.dir, ".local"), func(path string, _ os.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(filepath.Base(path), ".") && filepath.Base(path) != ".local" {
			t.Errorf("%s is left", path)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// Whatever the directory and the environment are, the configuration that the arguments name is used.
func TestOpenClawAnyPlace(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.write("credresolve.yaml", "version: 1\nproviders:\n  conf: {kind: file, path: secrets.json, mode: json}\n")
	config := filepath.Join(u.dir, "credresolve.yaml")
	state := []string{"XDG_STATE_HOME=" + filepath.Join(u.dir, "state")} // else the home of who runs the tests gets one
	readOnly := filepath.Join(u.dir, "read-only")
	if err := os.Mkdir(readOnly, 0o500); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, dir string
		env       []string
	}{
		{"no environment", "/", state},
		{"a directory without write permission", readOnly, state},
		{"a home that is not there", "/", append([]string{"HOME=/nonexistent", "OPENCLAW_CLI=1"}, state...)},
		{"a state that cannot be written", "/", []string{"XDG_STATE_HOME=/dev/null", "HOME=/dev/null"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := u.askAs(tt.dir, tt.env, requestFor("credresolve", "conf//key"), "--config", config)
			if r := p.response(t); r.Values["conf//key"] != "k-c4nary" || p.stderr != "" {
				t.Errorf("got %v, %s", r, p.stderr)
			}
		})
	}
	t.Run("the home that the system has", func(t *testing.T) {
		t.Parallel()
		me, err := osuser.LookupId(strconv.Itoa(os.Getuid()))
		if err != nil {
			t.Skipf("needs a user that the system knows: %v", err)
		}
		u.write("home.yaml", "version: 1\nproviders:\n  env: {kind: env, allow: [HOME]}\n")
		r := u.askAs("/", state, requestFor("credresolve", "env/HOME"), "--config", filepath.Join(u.dir, "home.yaml")).response(t)
		if r.Values["env/HOME"] != me.HomeDir {
			t.Errorf("got %q, want %q", r.Values["env/HOME"], me.HomeDir)
		}
	})
	t.Run("a directory that is gone", func(t *testing.T) {
		t.Parallel()
		gone := filepath.Join(u.dir, "gone")
		if err := os.Mkdir(gone, 0o700); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "sh", "-c", `rmdir "$PWD"; exec credresolve openclaw-exec --config "$1"`, "sh", config)
		cmd.Dir, cmd.Env, cmd.Stdin = gone, append([]string{"PATH=" + os.Getenv("PATH")}, state...), strings.NewReader(requestFor("credresolve", "conf//key"))
		var msg bytes.Buffer
		cmd.Stderr = &msg
		out, err := cmd.Output()
		if err != nil || !bytes.Contains(out, []byte("k-c4nary")) {
			t.Errorf("%v: %s", err, msg.String())
		}
	})
}

// More than one release of OpenClaw sends at once is answered; more than any can send is refused.
func TestOpenClawManyIDs(t *testing.T) {
	t.Parallel()
	u := newHangingUser(t)
	ids := func(n int) []string {
		out := make([]string, n)
		for i := range out {
			out[i] = fmt.Sprintf("m/none-%d", i)
		}
		out[n/2] = "m/a"
		return out
	}
	for _, n := range []int{600, 4096} {
		r := u.ask(requestFor("credresolve", ids(n)...)).response(t)
		if r.Values["m/a"] != "a-c4nary" || len(r.Errors) != n-1 {
			t.Errorf("%d ids: %d values, %d errors", n, len(r.Values), len(r.Errors))
		}
	}
	for name, request := range map[string]string{
		"ids":   requestFor("credresolve", ids(4097)...),
		"bytes": requestFor("credresolve", "m/a") + strings.Repeat(" ", 5<<20),
	} {
		if p := u.ask(request); p.status != 2 || p.stdout != "" || !strings.Contains(p.stderr, "the request") {
			t.Errorf("%s: status %d, %q, %q", name, p.status, p.stdout, p.stderr)
		}
	}
	// A request of more than 1 MiB that is well-formed has an answer, whose messages stay small.
	big := requestFor("credresolve", ids(4000)...) + strings.Repeat("\n", 3<<20)
	if p := u.ask(big); len(p.stderr) > 16<<10 || p.response(t).Values["m/a"] != "a-c4nary" {
		t.Errorf("%d bytes of messages", len(p.stderr))
	}
}

// A client that does not read ends the program, with no word of a value.
func TestOpenClawClosedOutput(t *testing.T) {
	t.Parallel()
	u := newHangingUser(t)
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = in.Close()
	defer out.Close()
	cmd := exec.CommandContext(t.Context(), "credresolve", "openclaw-exec")
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.Stdout = u.dir, u.env, strings.NewReader(requestFor("credresolve", "m/a")), out
	var msg bytes.Buffer
	cmd.Stderr = &msg
	if err := cmd.Run(); err == nil || strings.Contains(msg.String(), canary) || strings.Contains(msg.String(), "goroutine") {
		t.Errorf("%v: %s", err, msg.String())
	}
}

// A client that reads no messages gets its answer all the same.
func TestOpenClawClosedMessages(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.write("credresolve.yaml", "version: 1\nproviders: {m: {kind: memory, values: {a: s-c4nary}}}\n")
	in, messages, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = in.Close()
	defer messages.Close()
	cmd := exec.CommandContext(t.Context(), "credresolve", "openclaw-exec", "--config", filepath.Join(u.dir, "credresolve.yaml"))
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.Stderr = u.dir, u.env, strings.NewReader(requestFor("credresolve", "m/a", "m/none")), messages
	if out, err := cmd.Output(); err != nil || !strings.Contains(string(out), `"m/a":"s-c4nary"`) {
		t.Errorf("%v: %s", err, out)
	}
}

// Root installs nothing for another user: what resolves for root proves nothing, and the program would be that user's.
func TestOpenClawInstallForAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root, to make another user's home")
	}
	u := newUser(t)
	u.write("credresolve.yaml", "version: 1\nproviders: {m: {kind: memory}}\n")
	home := filepath.Join(u.dir, "oc")
	if err := errors.Join(os.Mkdir(home, 0o700), os.Chown(home, 65534, 65534)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "credresolve", "--config", filepath.Join(u.dir, "credresolve.yaml"), "secretref", "install", "--for", "openclaw", "--copy", home)
	cmd.Dir, cmd.Env = u.dir, u.env
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "sudo -u '#65534'") {
		t.Errorf("%v: %s", err, out)
	}
	if left, err := os.ReadDir(home); err != nil || len(left) > 0 {
		t.Errorf("there are %v, %v", left, err)
	}
}

// Values that OpenClaw has no room for give way, the others come.
func TestOpenClawLargeValues(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	secrets, _ := json.Marshal(map[string]string{"huge": strings.Repeat("c4nary", 200_000), "large": strings.Repeat("c4nary ", 80_000), "small": "s-c4nary"})
	u.write("secrets.json", string(secrets))
	u.write("credresolve.yaml", "version: 1\nproviders:\n  conf: {kind: file, path: secrets.json, mode: json, max_bytes: 10000000}\n")
	u.env = append(u.env, "CREDRESOLVE_CONFIG="+filepath.Join(u.dir, "credresolve.yaml"))
	p := u.ask(requestFor("credresolve", "conf//huge", "conf//large", "conf//small"))
	r := p.response(t)
	if len(p.stdout)+len(p.stderr) > 1<<20 || r.Errors["conf//huge"].Code == "" || r.Values["conf//small"] == "" || r.Values["conf//large"] == "" {
		t.Errorf("%d bytes, errors %v", len(p.stdout)+len(p.stderr), r.Errors)
	}
}

// What a sidecar has costs no call of a store, and a configuration that differs is not answered by it.
func TestOpenClawThroughTheSidecar(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.write("program", "#!/bin/sh\ncd \"$1\"\ncat > /dev/null\necho called >> calls\necho '{\"protocolVersion\": 1, \"values\": {\"a\": \"a-c4nary\"}}'\n")
	if err := os.Chmod(filepath.Join(u.dir, "program"), 0o700); err != nil {
		t.Fatal(err)
	}
	u.write("credresolve.yaml", fmt.Sprintf("version: 1\nproviders:\n  corp: {kind: exec, command: %[1]s/program, args: [%[1]s]}\nopenclaw: {aliases: {key: cred://corp/a}}\n", u.dir))
	u.env = append(u.env, "CREDRESOLVE_CONFIG="+filepath.Join(u.dir, "credresolve.yaml"))
	calls := func() int {
		text, _ := os.ReadFile(filepath.Join(u.dir, "calls"))
		return strings.Count(string(text), "called")
	}
	u.serve()
	for range 3 {
		if r := u.ask(requestFor("credresolve", "corp/a", "key", "x:corp/a")).response(t); len(r.Values) != 3 || r.Values["key"] != "a-c4nary" {
			t.Fatalf("got %v", r)
		}
	}
	if n := calls(); n != 1 {
		t.Errorf("the store was called %d times", n)
	}
}

// The rules to which others' programs are held are held here too.
func TestOpenClawExecConforms(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	values := map[string]string{
		"db/password": "correct-horse-battery-staple", "api/key": "not-a-real-key-0123456789", "odd/white-space": " \t two lines,\r\nand their ends \n\n",
		"odd/unicode": "e\u0301 \u00e9 \u65e5\u672c\u8a9e \U0001f511", "odd/quotes": "\"'\\ \\n $HOME `id` $(id) %s \x01\x1b[0m", "large": strings.Repeat("long-", 20_000),
	}
	secrets, _ := json.Marshal(values)
	u.write("secrets.json", string(secrets))
	u.write("open.json", "{}")
	if err := os.Chmod(filepath.Join(u.dir, "open.json"), 0o644); err != nil {
		t.Fatal(err)
	}
	u.write("credresolve.yaml", "version: 1\nproviders:\n  conf: {kind: file, path: secrets.json, mode: json}\n  open: {kind: file, path: open.json, mode: json}\n")
	known := map[string]map[string]string{"missing": {"id": "conf/none"}, "denied": {"id": "open/x"}, "invalid": {"id": "conf"}}
	for role, id := range map[string]string{"present": "db/password", "second": "api/key", "white-space": "odd/white-space", "unicode": "odd/unicode", "quotes": "odd/quotes", "large": "large"} {
		known[role] = map[string]string{"id": "conf/" + id, "value": values[id]}
	}
	description, _ := json.Marshal(map[string]any{"known": known, "args": []string{"openclaw-exec", "--timeout", "100s", "--config", filepath.Join(u.dir, "credresolve.yaml")}})
	u.write("known.json", string(description))
	// As it is shipped: the rules have times, which the race detector is no part of.
	program := filepath.Join(u.dir, "credresolve")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "conformance", "--exec", program, "--config", "known.json")
	cmd.Dir, cmd.Env = u.dir, u.env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// A sidecar that hangs costs a second and no value.
func TestOpenClawHungSidecar(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.write("credresolve.yaml", fmt.Sprintf("version: 1\nproviders:\n  conf: {kind: file, path: %s/secrets.json, mode: json}\n", u.dir))
	u.env = append(u.env, "CREDRESOLVE_CONFIG="+filepath.Join(u.dir, "credresolve.yaml"))
	u.serve()
	var status struct{ PID int }
	if err := json.Unmarshal([]byte(u.run("status", "--output", "json").stdout), &status); err != nil || status.PID <= 1 {
		t.Fatalf("process %d, %v", status.PID, err)
	}
	if err := unix.Kill(status.PID, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Kill(status.PID, unix.SIGCONT) }()
	if r := u.ask(requestFor("credresolve", "conf//key")).response(t); r.Values["conf//key"] != "k-c4nary" {
		t.Errorf("got %v", r)
	}
}
