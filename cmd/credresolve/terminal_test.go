//go:build unix

package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/term"
)

const testConfig = `version: 1
providers:
  m:
    kind: memory
    values: {pw: pass-word-c4nary-9}
`

// workDir gives a directory with a configuration and a document, and the environment to use it in.
func workDir(t *testing.T) (dir string, env []string) {
	t.Helper()
	dir = t.TempDir()
	for name, content := range map[string]string{
		"config.yaml": testConfig, "app.env": "PW=cred://m/pw\n", "app.yaml": "pw: cred://m/pw\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, append(os.Environ(), "HOME="+dir, "XDG_STATE_HOME=", "CREDRESOLVE_CONFIG="+filepath.Join(dir, "config.yaml"), "GORACE=atexit_sleep_ms=0", "PS1=", "HISTFILE=")
}

// screen is a terminal with a program in it.
type screen struct {
	t      *testing.T
	tty    *os.File // the side of the person
	slave  *os.File
	cmd    *exec.Cmd
	exited chan error

	mu   sync.Mutex
	seen bytes.Buffer
	read int // how much of seen was waited for
}

// startOnTerminal runs a command in a terminal of its own, which is a session's.
func startOnTerminal(t *testing.T, dir string, env []string, name string, args ...string) *screen {
	t.Helper()
	tty, slave, err := pty.Open()
	if err != nil {
		t.Skipf("needs a pseudo-terminal (%v): run it where /dev/ptmx can be opened", err)
	}
	if err := pty.Setsize(tty, &pty.Winsize{Rows: 24, Cols: 91}); err != nil {
		t.Fatal(err)
	}
	s := &screen{t: t, tty: tty, slave: slave, cmd: exec.Command(name, args...), exited: make(chan error, 1)}
	s.cmd.Dir, s.cmd.Env = dir, env
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = slave, slave, slave
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := tty.Read(buf)
			s.mu.Lock()
			s.seen.Write(buf[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	go func() { s.exited <- s.cmd.Wait() }()
	t.Cleanup(func() {
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
		_ = slave.Close()
		_ = tty.Close()
	})
	return s
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen.String()
}

// expect waits until pattern appears behind what was expected before.
func (s *screen) expect(pattern string) {
	s.t.Helper()
	re := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if at := re.FindStringIndex(s.text()[s.read:]); at != nil {
			s.read += at[1]
			return
		}
	}
	s.t.Fatalf("%q did not appear; the terminal shows:\n%q", pattern, s.text())
}

func (s *screen) enter(keys string) {
	s.t.Helper()
	if _, err := io.WriteString(s.tty, keys); err != nil {
		s.t.Fatal(err)
	}
}

// wait gives the exit status.
func (s *screen) wait() int {
	s.t.Helper()
	select {
	case err := <-s.exited:
		s.exited <- err
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			if ws := exit.Sys().(syscall.WaitStatus); ws.Signaled() {
				return 1000 + int(ws.Signal())
			}
			return exit.ExitCode()
		}
		if err != nil {
			s.t.Fatal(err)
		}
		return 0
	case <-time.After(20 * time.Second):
		s.t.Fatalf("the command does not end; the terminal shows:\n%q", s.text())
		return -1
	}
}

func (s *screen) wantStatus(want int) {
	s.t.Helper()
	if got := s.wait(); got != want {
		s.t.Errorf("exit status %d, want %d; the terminal shows:\n%q", got, want, s.text())
	}
}

// wantSane says that the terminal shows what is typed and makes signals of it, as before the command.
func (s *screen) wantSane() {
	s.t.Helper()
	if !echoes(s.t, s.slave) {
		s.t.Error("the terminal was left in another state")
	}
}

func TestValueIsPromptedForTwiceAndNotShown(t *testing.T) {
	t.Parallel()
	dir, env := workDir(t)
	s := startOnTerminal(t, dir, env, "credresolve", "put", "cred://m/new")
	s.expect("value of cred://m/new: ")
	s.enter("typed-c4nary\n")
	s.expect("again: ")
	s.enter("typed-c4nary\n")
	s.expect("1\r\n")
	s.wantStatus(0)
	if strings.Contains(s.text(), canary) {
		t.Errorf("the value was shown: %q", s.text())
	}
	s.wantSane()

	s = startOnTerminal(t, dir, env, "credresolve", "put", "cred://m/new")
	s.expect("value of ")
	s.enter("typed-c4nary\n")
	s.expect("again: ")
	s.enter("mistyped-c4nary\n")
	s.expect("the two values differ; nothing was stored")
	s.wantStatus(2)
}

func TestConfigureAsksForReferences(t *testing.T) {
	t.Parallel()
	dir, env := workDir(t)
	const before = `{gateway: {auth: {mode: "token", token: "gateway-c4nary"}}}`
	path := filepath.Join(dir, "claw.json5")
	if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	env = append(env, "NEW_TOKEN=new-c4nary")
	s := startOnTerminal(t, dir, env, "credresolve", "secretref", "configure", "claw.json5")
	s.expect("another provider, as NAME=SOURCE,key=value .empty: go on.: ")
	s.enter("Own=env\n")
	s.expect("a name that matches")
	s.expect("another provider")
	s.enter("own=env,allowlist=NEW_TOKEN\n")
	s.expect("another provider")
	s.enter("\n")
	s.expect("claw.json5:1: gateway.auth.token holds a secret in plain text")
	s.expect("its reference, as SOURCE:PROVIDER:ID .empty: leave it.: ")
	s.enter("own\n")
	s.expect("a reference is SOURCE:PROVIDER:ID")
	s.expect("its reference")
	s.enter("env:own:NEW_TOKEN\n")
	s.expect("would be changed")
	s.expect("carry the plan out.* \\[y/N\\] ")
	s.enter("n\n")
	s.expect("nothing was changed")
	s.wantStatus(1)
	if now, err := os.ReadFile(path); err != nil || string(now) != before {
		t.Errorf("the file is %s, %v", now, err)
	}

	s = startOnTerminal(t, dir, env, "credresolve", "secretref", "configure", "--skip-provider-setup", "claw.json5")
	s.expect("its reference")
	s.enter("env:default:NEW_TOKEN\n")
	s.expect("carry the plan out.* \\[y/N\\] ")
	s.enter("y\n")
	s.expect("1 file changed")
	s.wantStatus(0)
	if strings.Contains(s.text(), canary) {
		t.Errorf("a secret was shown: %q", s.text())
	}
	if now, err := os.ReadFile(path); err != nil || strings.Contains(string(now), canary) || !strings.Contains(string(now), "NEW_TOKEN") {
		t.Errorf("the file is %s, %v", now, err)
	}
	s.wantSane()
}

// A line of any length arrives whole, is edited by the terminal's keys, and is shown only where it may be.
func TestLongLinesAreTakenWhole(t *testing.T) {
	t.Parallel()
	d := newDesk(t, strings.ReplaceAll(fieldsConfig, "CHECK", `"http://127.0.0.1:1"`))
	long := strings.Repeat("c4nary-\u00fc_", 1000) // 10,000 bytes
	s := startOnTerminal(t, d.dir, d.env, "credresolve", "login", "bank")
	s.expect("user: ")
	s.enter("wrong\x15bo" + long + "\u00e4x\x7f\x7f word\x17end\n")
	s.expect("pin: ")
	before := s.text()
	if !strings.Contains(before, long) {
		t.Error("what may be shown is not")
	}
	s.enter("mistyped\x15key" + long + "y\x7f\n")
	s.expect("note .*: ")
	s.enter("\n")
	s.expect("logged in to bank")
	s.wantStatus(0)
	s.wantSane()
	if strings.Contains(s.text()[len(before):], "c4nary") {
		t.Error("a hidden line was shown")
	}
	for field, want := range map[string]string{"user": "bo" + long + " end", "pin": "key" + long} {
		if got, _ := d.run(0, "", "get", "cred://bank/default#"+field); got != want {
			t.Errorf("%s: %d bytes arrived, want %d", field, len(got), len(want))
		}
	}

	s = startOnTerminal(t, d.dir, d.env, "credresolve", "login", "bank", "second")
	s.expect("user: ")
	s.enter(strings.Repeat("x", 70000) + "\n") // and nothing of it is left to the shell
	s.expect("a line is longer than 65536 bytes")
	s.wantStatus(2)
	s.wantSane()

	for keys, want := range map[string]int{"\x04": 2, "half\x03": 130} {
		s = startOnTerminal(t, d.dir, d.env, "credresolve", "login", "bank", "third")
		s.expect("user: ")
		s.enter(keys)
		s.wantStatus(want)
		s.wantSane()
	}
}

func TestPromptTakesNoEmptyValue(t *testing.T) {
	t.Parallel()
	dir, env := workDir(t)
	s := startOnTerminal(t, dir, env, "credresolve", "put", "cred://m/new")
	s.expect("value of ")
	s.enter("\n")
	s.expect("no value was given; nothing was stored")
	s.wantStatus(2)
	s.wantSane()
}

// A configuration that comes from a pipe to which nothing is written does not outlast --timeout.
func TestConfigurationThatNeverComes(t *testing.T) {
	t.Parallel()
	dir, env := workDir(t)
	pipe := filepath.Join(dir, "pipe.yaml")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	writer, err := os.OpenFile(pipe, os.O_RDWR, 0) // does not wait for a reader
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	for _, args := range [][]string{{"get", "cred://m/x"}, {"config", "check"}, {"providers"}} {
		s := startOnTerminal(t, dir, env, "credresolve", append([]string{"--config", pipe, "--timeout", "300ms"}, args...)...)
		s.expect("not done within 300ms")
		s.wantStatus(11)
	}
}

func TestPromptEndsWithASignal(t *testing.T) {
	t.Parallel()
	dir, env := workDir(t)
	s := startOnTerminal(t, dir, env, "credresolve", "put", "cred://m/new")
	s.expect("value of ")
	s.enter("half-c4n\x03")
	s.expect("stopped by a signal: interrupt")
	s.wantStatus(130)
	s.wantSane()
}

// shellOnTerminal starts a shell with job control, in a directory for work.
func shellOnTerminal(t *testing.T) *screen {
	t.Helper()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("needs bash: apt-get install bash")
	}
	dir, env := workDir(t)
	s := startOnTerminal(t, dir, env, bash, "--norc", "--noprofile", "--noediting", "-i")
	s.enter("set -m; PS1=; echo re''ady\n")
	s.expect("ready\r\n")
	return s
}

