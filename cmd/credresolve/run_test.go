package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/credresolve/credresolve/internal/vaulttest"
)

// running is a command that credresolve runs.
type running struct {
	t           *testing.T
	cmd         *exec.Cmd
	out, errors messages
	ended       chan error
}

// background starts credresolve with args.
func (u *user) background(args ...string) *running {
	u.t.Helper()
	r := &running{t: u.t, cmd: exec.Command("credresolve", args...), ended: make(chan error, 1)}
	r.cmd.Dir, r.cmd.Env, r.cmd.Stdout, r.cmd.Stderr = u.dir, u.env, &r.out, &r.errors
	if err := r.cmd.Start(); err != nil {
		u.t.Fatal(err)
	}
	go func() { r.ended <- r.cmd.Wait() }()
	u.t.Cleanup(func() { _ = r.cmd.Process.Signal(syscall.SIGTERM) }) // which ends the command too
	return r
}

// until waits for text in what m has.
func (r *running) until(m *messages, text string) {
	r.t.Helper()
	for range 1200 {
		if strings.Contains(m.String(), text) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	r.t.Fatalf("%q does not come:\n%s\n%s", text, r.out.String(), r.errors.String())
}

// wait waits for the end, and gives the exit status.
func (r *running) wait() int {
	r.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(time.Minute):
		_ = r.cmd.Process.Kill()
		r.t.Fatalf("it does not end:\n%s\n%s", r.out.String(), r.errors.String())
	}
	if strings.Contains(r.errors.String(), canary) {
		r.t.Errorf("a secret is on standard error: %s", r.errors.String())
	}
	return r.cmd.ProcessState.ExitCode()
}

// steady is a command that tells of its values, and of signals, and goes on.
const steady = `echo "start $PW"; trap "echo hup" HUP; trap "echo term; exit 3" TERM; while :; do sleep 0.1; done`

func needsPOSIX(t *testing.T) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("needs a POSIX shell and signals: run it on Linux or macOS")
	}
}

// A new version in Vault restarts the command, by way of a sidecar and without one; an equal one, and another field, do not.
func TestRunWatchesVault(t *testing.T) {
	t.Parallel()
	needsPOSIX(t)
	for _, through := range []string{"a sidecar", "this process"} {
		t.Run(through, func(t *testing.T) {
			t.Parallel()
			p := newProcess(t, ", cache: {ttl: 1s}", "")
			if through == "a sidecar" {
				p.start()
			}
			r := p.background("run", "-v", "--watch", "--env", "PW="+p.password().String(), "--", "sh", "-c", steady)
			r.until(&r.out, "start first-c4nary\n")
			p.vault.Write(t, p.kv+"/data/db", map[string]any{"data": map[string]any{"password": "first-c4nary", "user": "another-c4nary"}})
			p.put("first-c4nary")
			time.Sleep(3 * time.Second) // three times its time: it has been looked at
			if got := r.out.String(); got != "start first-c4nary\n" {
				t.Errorf("the command was restarted for what it does not have:\n%s", got)
			}
			p.put("second-c4nary")
			r.until(&r.out, "term\nstart second-c4nary\n")
			_ = r.cmd.Process.Signal(syscall.SIGTERM)
			if got := r.wait(); got != 3 {
				t.Errorf("status %d, want that of the command", got)
			}
			if got, want := r.out.String(), "start first-c4nary\nterm\nstart second-c4nary\nterm\n"; got != want {
				t.Errorf("the command printed\n%swant\n%s", got, want)
			}
			if asked := strings.Contains(r.errors.String(), "the sidecar is asked"); asked != (through == "a sidecar") {
				t.Errorf("the sidecar was asked: %v", asked)
			}
		})
	}
}

// What the sidecar is told of restarts the command at once, however long its values are fresh; under a session too.
func TestRunHearsOfInvalidation(t *testing.T) {
	t.Parallel()
	needsPOSIX(t)
	p := newProcess(t, ", cache: {ttl: 1h}", "")
	p.start()
	r := p.background("run", "--watch", "--session", "new", "--env", "PW="+p.password().String(), "--", "sh", "-c", steady)
	r.until(&r.out, "start first-c4nary\n")
	p.put("second-c4nary")
	if err := p.client().Forget(t.Context(), p.password()); err != nil {
		t.Fatal(err)
	}
	r.until(&r.out, "term\nstart second-c4nary\n")
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	if got := r.wait(); got != 3 {
		t.Errorf("status %d", got)
	}
	if st, err := p.client().Status(t.Context()); err != nil || st.Sessions != 0 {
		t.Errorf("%d sessions are left, %v", st.Sessions, err)
	}
}

