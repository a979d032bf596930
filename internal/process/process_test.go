//go:build unix

package process_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/credresolve/credresolve/internal/process"
	"go.uber.org/goleak"
)

const canary = "hunter2-c4nary"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sh gives a Command that runs script. The program writes the id of its process group into the file pid.
func sh(t *testing.T, script string) (c process.Command, pid string) {
	t.Helper()
	if _, err := os.Stat("/bin/sh"); err != nil {
		t.Skip("needs /bin/sh: install a shell there")
	}
	pid = filepath.Join(t.TempDir(), "pid")
	return process.Command{
		Path: "/bin/sh", Args: []string{"sh", "-c", "echo $$ > " + pid + "\n" + script},
		Env: []string{"PATH=" + os.Getenv("PATH")},
	}, pid
}

// nobodyLeft fails when a process of the group in the file pid lives on. Dead ones that nobody reaped yet do not count.
func nobodyLeft(t *testing.T, pid string) {
	t.Helper()
	content, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	group, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "linux" {
		if err := syscall.Kill(-group, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("the group %d lives on", group)
		}
		return
	}
	deadline := time.Now().Add(time.Second) // a kill takes effect a moment later
	for len(members(t, group)) > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("of the group %d these are left: %q", group, members(t, group))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func members(t *testing.T, group int) (found []string) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(stats) == 0 {
		t.Fatalf("no /proc: %v", err)
	}
	for _, name := range stats {
		stat, err := os.ReadFile(name)
		if err != nil {
			continue // it has just ended
		}
		// pid (command) state ppid pgrp; the command may hold anything.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if fields[2] == strconv.Itoa(group) && fields[0] != "Z" && fields[0] != "X" {
			found = append(found, string(stat))
		}
	}
	return found
}

func TestRun(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		script  string
		change  func(*process.Command)
		want    string
		failure process.Failure
		within  time.Duration // zero: 5 s
	}{
		{name: "answers", script: "cat; printf ' and more'", want: "request and more"},
		{name: "answers nothing", script: "cat >/dev/null"},
		{name: "answers a lot", script: "head -c 3000000 /dev/zero | tr '\\0' x", want: strings.Repeat("x", 3_000_000)},
		{name: "writes on standard error too", script: "printf a; echo " + canary + " >&2; printf b", want: "ab"},
		{name: "never reads its input", script: "printf ok", change: bigInput, want: "ok"},
		{name: "closes its input", script: "exec 0<&-; sleep 0.1; printf ok", change: bigInput, want: "ok"},
		{name: "reads after it has written", script: "head -c 300000 /dev/zero | tr '\\0' x; wc -c | tr -d ' \\n'", change: bigInput,
			want: strings.Repeat("x", 300_000) + "8388608"},
		{name: "closes its output early", script: "printf ok; exec 1>&-; sleep 0.1", want: "ok"},
		{name: "status 7", script: "echo " + canary + "; echo " + canary + " >&2; exit 7", failure: process.Exit},
		{name: "dies by a signal", script: "echo " + canary + "; kill -ABRT $$", failure: process.Signal},
		{name: "hangs", script: "echo " + canary + "; exec sleep 60", change: timeout, failure: process.Timeout},
		{name: "hangs without reading", script: "exec sleep 60", change: func(c *process.Command) { timeout(c); bigInput(c) }, failure: process.Timeout},
		{name: "hangs and ignores SIGTERM", script: "trap '' TERM; while :; do sleep 0.05; done", change: timeout, failure: process.Timeout},
		{name: "hangs with children that ignore SIGTERM", script: "sh -c \"trap '' TERM; sleep 60; sleep 60\" & sleep 60", change: timeout, failure: process.Timeout},
		{name: "stops itself", script: "kill -STOP $$", change: timeout, failure: process.Timeout},
		{name: "falls silent", script: "printf a; exec sleep 60", change: silence, failure: process.Silence},
		{name: "shows signs of life", script: "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 0.05; printf . >&2; done; printf ok", change: silence, want: "ok"},
		{name: "floods", script: "yes " + canary, change: limit, failure: process.Flood},
		{name: "floods standard error", script: "yes " + canary + " >&2", change: limit, failure: process.Flood},
		{name: "floods and ends", script: "head -c 10001 /dev/zero", change: limit, failure: process.Flood},
		{name: "writes as much as it may", script: "head -c 10000 /dev/zero", change: limit, want: strings.Repeat("\x00", 10_000)},
		{name: "leaves a child that holds the pipe", script: "sleep 60 & printf ok", want: "ok", within: 3 * time.Second},
		{name: "leaves a grandchild that holds the pipe", script: "(sleep 60 & sleep 60 &) & wait; printf ok", want: "ok", within: 3 * time.Second},
		{name: "fails and leaves a child", script: "sleep 60 & exit 3", failure: process.Exit, within: 3 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, pid := sh(t, tt.script)
			c.Stdin = []byte("request")
			if tt.change != nil {
				tt.change(&c)
			}
			start := time.Now()
			out, err := process.Run(t.Context(), c)
			took := time.Since(start)
			if tt.within == 0 {
				tt.within = 5 * time.Second
			}
			if took > tt.within {
				t.Errorf("it took %v, more than %v", took, tt.within)
			}
			var e *process.Error
			switch {
			case tt.failure == "":
				if err != nil || string(out) != tt.want {
					t.Errorf("got %d bytes, %v; want %d", len(out), err, len(tt.want))
				}
			case !errors.As(err, &e) || e.Failure != tt.failure:
				t.Errorf("got %v, want %s", err, tt.failure)
			case out != nil:
				t.Error("an error came with output")
			case strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), canary):
				t.Errorf("the error holds output: %v", err)
			}
			nobodyLeft(t, pid)
		})
	}
}