// A shell that had the terminal meanwhile leaves it in its own state; what is typed stays hidden, and the line whole.
func TestHiddenPromptAfterAStop(t *testing.T) {
	t.Parallel()
	s := shellOnTerminal(t)
	s.enter("credresolve put cred://m/new\n")
	s.expect("value of cred://m/new: ")
	s.enter("\x1a")
	s.expect("Stopped")
	s.enter("echo at''shell; stty -a\n")
	s.expect(`atshell(?s:.*) icanon(?s:.*) echo `)
	s.enter("fg\n")
	s.expect("credresolve put")
	for deadline := time.Now().Add(20 * time.Second); echoes(t, s.slave); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("what is typed is shown")
		}
	}
	value := strings.Repeat("typed-c4nary", 800)
	s.enter(value + "\n")
	s.expect("again: ")
	s.enter(value + "\n")
	s.expect("1\r\n")
	if strings.Contains(s.text(), canary) {
		t.Error("the value was shown")
	}
	s.enter("exit\n")
	s.wantStatus(0)
}

func TestDeletionIsConfirmed(t *testing.T) {
	t.Parallel()
	dir, env := workDir(t)
	for answer, want := range map[string]int{"y\n": 0, "n\n": 130, "\n": 130} {
		s := startOnTerminal(t, dir, env, "credresolve", "rm", "cred://m/pw")
		s.expect(`delete cred://m/pw\? \[y/N\] `)
		s.enter(answer)
		s.wantStatus(want)
	}
}