// The successor of a lease that cannot be renewed any more is another login: the command is restarted with it, before its
// own ends.
func TestRunWatchesLeases(t *testing.T) {
	t.Parallel()
	needsPOSIX(t)
	for _, through := range []string{"a sidecar", "this process"} {
		t.Run(through, func(t *testing.T) {
			t.Parallel()
			p := newProcess(t, "", "")
			p.vault.Write(t, p.db+"/roles/short", map[string]any{"db_name": "d", "default_ttl": "6s", "max_ttl": "6s", "creation_statements": "x"})
			if through == "a sidecar" {
				p.start()
			}
			ref := "cred://app/" + p.db + "/creds/short"
			r := p.background("run", "--watch", "--env", "NAME="+ref+"#username", "--env", "PW="+ref+"#password", "--", "sh", "-c",
				`echo "start $NAME"; trap "exit 0" TERM; while :; do sleep 0.1; done`)
			r.until(&r.errors, "the values of NAME, PW changed: the command is restarted")
			for range 1200 {
				if strings.Count(r.out.String(), "start ") > 1 {
					break
				}
				time.Sleep(50 * time.Millisecond)
			}
			lines := strings.Fields(strings.ReplaceAll(r.out.String(), "start ", ""))
			if len(lines) < 2 || lines[0] == lines[1] || lines[0] == "" {
				t.Errorf("the logins were %v", lines)
			}
			_ = r.cmd.Process.Signal(syscall.SIGTERM)
			r.wait()
		})
	}
}

// Two secrets that rotate together are one restart; what the command prints stays masked, also what is new.
func TestRunWatchIsOneRestart(t *testing.T) {
	t.Parallel()
	needsPOSIX(t)
	u := newUser(t)
	u.write("credresolve.yaml", "version: 1\nproviders:\n  f: {kind: file, path: w.json, cache: {ttl: 1s}}\n  m: {kind: memory, values: {x: x-c4nary}}\n")
	u.write("w.json", `{"a": "one-c4nary", "b": "two-c4nary", "c": "three-c4nary"}`)
	r := u.background("--config", "credresolve.yaml", "run", "--watch", "--redact", "--env", "PW=cred://f//a", "--env", "B=cred://f//b", "--env", "X=cred://m/x", "--", "sh", "-c",
		`echo "start $PW $B $X"; echo "is $PW" >> seen; trap "exit 0" TERM; while :; do sleep 0.1; done`)
	r.until(&r.out, "start [redacted] [redacted] [redacted]\n")
	u.write("w.json.new", `{"a": "four-c4nary", "b": "five-c4nary", "c": "three-c4nary"}`)
	if err := os.Rename(filepath.Join(u.dir, "w.json.new"), filepath.Join(u.dir, "w.json")); err != nil {
		t.Fatal(err)
	}
	r.until(&r.out, "start [redacted] [redacted] [redacted]\nstart [redacted] [redacted] [redacted]\n")
	time.Sleep(2 * time.Second)
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	if got := r.wait(); got != 0 {
		t.Errorf("status %d", got)
	}
	if got := strings.Count(r.out.String(), "start"); got != 2 || strings.Contains(r.out.String(), canary) {
		t.Errorf("%d starts:\n%s", got, r.out.String())
	}
	if seen, err := os.ReadFile(filepath.Join(u.dir, "seen")); string(seen) != "is one-c4nary\nis four-c4nary\n" {
		t.Errorf("the command had %q, %v", seen, err)
	}
	if n := strings.Count(r.errors.String(), "the values of B, PW changed: the command is restarted"); n != 1 {
		t.Errorf("said %d times: %s", n, r.errors.String())
	}
}