func bigInput(c *process.Command) { c.Stdin = bytes.Repeat([]byte("x"), 8<<20) }
func timeout(c *process.Command)  { c.Timeout = 100 * time.Millisecond }
func silence(c *process.Command)  { c.Silence = 500 * time.Millisecond }
func limit(c *process.Command)    { c.MaxOutput = 10_000 }

func TestErrorTexts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ script, want string }{
		{"exit 7", "the program ended with status 7"},
		{"no-such-command-anywhere", "the program ended with status 127"},
		{"kill -TERM $$", "the program was ended by signal 15 (SIGTERM)"},
		{"kill -SEGV $$", "the program was ended by signal 11 (SIGSEGV)"},
		{"yes", "the program wrote more than 10000 bytes"},
		{"exec sleep 60", "the program wrote nothing for 150ms"},
		{"while :; do echo; sleep 0.01; done", "the program did not end within 300ms"},
	} {
		t.Run(tt.script, func(t *testing.T) {
			t.Parallel()
			c, _ := sh(t, tt.script)
			c.Timeout, c.Silence, c.MaxOutput = 300*time.Millisecond, 150*time.Millisecond, 10_000
			if _, err := process.Run(t.Context(), c); err == nil || err.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

// A descendant in a session of its own cannot be found; it must not keep us waiting.
func TestEscapedDescendantIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/usr/bin/setsid"); err != nil {
		t.Skip("needs setsid: apt-get install util-linux")
	}
	escaped := filepath.Join(t.TempDir(), "escaped")
	c, pid := sh(t, "setsid sh -c 'echo $$ > "+escaped+"; exec sleep 60' & while ! test -s "+escaped+"; do sleep 0.01; done; printf ok")
	start := time.Now()
	out, err := process.Run(t.Context(), c)
	if took := time.Since(start); string(out) != "ok" || err != nil || took > 3*time.Second {
		t.Errorf("got %q, %v after %v", out, err, took)
	}
	nobodyLeft(t, pid)
	content, err := os.ReadFile(escaped)
	if err != nil {
		t.Fatal(err)
	}
	id, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil {
		t.Fatal(err)
	}
	_ = syscall.Kill(id, syscall.SIGKILL)
}

func TestCancel(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"ends when asked":              "exec sleep 60",
		"ignores SIGTERM":              "trap '' TERM; while :; do sleep 0.02; done",
		"a child holds the pipe":       "sleep 60 & sleep 60",
		"does not read, much to write": "exec sleep 60",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, pid := sh(t, script)
			bigInput(&c)
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				for { // until it runs
					if content, err := os.ReadFile(pid); err == nil && len(content) > 0 {
						break
					}
					time.Sleep(time.Millisecond)
				}
				cancel()
			}()
			out, err := process.Run(ctx, c)
			if !errors.Is(err, context.Canceled) || out != nil {
				t.Errorf("got %d bytes, %v", len(out), err)
			}
			nobodyLeft(t, pid)
		})
	}
	t.Run("soon", func(t *testing.T) {
		t.Parallel()
		c, pid := sh(t, "trap '' TERM; while :; do sleep 0.02; done")
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := process.Run(ctx, c)
		deadline, _ := ctx.Deadline()
		if late := time.Since(deadline); !errors.Is(err, context.DeadlineExceeded) || late > 500*time.Millisecond {
			t.Errorf("%v, %v after the deadline", err, late)
		}
		nobodyLeft(t, pid)
	})
	t.Run("before the start", func(t *testing.T) {
		t.Parallel()
		c, pid := sh(t, "")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := process.Run(ctx, c); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if _, err := os.Stat(pid); err == nil {
			t.Error("the program was started")
		}
	})
}