func TestGetEndsTheLineOnATerminal(t *testing.T) {
	t.Parallel()
	dir, env := workDir(t)
	s := startOnTerminal(t, dir, env, "credresolve", "get", "cred://m/pw")
	s.expect("^pass-word-c4nary-9\r\n$")
	s.wantStatus(0)
}

func TestRunGivesTheTerminalToTheCommand(t *testing.T) {
	t.Parallel()
	dir, env := workDir(t)
	for _, redact := range []string{"--redact=false", "--redact"} {
		t.Run(redact, func(t *testing.T) {
			t.Parallel()
			// tty 0 and 2 too, the size of ours, and what is typed arrives.
			s := startOnTerminal(t, dir, env, "credresolve", "run", redact, "app.env", "--", "sh", "-c",
				`test -t 0 && test -t 1 && test -t 2 && stty size && printf 'Name: ' && read name && echo "hello $name ($PW)"; tty > /dev/null && echo has tty; exit 4`)
			s.expect("24 91\r\nName: ")
			s.enter("bob\n")
			s.expect("bob\r\nhello bob ")
			s.expect(map[string]string{"--redact": `\(\[redacted\]\)`}[redact])
			s.expect("\r\nhas tty\r\n")
			s.wantStatus(4)
			s.wantSane()
		})
	}
}