func TestRunOnChange(t *testing.T) {
	t.Parallel()
	needsPOSIX(t)
	start := func(t *testing.T, script string, flags ...string) (*user, *running) {
		u := newUser(t)
		u.write("credresolve.yaml", "version: 1\nproviders:\n  f: {kind: file, path: w.json, cache: {ttl: 1s}}\n")
		u.write("w.json", `{"a": "one-c4nary"}`)
		args := append([]string{"--config", "credresolve.yaml", "run", "--watch", "--env", "PW=cred://f//a"}, flags...)
		r := u.background(append(args, "--", "sh", "-c", script)...)
		r.until(&r.out, "start one-c4nary\n")
		return u, r
	}
	t.Run("a signal", func(t *testing.T) {
		t.Parallel()
		u, r := start(t, steady, "--on-change", "signal:HUP", "--redact=false")
		u.write("w.json", `{"a": "two-c4nary"}`)
		r.until(&r.out, "hup\n")
		time.Sleep(2 * time.Second)
		_ = r.cmd.Process.Signal(syscall.SIGTERM)
		if got := r.wait(); got != 3 || r.out.String() != "start one-c4nary\nhup\nterm\n" {
			t.Errorf("status %d: %s", got, r.out.String())
		}
	})
	t.Run("a signal, and what is new is masked in the same process", func(t *testing.T) {
		t.Parallel()
		u := newUser(t)
		u.write("credresolve.yaml", "version: 1\nproviders:\n  f: {kind: file, path: w.json, cache: {ttl: 1s}}\n")
		u.write("w.json", `{"a": "one-c4nary"}`)
		r := u.background("--config", "credresolve.yaml", "run", "--watch", "--redact", "--on-change", "signal:USR1", "--env", "PW=cred://f//a", "--", "sh", "-c",
			`trap "cat w.json" USR1; trap "exit 3" TERM; echo "start $PW"; while :; do sleep 0.1; done`)
		r.until(&r.out, "start [redacted]\n")
		u.write("w.json", `{"a": "two-c4nary"}`)
		r.until(&r.out, `{"a": "[redacted]"}`)
		_ = r.cmd.Process.Signal(syscall.SIGTERM)
		if got := r.wait(); got != 3 || strings.Contains(r.out.String(), canary) {
			t.Errorf("status %d: %s", got, r.out.String())
		}
	})
	t.Run("an end", func(t *testing.T) {
		t.Parallel()
		u, r := start(t, steady, "--on-change", "exit")
		u.write("w.json", `{"a": "two-c4nary"}`)
		if got := r.wait(); got != 3 || r.out.String() != "start one-c4nary\nterm\n" {
			t.Errorf("status %d: %s", got, r.out.String())
		}
	})
	t.Run("a command that does not end is killed", func(t *testing.T) {
		t.Parallel()
		u, r := start(t, `echo "start $PW"; test "$PW" = two-c4nary && exit 0; trap "echo no" TERM; while :; do sleep 0.1; done`, "--grace", "1s")
		u.write("w.json", `{"a": "two-c4nary"}`)
		if got := r.wait(); got != 0 || r.out.String() != "start one-c4nary\nno\nstart two-c4nary\n" {
			t.Errorf("status %d: %s", got, r.out.String())
		}
	})
	t.Run("a command that fails at once is tried again", func(t *testing.T) {
		t.Parallel()
		u, r := start(t, `echo "start $PW"; trap "exit 0" TERM; if test "$PW" = two-c4nary; then test -e tried && exit 4; touch tried; exit 5; fi; while :; do sleep 0.1; done`)
		u.write("w.json", `{"a": "two-c4nary"}`)
		r.until(&r.errors, "with status 5 at once after its restart: it is started again in 1s")
		r.until(&r.errors, "with status 4 at once after its restart: it is started again in 2s")
		_ = r.cmd.Process.Signal(syscall.SIGTERM)
		if got := r.wait(); got != 4 && got != 143 { // a signal between two tries ends it
			t.Errorf("status %d", got)
		}
	})
	t.Run("a command that ends by itself ends it", func(t *testing.T) {
		t.Parallel()
		_, r := start(t, `echo "start $PW"; exit 6`)
		if got := r.wait(); got != 6 || r.out.String() != "start one-c4nary\n" {
			t.Errorf("status %d: %s", got, r.out.String())
		}
	})
	t.Run("trouble changes nothing", func(t *testing.T) {
		t.Parallel()
		u, r := start(t, steady)
		if err := os.Remove(filepath.Join(u.dir, "w.json")); err != nil {
			t.Fatal(err)
		}
		r.until(&r.errors, "the command goes on with the value that it has")
		u.write("w.json", `{"a": "one-c4nary"}`)
		time.Sleep(2 * time.Second)
		u.write("w.json", `{"a": "two-c4nary"}`)
		r.until(&r.out, "term\nstart two-c4nary\n")
		_ = r.cmd.Process.Signal(syscall.SIGTERM)
		if got := r.wait(); got != 3 || r.out.String() != "start one-c4nary\nterm\nstart two-c4nary\nterm\n" {
			t.Errorf("status %d: %s", got, r.out.String())
		}
	})
}