func TestEnvironmentIsExact(t *testing.T) {
	t.Setenv("CREDRESOLVE_TEST_CANARY", canary)
	for _, env := range [][]string{nil, {}, {"A=1", "B=two words"}} {
		out, err := process.Run(t.Context(), process.Command{Path: "/usr/bin/env", Env: env})
		if err != nil {
			t.Fatal(err)
		}
		if want := strings.Join(append(append([]string{}, env...), ""), "\n"); string(out) != want {
			t.Errorf("with %q the environment is %q", env, out)
		}
	}
}

func TestArgumentsAndDirectory(t *testing.T) {
	t.Parallel()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c, _ := sh(t, "")
	c.Args, c.Dir = []string{"name", "-c", `pwd; printf '%s|' "$0" "$@"`, "zero", "a b", "$(id)", "*", ""}, dir
	out, err := process.Run(t.Context(), c)
	if want := dir + "\nzero|a b|$(id)|*||"; err != nil || string(out) != want {
		t.Errorf("got %q, %v; want %q", out, err, want)
	}
}

func TestNoTerminal(t *testing.T) {
	t.Parallel()
	c, _ := sh(t, "if (: < /dev/tty) 2>/dev/null; then printf terminal; else printf none; fi")
	if out, err := process.Run(t.Context(), c); err != nil || string(out) != "none" {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestCannotStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, tt := range []struct {
		path string
		env  []string
		want process.Failure
	}{
		{filepath.Join(dir, "none"), nil, process.NotFound},
		{file("bad-interpreter", "#!/no/such/interpreter\n", 0o755), nil, process.NotFound},
		{file("not-executable", "#!/bin/sh\n", 0o644), nil, process.NoAccess},
		{file("no-format", canary, 0o755), nil, process.NotAProgram},
		{dir, nil, process.NoAccess},
		{"/bin/sh", []string{"A=\x00" + canary}, process.NoStart},
		{"/bin/sh", []string{"A=" + strings.Repeat("x", 8<<20)}, process.NoStart},
	} {
		_, err := process.Run(t.Context(), process.Command{Path: tt.path, Env: tt.env})
		var e *process.Error
		if !errors.As(err, &e) || e.Failure != tt.want {
			t.Errorf("%s: %v, want %s", filepath.Base(tt.path), err, tt.want)
		} else if strings.Contains(err.Error(), canary) {
			t.Errorf("the error holds a value: %v", err)
		}
	}
}

func TestNoDescriptorIsLeft(t *testing.T) {
	// Not parallel: descriptors belong to the whole process.
	open := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("needs /proc: run the tests on Linux")
		}
		return len(entries)
	}
	run := func() {
		for _, script := range []string{"cat", "exit 1", "sleep 60 & printf ok", "exec sleep 60"} {
			c, _ := sh(t, script)
			c.Timeout, c.Stdin = 30*time.Millisecond, []byte("x")
			_, _ = process.Run(t.Context(), c)
		}
		_, _ = process.Run(t.Context(), process.Command{Path: "/no/such/program"})
	}
	run()
	before := open()
	for range 5 {
		run()
	}
	if after := open(); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// The descriptors of this process are no business of the program.
func TestDescriptorsAreNotInherited(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		t.Skip("needs /proc: run the tests on Linux")
	}
	secret := filepath.Join(t.TempDir(), canary)
	f, err := os.Create(secret)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	c, _ := sh(t, "ls -l /proc/self/fd/")
	if out, err := process.Run(t.Context(), c); err != nil || len(out) == 0 || bytes.Contains(out, []byte(canary)) {
		t.Errorf("the program has our descriptors: %s, %v", out, err)
	}
}

func TestExecutable(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc/self/fd: run the tests on Linux")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "program")
	binary, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, []byte("#!/bin/sh\nprintf replaced"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other, path); err != nil {
		t.Fatal(err)
	}
	out, err := process.Run(t.Context(), process.Command{Path: path, Executable: f, Args: []string{path, "-c", `printf "opened $0"`}})
	if want := "opened " + path; err != nil || string(out) != want {
		t.Errorf("got %q, %v; want %q", out, err, want)
	}
}

func BenchmarkRun(b *testing.B) {
	for b.Loop() {
		if _, err := process.Run(b.Context(), process.Command{Path: "/bin/true", Timeout: time.Second}); err != nil {
			b.Fatal(err)
		}
	}
}