// What is typed after a restart goes to the new command, which has the terminal as the old one had.
func TestRestartOnATerminal(t *testing.T) {
	t.Parallel()
	for _, redact := range []string{"--redact=false", "--redact"} {
		t.Run(redact, func(t *testing.T) {
			t.Parallel()
			dir, env := workDir(t)
			write := func(name, content string) {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write("w.json", `{"a": "one-c4nary"}`)
			write("config.yaml", "version: 1\nproviders:\n  f: {kind: file, path: w.json, cache: {ttl: 1s}}\n")
			s := startOnTerminal(t, dir, env, "credresolve", "run", "--watch", redact, "--env", "PW=cred://f//a", "--", "sh", "-c",
				`trap "exit 0" TERM; echo "ready ${#PW}"; while :; do read line && { test -t 0 && echo "got $line."; test "$line" = end && exit 0; }; done`)
			s.expect("ready 10")
			s.enter("first\n")
			s.expect("got first\\.")
			write("w.json", `{"a": "three-c4nary"}`)
			s.expect("the command is restarted[\r\n]+")
			if redact == "--redact=false" { // a read of the shell is not ended by the signal alone
				s.enter("\n")
			}
			s.expect("ready 12")
			s.enter("second\n")
			s.expect("got second\\.")
			s.enter("end\n")
			s.wantStatus(0)
			s.wantSane()
			if strings.Contains(s.text(), canary) {
				t.Errorf("a secret is on the terminal:\n%s", s.text())
			}
		})
	}
}

func TestTerminalChangesSize(t *testing.T) {
	t.Parallel()
	dir, env := workDir(t)
	for _, redact := range []string{"--redact=false", "--redact"} {
		t.Run(redact, func(t *testing.T) {
			t.Parallel()
			s := startOnTerminal(t, dir, env, "credresolve", "run", redact, "app.env", "--", "sh", "-c",
				`trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done`)
			s.expect("ready")
			if err := pty.Setsize(s.tty, &pty.Winsize{Rows: 33, Cols: 77}); err != nil {
				t.Fatal(err)
			}
			s.expect("33 77\r\n")
			s.wantStatus(0)
		})
	}
}

// ^C reaches the command, once, and whatever the command makes of it is what happens.
func TestInterruptFromTheKeyboardArrivesOnce(t *testing.T) {
	t.Parallel()
	dir, env := workDir(t)
	for _, redact := range []string{"--redact=false", "--redact"} {
		t.Run(redact, func(t *testing.T) {
			t.Parallel()
			s := startOnTerminal(t, dir, env, "credresolve", "run", redact, "app.env", "--", "sh", "-c",
				`n=0; trap 'n=$((n+1))' INT; echo ready; i=0; while [ $i -lt 20 ]; do sleep 0.05; i=$((i+1)); done; echo "got $n"`)
			s.expect("ready")
			s.enter("\x03")
			s.expect("got 1\r\n")
			s.wantStatus(0)

			s = startOnTerminal(t, dir, env, "credresolve", "run", redact, "app.env", "--", "sh", "-c", `echo ready; exec sleep 30`)
			s.expect("ready")
			s.enter("\x03")
			s.wantStatus(130)
			s.wantSane()
		})
	}
}

func TestJobControl(t *testing.T) {
	t.Parallel()
	s := shellOnTerminal(t)
	s.enter("credresolve run app.env -- sh -c 'echo at''work; read x; echo \"got $x\"'\n")
	s.expect("\natwork\r\n")
	s.enter("\x1a")
	s.expect("Stopped")
	s.enter("echo at''shell\n")
	s.expect("atshell\r\n")
	s.enter("fg\n")
	s.expect("credresolve run")
	s.enter("input\n")
	s.expect("got input\r\n")
	s.enter("echo status $?; exit\n")
	s.expect("status 0\r\n")
	s.wantStatus(0)
}

// What the command leaves behind holds its terminal, and does not hold us.
func TestRedactOnATerminalDoesNotWaitForGrandchildren(t *testing.T) {
	t.Parallel()
	dir, env := workDir(t)
	s := startOnTerminal(t, dir, env, "credresolve", "run", "--redact", "app.env", "--", "sh", "-c", `trap '' HUP; sleep 15 & echo "done $PW"`)
	began := time.Now()
	s.expect(`done \[redacted\]`)
	s.wantStatus(0)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	s.wantSane()
}

// The output alone is a terminal: the command sees one, and its lines look as they should.
func TestRedactWithPipedInput(t *testing.T) {
	t.Parallel()
	dir, env := workDir(t)
	s := startOnTerminal(t, dir, env, "sh", "-c", `echo from-pipe | credresolve run --redact app.env -- sh -c 'cat; test -t 1 && test ! -t 0 && echo "is a terminal: $PW"'`)
	s.expect("^from-pipe\r+\nis a terminal: \\[redacted\\]\r+\n$")
	s.wantStatus(0)
	s.wantSane()
}

// start runs credresolve without a terminal.
func start(t *testing.T, args ...string) (cmd *exec.Cmd, out *lockedBuffer, dir string) {
	t.Helper()
	dir, env := workDir(t)
	path, err := exec.LookPath("credresolve")
	if err != nil {
		t.Fatal(err)
	}
	out = &lockedBuffer{}
	cmd = exec.Command(path, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.WaitDelay = 5 * time.Second
	return cmd, out, dir
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lockedBuffer) await(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(l.String(), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%q did not appear in %q", text, l.String())
		}
	}
}

func TestSignalsPassThrough(t *testing.T) {
	t.Parallel()
	for name, sig := range map[string]syscall.Signal{
		"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP, "QUIT": syscall.SIGQUIT,
		"USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2, "WINCH": syscall.SIGWINCH,
	} {
		for _, redact := range []string{"--redact=false", "--redact"} {
			t.Run(name+redact, func(t *testing.T) {
				t.Parallel()
				cmd, out, _ := start(t, "run", redact, "app.env", "--", "sh", "-c",
					`trap 'echo caught; exit 5' `+name+`; echo ready; while :; do sleep 0.05; done`)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				out.await(t, "ready")
				if err := cmd.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
				_ = cmd.Wait()
				if got := cmd.ProcessState.ExitCode(); got != 5 || out.String() != "ready\ncaught\n" {
					t.Errorf("exit status %d, want 5; output %q", got, out)
				}
			})
		}
	}
}

// Where nobody passes a signal on, the kernel ends the command with us.
func TestCommandDoesNotOutliveUs(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux: run it there")
	}
	cmd, out, _ := start(t, "run", "app.env", "--", "sh", "-c", `echo "pid $$ ready"; while :; do sleep 0.05; done`)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.await(t, "ready")
	pid, err := strconv.Atoi(strings.Fields(out.String())[1])
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	for deadline := time.Now().Add(10 * time.Second); syscall.Kill(pid, 0) == nil; time.Sleep(5 * time.Millisecond) {
		if stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat"); err == nil && strings.Contains(string(stat), ") Z ") {
			return // ended; nobody in this sandbox collects it
		}
		if time.Now().After(deadline) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatal("the command still runs")
		}
	}
}

