package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// user is somebody who runs commands in a directory of his own.
type user struct {
	t   *testing.T
	dir string
	env []string
}

func newUser(t *testing.T) *user {
	t.Helper()
	dir := t.TempDir()
	u := &user{t: t, dir: dir, env: []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LC_ALL=C", "GORACE=atexit_sleep_ms=0", "CREDRESOLVE_SOCKET=" + filepath.Join(dir, "run", "sock"),
	}}
	u.write("secrets.json", `{"db": {"user": "u-c4nary", "password": "p-c4nary", "port": 5432}, "key": "k-c4nary", "empty": ""}`)
	return u
}

func (u *user) write(name, content string) {
	u.t.Helper()
	path := filepath.Join(u.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		u.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		u.t.Fatal(err)
	}
}

// printed is what a command printed, and its exit status.
type printed struct {
	stdout, stderr string
	status         int
}

func (u *user) run(args ...string) printed {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(u.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "credresolve", args...)
	cmd.Dir, cmd.Env = u.dir, u.env
	var out, msg bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &msg
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		u.t.Fatal(err)
	}
	return printed{out.String(), msg.String(), cmd.ProcessState.ExitCode()}
}

// serve starts a sidecar, and gives what ends it.
func (u *user) serve(args ...string) (stop func()) {
	u.t.Helper()
	cmd := exec.Command("credresolve", append([]string{"serve"}, args...)...)
	cmd.Dir, cmd.Env = u.dir, u.env
	var msg messages
	cmd.Stderr = &msg
	if err := cmd.Start(); err != nil {
		u.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	done := false
	stop = func() {
		if done {
			return
		}
		done = true
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			if err != nil {
				u.t.Errorf("the sidecar: %v: %s", err, msg.String())
			}
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill()
			u.t.Error("the sidecar does not end")
		}
		if strings.Contains(msg.String(), canary) {
			u.t.Error("a secret is on the sidecar's standard error")
		}
	}
	u.t.Cleanup(stop)
	for range 600 {
		if u.run("status").status == 0 {
			return stop
		}
		time.Sleep(50 * time.Millisecond)
	}
	u.t.Fatalf("the sidecar is not ready: %s", msg.String())
	return nil
}

// reveals is how many secrets the sidecar gave out.
func (u *user) reveals() int {
	log, err := os.ReadFile(filepath.Join(u.dir, ".local/state/credresolve/audit.jsonl"))
	if err != nil && !os.IsNotExist(err) {
		u.t.Fatal(err)
	}
	return strings.Count(string(log), `"event":"reveal"`)
}