// A session is of one command: what it gets is its own, nobody else sees it, and it ends with the command.
func TestRunSession(t *testing.T) {
	t.Parallel()
	needsPOSIX(t)
	for _, through := range []string{"a sidecar", "this process"} {
		t.Run(through, func(t *testing.T) {
			t.Parallel()
			p := newProcess(t, ", scope: [session, end_user], cache: {ttl: 1h}", "")
			if through == "a sidecar" {
				p.start()
			}
			login := "LOGIN=" + p.user1().String()
			script := `echo "$LOGIN"; tr "\0" " " < /proc/$PPID/environ | grep -c "$LOGIN"; ps -eo args | grep -v grep | grep -c -- "$LOGIN"; credresolve --no-sidecar get cred://m/x > /dev/null; exit 4`
			var logins []string
			for range 2 {
				got := p.run("-v", "run", "--session", "new", "--end-user", "alice", "--reason", "ticket 4711", "--env", login, "--", "sh", "-c", script)
				lines := strings.Split(got.stdout, "\n")
				if got.status != 4 || len(lines) < 3 || lines[0] == "" || lines[1] != "0" || lines[2] != "0" {
					t.Fatalf("%+v", got)
				}
				if strings.Contains(got.stderr, lines[0]) {
					t.Errorf("the value is on standard error")
				}
				if asked := strings.Contains(got.stderr, "the sidecar gave a session"); asked != (through == "a sidecar") {
					t.Errorf("the sidecar gave a session: %v\n%s", asked, got.stderr)
				}
				logins = append(logins, lines[0])
				if n := p.leases(); n != 0 {
					t.Errorf("%d leases after the command", n)
				}
			}
			if logins[0] == logins[1] {
				t.Error("two sessions share a login")
			}
			if through != "a sidecar" {
				return
			}
			c := p.client()
			if st, err := c.Status(t.Context()); err != nil || st.Sessions != 0 {
				t.Errorf("%d sessions are left, %v", st.Sessions, err)
			}
			log, err := os.ReadFile(filepath.Join(p.dir, ".local/state/credresolve/audit.jsonl"))
			if err != nil || !bytes.Contains(log, []byte("ticket 4711")) || !bytes.Contains(log, []byte(`"consumer":"run"`)) {
				t.Errorf("the audit log does not tell of the session: %v\n%s", err, log)
			}
			if bytes.Contains(log, []byte(logins[0])) {
				t.Error("a value is in the audit log")
			}
		})
	}
}

// Leases end with the command where that is asked for, and live on otherwise.
func TestRunRevokesLeases(t *testing.T) {
	t.Parallel()
	needsPOSIX(t)
	p := newProcess(t, "", "")
	p.start()
	login := "LOGIN=" + p.user1().String()
	if got := p.run("run", "--revoke-leases", "--env", login, "--", "sh", "-c", `test -n "$LOGIN" && exit 9`); got.status != 9 || got.stderr != "" {
		t.Errorf("%+v", got)
	}
	if n := p.leases(); n != 0 {
		t.Errorf("%d leases are left", n)
	}
	p.proxy.Fail("/v1/sys/leases/revoke", 1, vaulttest.Answer(http.StatusServiceUnavailable, `{"errors":["Vault is sealed"]}`))
	if got := p.run("run", "--revoke-leases", "--env", login, "--", "true"); got.status != 0 || got.stderr != "" {
		t.Errorf("where the first try fails: %+v", got)
	}
	if n := p.leases(); n != 0 {
		t.Errorf("%d leases are left where the first try failed", n)
	}
	if got := p.run("--no-sidecar", "run", "--env", login, "--", "true"); got.status != 0 {
		t.Errorf("%+v", got)
	}
	if n := p.leases(); n != 1 {
		t.Errorf("%d leases without the flag, want 1", n)
	}
}

// What is required is checked at the sidecar as in this process.
func TestRequirementsThroughASidecar(t *testing.T) {
	t.Parallel()
	p := newProcess(t, "", "")
	p.write("needs.yaml", fmt.Sprintf("- {env: DB_PASSWORD, provider: app, id: %s/db, field: password, type: token}\n- {env: NONE, provider: app, id: %s/none}\n", p.kv, p.kv))
	alone := p.run("requirements", "--output", "json", "needs.yaml")
	p.start()
	shared := p.run("-v", "requirements", "--output", "json", "needs.yaml")
	if alone.status != 3 || alone.stdout != shared.stdout || shared.status != 3 || !strings.Contains(shared.stderr, "the sidecar is asked") {
		t.Errorf("%+v\n%+v", alone, shared)
	}
	var answers []struct{ Env, Status string }
	if err := json.Unmarshal([]byte(alone.stdout), &answers); err != nil || len(answers) != 2 || answers[0].Status != "ok" || answers[1].Status != "missing" {
		t.Errorf("%v, %+v", err, answers)
	}
	if strings.Contains(alone.stdout, canary) {
		t.Error("a value is in the answer")
	}
}