// A signal at any moment ends a command at once, with its status, and nothing is left behind.
func TestSignalWhileReading(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		sig  syscall.Signal
		args []string
		want int
	}{
		"render, INT":      {syscall.SIGINT, []string{"render", "pipe.yaml"}, 130},
		"render out, TERM": {syscall.SIGTERM, []string{"render", "pipe.yaml", "--out", "out.yaml"}, 143},
		"check, HUP":       {syscall.SIGHUP, []string{"check", "app.yaml", "pipe.yaml"}, 129},
		"run, TERM":        {syscall.SIGTERM, []string{"run", "--format", "env", "pipe.yaml", "--", "touch", "ran"}, 143},
		"put, INT":         {syscall.SIGINT, []string{"put", "cred://m/new"}, 130},
		"stdin, TERM":      {syscall.SIGTERM, []string{"render", "-", "--format", "yaml"}, 143},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd, out, dir := start(t, append([]string{"--verbose"}, tt.args...)...)
			if err := syscall.Mkfifo(filepath.Join(dir, "pipe.yaml"), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := cmd.StdinPipe(); err != nil { // never written, never closed
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			out.await(t, "configuration")
			time.Sleep(50 * time.Millisecond)
			if err := cmd.Process.Signal(tt.sig); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != tt.want {
				t.Errorf("exit status %d, want %d; output %q", got, tt.want, out)
			}
			if !strings.Contains(out.String(), "credresolve: stopped by a signal: ") {
				t.Errorf("the output does not say why: %q", out)
			}
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				switch e.Name() {
				case "config.yaml", "app.env", "app.yaml", "pipe.yaml", ".local", "Library":
				default:
					t.Errorf("%s was left behind", e.Name())
				}
			}
		})
	}
}

