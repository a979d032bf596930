package main

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// canary is in every value that the scripts resolve. It may be in the standard output of a command that succeeds, and
// nowhere else.
const canary = "c4nary"

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"credresolve": main})
}

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, params(false))
}

// The same again at debug level: what is told there holds no secret either.
func TestScriptsAtDebugLevel(t *testing.T) {
	t.Parallel()
	testscript.Run(t, params(true))
}

func params(debug bool) testscript.Params {
	return testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			home := e.WorkDir + "/home"
			e.Setenv("HOME", home)
			e.Setenv("CANARY", canary)
			e.Setenv("GORACE", "atexit_sleep_ms=0") // a second for each command otherwise
			e.Setenv("CREDRESOLVE_CONFIG", "")
			e.Setenv("XDG_CONFIG_HOME", "")
			e.Setenv("XDG_STATE_HOME", "")
			return os.Mkdir(home, 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"cr":    func(ts *testscript.TestScript, neg bool, args []string) { runCommand(ts, neg, debug, args) },
			"quiet": quiet,
		},
		RequireUniqueNames: true,
	}
}

// runCommand is "cr STATUS ARGS...": credresolve with ARGS must exit with STATUS. It looks for canaries where none may be.
func runCommand(ts *testscript.TestScript, neg, debug bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if err != nil || neg {
		ts.Fatalf("usage: cr STATUS ARGS...")
	}
	args = args[1:]
	if debug && (len(args) == 0 || !strings.HasPrefix(args[0], "__")) {
		args = append([]string{"--verbose"}, args...)
	}
	err = ts.Exec("credresolve", args...)
	got := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("credresolve did not run: %v", err)
	}
	stdout, stderr := ts.ReadFile("stdout"), ts.ReadFile("stderr")
	if got != want {
		ts.Fatalf("exit status %d, want %d\n%s", got, want, stderr)
	}
	if strings.Contains(stderr, canary) {
		ts.Fatalf("a secret is on standard error:\n%s", stderr)
	}
	if got != 0 && strings.Contains(stdout, canary) && !strings.Contains(strings.Join(args, " "), "output json") {
		ts.Fatalf("a secret is on standard output though the command failed:\n%s", stdout)
	}
}

// quiet says that the last command wrote nothing to standard error but what debug level adds.
func quiet(ts *testscript.TestScript, neg bool, args []string) {
	for line := range strings.Lines(ts.ReadFile("stderr")) {
		if !strings.HasPrefix(line, "time=") {
			ts.Fatalf("standard error is not quiet: %s", line)
		}
	}
}