// With a sidecar commands print what they print without it, byte for byte, errors too.
func TestSidecarAnswersAsTheCommandItself(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	program := filepath.Join(u.dir, "program")
	u.write("program", "#!/bin/sh\ncat > /dev/null\necho '{\"protocolVersion\": 1, \"values\": {\"a\": \"a-c4nary\", \"o\": {\"x\": 1, \"y\": \"z\"}}, \"errors\": {\"none\": {\"code\": \"NOT_FOUND\", \"message\": \"none\"}}}'\n")
	if err := os.Chmod(program, 0o700); err != nil {
		t.Fatal(err)
	}
	u.write("credresolve.yaml", fmt.Sprintf(`version: 1
providers:
  m: {kind: memory, values: {plain: plain-c4nary, lines: "one c4nary\ntwo", db: '{"user":"u-c4nary","n":1e3}'}}
  conf: {kind: file, path: %s, mode: json}
  away: {kind: file, path: %s, mode: json}
  corp: {kind: exec, command: %s}
  env: {kind: env, allow: [MINE]}
  near: {kind: file, path: secrets.json, mode: json}
`, filepath.Join(u.dir, "secrets.json"), filepath.Join(u.dir, "missing", "x.json"), program))
	u.env = append(u.env, "CREDRESOLVE_CONFIG="+filepath.Join(u.dir, "credresolve.yaml"), "MINE=mine-c4nary")
	u.write("doc.yaml", "a: {provider: conf, id: /db/password} # kept\nb: cred://m/db#n\nc: {provider: corp, id: o, field: x}\nd: cred://env/MINE\ne: {provider: m, id: none, optional: true}\nf: {provider: conf, id: /nope, default: 3}\ng: cred://near//key\nh: cred://conf//db/port\ni: {provider: m, id: none, fallback: [{provider: m, id: plain}]}\n")
	u.write("bad.yaml", "a: cred://conf//nope\nb: cred://m/plain\nc: cred://corp/none\nd: cred://nowhere/x\n")
	u.write("vars.env", "A=cred://conf//key\nB=cred://m/plain\nC=literal\nD=cred://env/MINE\n")
	commands := [][]string{
		{"get", "cred://m/plain"}, {"get", "cred://m/lines"}, {"get", "cred://m/db"}, {"get", "cred://m/db#user"}, {"get", "cred://m/db#n"}, {"get", "cred://m/db#nope"},
		{"get", "cred://m/none"}, {"get", "cred://m/plain?version=7"}, {"get", "cred://conf//db"}, {"get", "cred://conf//db/port"}, {"get", "cred://conf//empty"},
		{"get", "cred://conf//key?version=1"}, {"get", "cred://away//x"}, {"get", "cred://corp/a"}, {"get", "cred://corp/o#y"}, {"get", "cred://corp/o#/x"}, {"get", "cred://corp/none"},
		{"get", "cred://env/MINE"}, {"get", "cred://env/OTHER"}, {"get", "cred://near//key"}, {"get", "cred://n/x"}, {"get", "c4nary"},
		{"get", "cred://m/plain", "cred://conf//key", "cred://env/MINE"}, {"get", "cred://m/plain", "cred://m/none"},
		{"get", "--output", "json", "cred://m/plain", "cred://m/db#n", "cred://m/none", "cred://conf//db", "cred://corp/o", "cred://env/MINE", "cred://nowhere/x"},
		{"render", "doc.yaml"}, {"render", "bad.yaml"}, {"check", "doc.yaml"}, {"check", "bad.yaml"}, {"check", "--output", "json", "doc.yaml", "bad.yaml"},
		{"run", "vars.env", "--", "sh", "-c", "echo $A $B $C $D"}, {"run", "bad.yaml", "--", "true"}, {"run", "--env", "X=cred://m/none", "--", "true"},
		{"--timeout", "10s", "get", "cred://conf//key"},
	}
	alone := make([]printed, len(commands))
	for i, args := range commands {
		alone[i] = u.run(args...)
	}
	u.serve()
	before := u.reveals()
	for i, args := range commands {
		if got := u.run(args...); got != alone[i] {
			t.Errorf("%v prints\n%+v\nwith a sidecar, and\n%+v\nwithout", args, got, alone[i])
		}
	}
	asked := u.reveals()
	if asked-before < 20 {
		t.Errorf("the sidecar gave out %d secrets alone: it is not asked", asked-before)
	}
	for _, flag := range []string{"--no-sidecar", "--now", "--interactive"} {
		if got := u.run(flag, "get", "cred://m/plain"); got != alone[0] {
			t.Errorf("%s: %+v", flag, got)
		}
	}
	u.run("get", "cred://env/MINE")
	if n := u.reveals(); n != asked {
		t.Errorf("the sidecar was asked %d times for what is not its own", n-asked)
	}
}

// Two files define one name differently: each command gets what its own file means.
func TestSidecarOfAnotherDefinitionIsNotAsked(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.write("one.yaml", "version: 1\nproviders:\n  m: {kind: memory, values: {x: one-c4nary}}\n  same: {kind: memory, values: {x: same-c4nary}}\n")
	u.write("two.yaml", "version: 1\nproviders:\n  m: {kind: memory, values: {x: two-c4nary}}\n  same: {kind: memory, values: {x: same-c4nary}}\n")
	u.serve("--config", "one.yaml")
	for file, want := range map[string]string{"one.yaml": "one-c4nary", "two.yaml": "two-c4nary"} {
		if got := u.run("--config", file, "get", "cred://m/x"); got.stdout != want || got.status != 0 {
			t.Errorf("%s: %+v", file, got)
		}
		if got := u.run("--config", file, "get", "cred://same/x"); got.stdout != "same-c4nary" {
			t.Errorf("%s: %+v", file, got)
		}
	}
	if n := u.reveals(); n != 3 {
		t.Errorf("the sidecar was asked %d times, want 3", n)
	}
}

// A sidecar that goes away, is stuck, or is nobody's, costs no answer.
func TestCommandsDoWithoutASidecar(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.write("credresolve.yaml", "version: 1\nproviders:\n  m: {kind: memory, values: {x: x-c4nary}}\n")
	u.env = append(u.env, "CREDRESOLVE_CONFIG="+filepath.Join(u.dir, "credresolve.yaml"))
	stop := u.serve()
	stop()
	want := printed{stdout: "x-c4nary"}
	if got := u.run("get", "cred://m/x"); got != want {
		t.Errorf("after its end: %+v", got)
	}
	socket := filepath.Join(u.dir, "run", "sock")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: socket}), syscall.Listen(fd, 5)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if got := u.run("get", "cred://m/x"); got != want {
		t.Errorf("with one that never answers: %+v", got)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
}