// A store that does not answer: the program that is asked ends with us.
func TestSignalWhileAStoreHangs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		sig  syscall.Signal
		args []string
	}{
		{syscall.SIGINT, []string{"get", "cred://hang/x"}},
		{syscall.SIGQUIT, []string{"get", "cred://hang/x"}}, // no dump of goroutines
		{syscall.SIGINT, []string{"run", "--env", "A=cred://hang/x", "--", "touch", "ran"}},
	} {
		t.Run(tt.args[0]+" "+tt.sig.String(), func(t *testing.T) {
			t.Parallel()
			cmd, out, dir := start(t, tt.args...)
			program := filepath.Join(dir, "hang")
			config := testConfig + "  hang: {kind: exec, command: " + program + ", timeout: 60s}\n"
			if err := os.WriteFile(filepath.Join(dir, "config.yaml"), []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(program, []byte("#!/bin/sh\necho $$ > pid.tmp; mv pid.tmp pid; sleep 60; echo later\n"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var pid int
			for deadline := time.Now().Add(20 * time.Second); pid == 0; time.Sleep(5 * time.Millisecond) {
				if b, err := os.ReadFile(filepath.Join(dir, "pid")); err == nil {
					pid, _ = strconv.Atoi(strings.TrimSpace(string(b)))
				}
				if time.Now().After(deadline) {
					t.Fatalf("the program did not start: %q", out)
				}
			}
			if err := cmd.Process.Signal(tt.sig); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != 128+int(tt.sig) || out.String() != "credresolve: stopped by a signal: "+tt.sig.String()+"\n" {
				t.Errorf("exit status %d, want %d; output %q", got, 128+int(tt.sig), out)
			}
			if err := syscall.Kill(pid, 0); err == nil {
				stat, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
				if !strings.Contains(string(stat), ") Z ") {
					t.Error("the program still runs")
				}
			}
			if _, err := os.Stat(filepath.Join(dir, "ran")); err == nil {
				t.Error("the command was run")
			}
		})
	}
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	cmd, out, dir := start(t, "--timeout", "100ms", "render", "pipe.yaml")
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Run()
	if got := cmd.ProcessState.ExitCode(); got != 11 {
		t.Errorf("exit status %d, want 11; output %q", got, out)
	}
}

func echoes(t *testing.T, tty *os.File) bool {
	t.Helper()
	out, err := func() ([]byte, error) {
		cmd := exec.Command("stty", "-a")
		cmd.Stdin = tty
		return cmd.Output()
	}()
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(string(out))
	has := func(word string) bool {
		for _, w := range words {
			if strings.Trim(w, ";") == word {
				return true
			}
		}
		return false
	}
	return has("echo") && has("icanon") && has("isig") && has("opost") && term.IsTerminal(int(tty.Fd()))
}
