//go:build unix

package exec_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	osexec "os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/credresolve/credresolve/adapters/exec"
	"github.com/credresolve/credresolve/backend"
	"go.uber.org/goleak"
)

const canary = "hunter2-c4nary"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// interpreter finds the real file of an interpreter.
func interpreter(t testing.TB, name string) string {
	t.Helper()
	ask := map[string][]string{
		"sh":      {"sh", "-c", "command -v sh"},
		"python3": {"python3", "-c", "import sys; print(sys.executable)"},
		"node":    {"node", "-p", "process.execPath"},
	}[name]
	out, err := osexec.Command(ask[0], ask[1:]...).Output()
	if err != nil {
		t.Skipf("needs %s: apt-get install %s", name, map[string]string{"sh": "dash", "python3": "python3", "node": "nodejs"}[name])
	}
	return strings.TrimSpace(string(out))
}

// program writes a program in that language and gives its path.
func program(t testing.TB, language, text string) string {
	t.Helper()
	path := filepath.Join(tempDir(t), "program")
	if err := os.WriteFile(path, []byte("#!"+interpreter(t, language)+"\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t testing.TB, c exec.Config) *exec.Backend {
	t.Helper()
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second // the machine may be busy
	}
	b, err := exec.New(c, backend.Host{Provider: "corp"})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func requests(ids ...string) []backend.Request {
	reqs := make([]backend.Request, len(ids))
	for i, id := range ids {
		reqs[i].ID = id
	}
	return reqs
}

func show(c *backend.Credential) string {
	one := func(s backend.Secret) string {
		if s.IsJSON() {
			return "<" + string(s.Reveal()) + ">"
		}
		return string(s.Reveal())
	}
	s := one(c.Secret)
	for _, name := range slices.Sorted(maps.Keys(c.Fields)) {
		s += " " + name + "=" + one(c.Fields[name])
	}
	return s
}

const pythonStore = `
import json, sys, os
request = json.load(sys.stdin)
assert request["protocolVersion"] == 1 and request["provider"] == "corp"
with open(os.path.join(os.path.dirname(sys.argv[0]), "log"), "a") as log: log.write(json.dumps(request["ids"]) + "\n")
store = {"a": "secret-a", "ü/ b?c#d%": "odd", "empty": "", "n": 12345678901234567890, "obj": {"user": "u", "port": 5432, "tls": {"ca": "x"}},
         "text": '{"k": "v"}', "null": None, "both": "value"}
errors = {c: {"code": c, "message": "hunter2-c4nary", "retryAfterMs": 1500} for c in
          ["NOT_FOUND", "DENIED", "INVALID_ID", "LOCKED", "UNAVAILABLE", "AUTH_REQUIRED", "EXPIRED", "AMBIGUOUS_DUPLICATE_KEY", "hunter2-c4nary"]}
errors["both"] = {"code": "DENIED"}
print("hunter2-c4nary", file=sys.stderr)
json.dump({"protocolVersion": 1, "values": {i: store[i] for i in request["ids"] if i in store} | {"unasked": "hunter2-c4nary"},
           "errors": {i: errors[i] for i in request["ids"] if i in errors}}, sys.stdout)
`

func TestBatch(t *testing.T) {
	t.Parallel()
	path := program(t, "python3", pythonStore)
	b := open(t, exec.Config{Command: path})
	tests := []struct {
		id, want string
		code     backend.Code
		retry    time.Duration
	}{
		{id: "a", want: "secret-a"},
		{id: "ü/ b?c#d%", want: "odd"},
		{id: "empty", want: ""},
		{id: "n", want: "<12345678901234567890>"},
		{id: "obj", want: `<{"user":"u","port":5432,"tls":{"ca":"x"}}> port=<5432> tls=<{"ca":"x"}> user=u`},
		{id: "text", want: `{"k": "v"} k=v`},
		{id: "null", code: backend.CodeInternal},
		{id: "both", code: backend.CodeDenied},
		{id: "not answered", code: backend.CodeInternal},
		{id: "NOT_FOUND", code: backend.CodeNotFound},
		{id: "DENIED", code: backend.CodeDenied},
		{id: "INVALID_ID", code: backend.CodeInvalidID},
		{id: "LOCKED", code: backend.CodeLocked},
		{id: "UNAVAILABLE", code: backend.CodeUnavailable, retry: 1500 * time.Millisecond},
		{id: "AUTH_REQUIRED", code: backend.CodeAuthRequired},
		{id: "EXPIRED", code: backend.CodeExpired},
		{id: "AMBIGUOUS_DUPLICATE_KEY", code: backend.CodeInternal},
		{id: canary, code: backend.CodeInternal},
		{id: "", code: backend.CodeInvalidID},
	}
	var reqs []backend.Request
	for _, tt := range tests {
		reqs = append(reqs, backend.Request{ID: tt.id})
	}
	results, err := b.GetBatch(t.Context(), reqs)
	must(t, err)
	for i, tt := range tests {
		r := results[i]
		want := tt.code
		if want == "" {
			want = backend.CodeOK
		}
		switch {
		case backend.CodeOf(r.Err) != want:
			t.Errorf("%s: got %v, want %q", tt.id, r.Err, want)
		case r.Err == nil && show(r.Credential) != tt.want:
			t.Errorf("%s: got  %s\nwant %s", tt.id, show(r.Credential), tt.want)
		case r.Err != nil && strings.Contains(r.Err.Error(), canary):
			t.Errorf("%s: the error holds the program's text: %v", tt.id, r.Err)
		case backend.RetryAfter(r.Err) != tt.retry:
			t.Errorf("%s: retry after %v, want %v", tt.id, backend.RetryAfter(r.Err), tt.retry)
		}
	}
	if c, err := b.Get(t.Context(), backend.Request{ID: "a"}); err != nil || show(c) != "secret-a" {
		t.Errorf("alone: %v", err)
	}
	if _, err := b.Get(t.Context(), backend.Request{ID: "DENIED"}); !errors.Is(err, backend.ErrDenied) {
		t.Errorf("alone, denied: %v", err)
	}
}

func TestOneProcessForABatch(t *testing.T) {
	t.Parallel()
	path := program(t, "python3", pythonStore)
	b := open(t, exec.Config{Command: path})
	results, err := b.GetBatch(t.Context(), append(requests("a", "empty", "a", "text"), backend.Request{ID: "a", Version: "1"}))
	must(t, err)
	if !errors.Is(results[4].Err, errors.ErrUnsupported) {
		t.Errorf("a version: %v", results[4].Err)
	}
	for i, want := range []string{"secret-a", "", "secret-a", `{"k": "v"} k=v`} {
		if results[i].Err != nil || show(results[i].Credential) != want {
			t.Errorf("result %d: %v", i, results[i].Err)
		}
	}
	log, err := os.ReadFile(filepath.Join(filepath.Dir(path), "log"))
	must(t, err)
	if want := `["a", "empty", "text"]` + "\n"; string(log) != want {
		t.Errorf("the program was asked %q, want %q", log, want)
	}
	results, err = b.GetBatch(t.Context(), []backend.Request{{ID: "a", Version: "1"}, {}})
	if err != nil || !errors.Is(results[0].Err, errors.ErrUnsupported) || !errors.Is(results[1].Err, backend.ErrInvalidID) {
		t.Errorf("nothing to ask: %v, %v", results, err)
	}
	if after, err := os.ReadFile(filepath.Join(filepath.Dir(path), "log")); err != nil || len(after) != len(log) {
		t.Error("a process ran for nothing")
	}
}

// Whatever a program does, its ids get one clear error, nothing of its output shows, and nothing is left behind.
func TestBadPrograms(t *testing.T) {
	t.Parallel()
	const ok = `{"protocolVersion":1,"values":{"a":"` + canary + `"}}`
	for _, tt := range []struct {
		name, language, text string
		change               func(*exec.Config)
		want                 string // empty: the answer is fine
		code                 backend.Code
	}{
		{name: "hangs", language: "sh", text: "echo " + canary + "; sleep 60", change: shortTimeout, want: "did not end within"},
		{name: "hangs and ignores SIGTERM", language: "python3", text: "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)", change: shortTimeout, want: "did not end within"},
		{name: "falls silent", language: "node", text: "process.stdout.write('" + canary + "'); setTimeout(() => {}, 60000)", change: func(c *exec.Config) { c.NoOutputTimeout = 700 * time.Millisecond }, want: "wrote nothing for"},
		{name: "floods", language: "sh", text: "yes " + canary, change: smallOutput, want: "wrote more than"},
		{name: "floods standard error", language: "python3", text: "import sys\nwhile True: sys.stderr.write('" + canary + "')", change: smallOutput, want: "wrote more than"},
		{name: "exits 3 with a good answer", language: "sh", text: "cat >/dev/null; echo '" + ok + "'; echo " + canary + " >&2; exit 3", want: "ended with status 3"},
		{name: "throws", language: "node", text: "throw new Error('" + canary + "')", want: "ended with status 1"},
		{name: "raises", language: "python3", text: "raise Exception('" + canary + "')", want: "ended with status 1"},
		{name: "dies by a signal", language: "sh", text: "echo '" + ok + "'; kill -SEGV $$", want: "ended by signal 11"},
		{name: "garbage", language: "sh", text: "echo " + canary, want: "not one JSON value"},
		{name: "binary garbage", language: "python3", text: "import os\nos.write(1, b'\\xff\\xfe" + canary + "')", want: "not valid UTF-8"},
		{name: "nothing", language: "sh", text: "exit 0", want: "answered nothing"},
		{name: "closes its output", language: "sh", text: "exec 1>&-; cat >/dev/null", want: "answered nothing"},
		{name: "a log line first", language: "node", text: "console.log('starting " + canary + "'); console.log('" + ok + "')", want: "not one JSON value"},
		{name: "an array", language: "sh", text: "echo '[\"" + canary + "\"]'", want: "not a JSON object"},
		{name: "version 2", language: "sh", text: `echo '{"protocolVersion":2,"values":{"a":"` + canary + `"}}'`, want: `"protocolVersion": 1`},
		{name: "no values", language: "sh", text: `echo '{"protocolVersion":1,"errors":{}}'`, want: `no object "values"`},
		{name: "answers for other ids", language: "sh", text: `echo '{"protocolVersion":1,"values":{"z":"` + canary + `"}}'`, want: "without this id", code: backend.CodeInternal},
		{name: "no such interpreter", language: "", text: "#!/no/such/interpreter\n", want: "interpreter"},
		{name: "not a program", language: "", text: canary, want: "#!", code: backend.CodeInvalidConfig},

		{name: "never reads, answers", language: "sh", text: "echo '" + ok + "'", change: func(c *exec.Config) {}},
		{name: "closes its input, answers", language: "python3", text: "import os, time\nos.close(0)\ntime.sleep(0.1)\nprint('" + ok + "')"},
		{name: "leaves children that hold the pipe", language: "sh", text: "cat >/dev/null; (sleep 60 & sleep 60 &) & sleep 60 & echo '" + ok + "'"},
		{name: "leaves a child that floods", language: "node", text: "require('child_process').spawn('yes', {stdio: 'ignore'}); process.stdout.write('" + ok + "', () => process.exit(0))", change: func(c *exec.Config) { c.PassEnv = []string{"PATH"} }},
		{name: "exits before its input is written", language: "node", text: "require('fs').writeSync(1, '" + ok + "')"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var path string
			if tt.language == "" {
				path = filepath.Join(tempDir(t), "program")
				must(t, os.WriteFile(path, []byte(tt.text), 0o700))
			} else {
				path = program(t, tt.language, tt.text)
			}
			c := exec.Config{Command: path, Env: map[string]backend.Source{
				"PATH":           backend.Literal(backend.NewSecretString(os.Getenv("PATH"))),
				"CREDRESOLVE_ID": backend.Literal(backend.NewSecretString(path)), // marks the processes
			}}
			if tt.change != nil {
				tt.change(&c)
			}
			// Much to read, more than fits into a pipe.
			reqs := append(requests("a"), requests(manyIDs(2000)...)...)
			start := time.Now()
			results, err := open(t, c).GetBatch(t.Context(), reqs)
			must(t, err)
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("it took %v", took)
			}
			if tt.code == "" {
				tt.code = backend.CodeUnavailable
			}
			switch r := results[0]; {
			case tt.want == "":
				if r.Err != nil || show(r.Credential) != canary {
					t.Errorf("got %v", r.Err)
				}
			case backend.CodeOf(r.Err) != tt.code || !strings.Contains(fmt.Sprint(r.Err), tt.want):
				t.Errorf("got %s: %v; want %s and %q", backend.CodeOf(r.Err), r.Err, tt.code, tt.want)
			case strings.Contains(fmt.Sprintf("%v %+v", r.Err, results), canary):
				t.Errorf("the program's output shows: %v", r.Err)
			}
			nobodyLeft(t, "CREDRESOLVE_ID="+path)
		})
	}
}

func shortTimeout(c *exec.Config) { c.Timeout = 700 * time.Millisecond }
func smallOutput(c *exec.Config)  { c.MaxOutput = 100_000 }

func manyIDs(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("kv/app/%d/%s", i, strings.Repeat("x", 50))
	}
	return ids
}

// nobodyLeft fails when a process with that environment variable lives on.
func nobodyLeft(t *testing.T, variable string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		return
	}
	deadline := time.Now().Add(time.Second) // a kill takes effect a moment later
	for {
		var left []string
		names, err := filepath.Glob("/proc/[0-9]*/environ")
		must(t, err)
		for _, name := range names {
			if env, err := os.ReadFile(name); err == nil && slices.Contains(strings.Split(string(env), "\x00"), variable) {
				left = append(left, name)
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("these are left: %q", left)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	path := program(t, "sh", "trap '' TERM; while :; do sleep 0.05; done")
	b := open(t, exec.Config{Command: path, Env: map[string]backend.Source{
		"PATH": backend.Literal(backend.NewSecretString(os.Getenv("PATH"))), "CREDRESOLVE_ID": backend.Literal(backend.NewSecretString(path)),
	}})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	results, err := b.GetBatch(ctx, requests("a"))
	deadline, _ := ctx.Deadline()
	if late := time.Since(deadline); !errors.Is(err, context.DeadlineExceeded) || results != nil || late > time.Second {
		t.Errorf("%v, %v late", err, late)
	}
	nobodyLeft(t, "CREDRESOLVE_ID="+path)
	for name, call := range map[string]func() error{
		"Get":   func() error { _, err := b.Get(ctx, backend.Request{ID: "a"}); return err },
		"Probe": func() error { return b.Probe(ctx) },
	} {
		if err := call(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	path := program(t, "python3", `
import json, os, sys
env = {k: v for k, v in os.environ.items() if k not in ("LC_CTYPE", "__CF_USER_TEXT_ENCODING")} # made by the interpreter itself
json.dump({"protocolVersion": 1, "values": {"env": env, "cwd": os.getcwd(), "args": sys.argv[1:], "tty": os.isatty(0)}}, sys.stdout)
`)
	var resolved int
	b, err := exec.New(exec.Config{
		Command: path, Args: []string{"--json", "$HOME", "{id}", "a b"}, Timeout: 30 * time.Second,
		PassEnv: []string{"HOME", "UNSET", "BOTH"},
		Env: map[string]backend.Source{
			"TOKEN": backend.NewSource(func(context.Context) (backend.Secret, string, error) {
				resolved++
				return backend.NewSecretString(canary), "r1", nil
			}, nil),
			"BOTH": backend.Literal(backend.NewSecretString("own")),
		},
	}, backend.Host{Provider: "corp", LookupEnv: func(name string) (string, bool) {
		v, ok := map[string]string{"HOME": "/home/u", "BOTH": "passed", "SECRET": canary}[name]
		return v, ok
	}})
	must(t, err)
	if resolved != 0 {
		t.Error("New resolved a secret")
	}
	results, err := b.GetBatch(t.Context(), requests("env", "cwd", "args"))
	must(t, err)
	for i, want := range []string{
		"BOTH=own HOME=/home/u TOKEN=" + canary, filepath.Dir(path), `<["--json","$HOME","{id}","a b"]>`,
	} {
		if results[i].Err != nil {
			t.Error(results[i].Err)
			continue
		}
		got := show(results[i].Credential)
		if i == 0 {
			_, got, _ = strings.Cut(got, "> ")
		}
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if _, err := b.Get(t.Context(), backend.Request{ID: "cwd"}); err != nil || resolved != 2 {
		t.Errorf("%v; the secret was resolved %d times, want once for each run", err, resolved)
	}
}

func TestEnvironmentThatFails(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		value string
		err   error
		want  backend.Code
	}{
		{"not found", "", backend.Errorf(backend.CodeNotFound, "gone"), backend.CodeInvalidConfig},
		{"locked", "", backend.Errorf(backend.CodeLocked, "locked"), backend.CodeLocked},
		{"canceled", "", context.Canceled, backend.CodeCanceled},
		{"a NUL", canary + "\x00", nil, backend.CodeInvalidConfig},
	} {
		path := program(t, "sh", "touch ran")
		b := open(t, exec.Config{Command: path, Env: map[string]backend.Source{
			"TOKEN": backend.NewSource(func(context.Context) (backend.Secret, string, error) {
				return backend.NewSecretString(tt.value), "", tt.err
			}, nil),
		}})
		_, err := b.Get(t.Context(), backend.Request{ID: "a"})
		if backend.CodeOf(err) != tt.want || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
		if _, err := os.Stat(filepath.Join(filepath.Dir(path), "ran")); err == nil {
			t.Errorf("%s: the program ran", tt.name)
		}
	}
}

func TestPlain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text string
		args       []string
		id, want   string
		err        error
	}{
		{name: "an argument", text: `printf '%s|' "$@"`, args: []string{"show", "{id}", "--key={id}"}, id: "a b", want: "show|a b|--key=a b|"},
		{name: "no shell reads it", text: `printf '%s' "$1"`, args: []string{"{id}"}, id: "$(id);`id`", want: "$(id);`id`"},
		{name: "one newline is taken", text: `printf 'x\n\n'`, id: "a", want: "x\n"},
		{name: "one Windows newline is taken", text: `printf 'x\r\n'`, id: "a", want: "x"},
		{name: "white space is kept", text: `printf ' x \t'`, id: "a", want: " x \t"},
		{name: "JSON text is not unquoted", text: `printf '"x"'`, id: "a", want: `"x"`},
		{name: "an object has fields", text: `echo '{"u": "x", "n": 1.0}'`, id: "a", want: `{"u": "x", "n": 1.0} n=<1.0> u=x`},
		{name: "bytes that are no text", text: `printf '\377\000x'`, id: "a", want: "\xff\x00x"},
		{name: "the id on standard input", text: `cat`, id: "a", want: `{"protocolVersion":1,"provider":"corp","ids":["a"]} ids=<["a"]> protocolVersion=<1> provider=corp`},
		{name: "nothing", text: `exit 0`, id: "a", err: backend.ErrUnavailable},
		{name: "a newline alone", text: `echo`, id: "a", err: backend.ErrUnavailable},
		{name: "a failure", text: `echo ` + canary + `; exit 1`, id: "a", err: backend.ErrUnavailable},
		{name: "an option for an id", text: `echo ` + canary, args: []string{"{id}"}, id: "--help", err: backend.ErrInvalidID},
		{name: "an option for an id, behind --", text: `printf %s "$2"`, args: []string{"--", "{id}"}, id: "-x", want: "-x"},
		{name: "an option for an id, as part of one", text: `printf %s "$1"`, args: []string{"k={id}"}, id: "-x", want: "k=-x"},
		{name: "a NUL", text: `echo`, args: []string{"{id}"}, id: "a\x00", err: backend.ErrInvalidID},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := open(t, exec.Config{Command: program(t, "sh", tt.text), Args: tt.args, Output: "plain", PassEnv: []string{"PATH"}})
			// By way of a batch, which this backend cannot.
			results, err := backend.GetBatch(t.Context(), b, requests(tt.id, tt.id))
			must(t, err)
			for _, r := range results {
				if !errors.Is(r.Err, tt.err) || tt.err == nil && show(r.Credential) != tt.want {
					t.Errorf("got %v, %v; want %q, %v", r.Credential, r.Err, tt.want, tt.err)
				}
				if r.Err != nil && strings.Contains(r.Err.Error(), canary) {
					t.Errorf("the program's output shows: %v", r.Err)
				}
			}
		})
	}
	b := open(t, exec.Config{Command: "/bin/true", Output: "plain"})
	if _, err := b.Get(t.Context(), backend.Request{ID: "a", Version: "1"}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a version: %v", err)
	}
	if _, err := b.GetBatch(t.Context(), requests("a")); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a batch: %v", err)
	}
}

func TestRefusedPrograms(t *testing.T) {
	t.Parallel()
	const text = "touch \"${0%/*}/ran\"; echo '{\"protocolVersion\":1,\"values\":{\"a\":\"x\"}}'"
	sum := func(path string) string {
		content, err := os.ReadFile(path)
		must(t, err)
		s := sha256.Sum256(content)
		return hex.EncodeToString(s[:])
	}
	link := func(t *testing.T, path string) string {
		link := filepath.Join(tempDir(t), "link")
		must(t, os.Symlink(path, link))
		return link
	}
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, c *exec.Config)
		code   backend.Code
		want   string
	}{
		{"as it should be", func(*testing.T, *exec.Config) {}, backend.CodeOK, ""},
		{"for everybody to execute", func(t *testing.T, c *exec.Config) { must(t, os.Chmod(c.Command, 0o755)) }, backend.CodeOK, ""},
		{"in an allowed directory", func(_ *testing.T, c *exec.Config) {
			c.AllowDirs = []string{"/nowhere", filepath.Dir(filepath.Dir(c.Command))}
		}, backend.CodeOK, ""},
		{"with the right checksum", func(_ *testing.T, c *exec.Config) { c.SHA256 = strings.ToUpper(sum(c.Command)) }, backend.CodeOK, ""},
		{"by a link", func(t *testing.T, c *exec.Config) { c.Command = link(t, c.Command) }, backend.CodeOK, ""},
		{"missing", func(_ *testing.T, c *exec.Config) { c.Command += "2" }, backend.CodeUnavailable, "does not exist"},
		{"writable by a group", func(t *testing.T, c *exec.Config) { must(t, os.Chmod(c.Command, 0o770)) }, backend.CodeDenied, "chmod go-w"},
		{"writable by all", func(t *testing.T, c *exec.Config) { must(t, os.Chmod(c.Command, 0o777)) }, backend.CodeDenied, "chmod go-w"},
		{"not executable", func(t *testing.T, c *exec.Config) { must(t, os.Chmod(c.Command, 0o600)) }, backend.CodeDenied, "chmod u+x"},
		{"a directory", func(_ *testing.T, c *exec.Config) { c.Command = filepath.Dir(c.Command) }, backend.CodeInvalidConfig, "is a directory"},
		{"in a directory of everybody", func(t *testing.T, c *exec.Config) {
			must(t, os.Chmod(filepath.Dir(c.Command), 0o777))
		}, backend.CodeDenied, "chmod go-w"},
		{"by a link in a directory of everybody", func(t *testing.T, c *exec.Config) {
			c.Command = link(t, c.Command)
			must(t, os.Chmod(filepath.Dir(c.Command), 0o777))
		}, backend.CodeDenied, "chmod go-w"},
		{"of another user", func(t *testing.T, c *exec.Config) {
			if os.Geteuid() != 0 {
				t.Skip("needs root to give files away: run the tests as root")
			}
			must(t, os.Chown(c.Command, 54321, 54321))
		}, backend.CodeDenied, "belongs to user 54321"},
		{"elsewhere", func(_ *testing.T, c *exec.Config) { c.AllowDirs = []string{"/opt"} }, backend.CodeDenied, "none of the allowed directories"},
		{"by a link that leads out of the allowed directory", func(t *testing.T, c *exec.Config) {
			c.Command = link(t, c.Command)
			c.AllowDirs = []string{filepath.Dir(c.Command)}
		}, backend.CodeDenied, "none of the allowed directories"},
		{"with another checksum", func(_ *testing.T, c *exec.Config) { c.SHA256 = strings.Repeat("ab", 32) }, backend.CodeDenied, "checksum"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := program(t, "sh", text)
			c := exec.Config{Command: path, PassEnv: []string{"PATH"}}
			tt.change(t, &c)
			b := open(t, c)
			probed := b.Probe(t.Context())
			ran := func() bool { _, err := os.Stat(filepath.Join(filepath.Dir(path), "ran")); return err == nil }
			if ran() {
				t.Error("Probe ran the program")
			}
			_, err := b.Get(t.Context(), backend.Request{ID: "a"})
			for name, err := range map[string]error{"Get": err, "Probe": probed} {
				code := tt.code
				if name == "Probe" && code == backend.CodeOK {
					code = backend.CodeUnsupported // it cannot say yes
				}
				if backend.CodeOf(err) != code || err != nil && !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%s: %s: %v; want %s and %q", name, backend.CodeOf(err), err, tt.code, tt.want)
				}
			}
			if ran() != (tt.code == backend.CodeOK) {
				t.Errorf("the program ran: %t", ran())
			}
		})
	}
}

// A pinned binary is executed by the descriptor that was checked.
func TestPinnedBinary(t *testing.T) {
	t.Parallel()
	binary, err := os.ReadFile("/bin/cat")
	if err != nil {
		t.Skip("needs /bin/cat: install coreutils")
	}
	path := filepath.Join(tempDir(t), "cat")
	must(t, os.WriteFile(path, binary, 0o700))
	s := sha256.Sum256(binary)
	b := open(t, exec.Config{Command: path, SHA256: hex.EncodeToString(s[:]), Output: "plain", AllowDirs: []string{filepath.Dir(path)}})
	c, err := b.Get(t.Context(), backend.Request{ID: "a"})
	if err != nil || string(c.Fields["provider"].Reveal()) != "corp" {
		t.Errorf("got %v, %v", c, err)
	}
	must(t, os.WriteFile(path+".new", append(binary, 0), 0o700))
	must(t, os.Rename(path+".new", path))
	if _, err := b.Get(t.Context(), backend.Request{ID: "a"}); !errors.Is(err, backend.ErrDenied) {
		t.Errorf("another binary: %v", err)
	}
}

// A pinned script that is exchanged while it runs is not believed.
func TestPinnedScriptThatChanges(t *testing.T) {
	t.Parallel()
	path := program(t, "sh", "sleep 0.1; echo '# x' >> \"$0\"; echo '{\"protocolVersion\":1,\"values\":{\"a\":\""+canary+"\"}}'")
	content, err := os.ReadFile(path)
	must(t, err)
	s := sha256.Sum256(content)
	b := open(t, exec.Config{Command: path, SHA256: hex.EncodeToString(s[:]), PassEnv: []string{"PATH"}})
	if c, err := b.Get(t.Context(), backend.Request{ID: "a"}); !errors.Is(err, backend.ErrUnavailable) {
		t.Errorf("got %v, %v", c, err)
	}
}

func TestRequestThatIsTooBig(t *testing.T) {
	t.Parallel()
	ids := make([]string, 9000)
	for i := range ids {
		ids[i] = strconv.Itoa(i) + strings.Repeat("x", 2000)
	}
	path := program(t, "sh", "exit 1")
	results, err := open(t, exec.Config{Command: path}).GetBatch(t.Context(), requests(ids...))
	must(t, err)
	if !errors.Is(results[0].Err, errors.ErrUnsupported) || !strings.Contains(results[0].Err.Error(), "fewer ids") {
		t.Errorf("got %v", results[0].Err)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	literal := func(name string) map[string]backend.Source {
		return map[string]backend.Source{name: backend.Literal(backend.NewSecretString("x"))}
	}
	for _, c := range []exec.Config{
		{}, {Command: "program"}, {Command: "./program"}, {Command: "~/program"}, {Command: "/a\x00"}, {Command: "/a", Args: []string{"\x00"}},
		{Command: "/a", Timeout: -1}, {Command: "/a", NoOutputTimeout: -1}, {Command: "/a", MaxOutput: -1}, {Command: "/a", Output: "json"},
		{Command: "/a", SHA256: "abc"}, {Command: "/a", SHA256: strings.Repeat("ab", 31)}, {Command: "/a", SHA256: strings.Repeat("xy", 32)},
		{Command: "/a", AllowDirs: []string{"/ok", "opt"}}, {Command: "/a", Env: literal("")}, {Command: "/a", Env: literal("A=B")},
		{Command: "/a", PassEnv: []string{"A", ""}}, {Command: "/a", PassEnv: []string{"A=" + canary}},
	} {
		if _, err := exec.New(c, backend.Host{}); !errors.Is(err, backend.ErrInvalidConfig) || strings.Contains(err.Error(), canary) {
			t.Errorf("%+v: %v, want ErrInvalidConfig", c, err)
		}
	}
	c := exec.Config{Command: "/no/such/program", PassEnv: []string{"HOME"}}
	b, err := exec.Kind().Open(&c, backend.Host{}) // opening looks at nothing
	must(t, err)
	if d := backend.Describe(b); !d.CallerBound || d.Detail != "/no/such/program, output protocol" {
		t.Errorf("Describe: %+v", d)
	}
	if backend.Describe(open(t, exec.Config{Command: "/a"})).CallerBound {
		t.Error("without pass_env every process gets the same")
	}
	c.Args = []string{"-c", "do this"}
	c.Env = map[string]backend.Source{"LD_PRELOAD": backend.Literal(backend.NewSecretString(canary))}
	want := []backend.Reach{
		{What: backend.ReachExecutable, Value: "/no/such/program"},
		{What: backend.ReachArgument, Value: `"-c"`}, {What: backend.ReachArgument, Value: `"do this"`},
		{What: backend.ReachArgument, Value: "LD_PRELOAD=… in its environment"},
		{What: backend.ReachEnvironment, Value: "HOME"},
	}
	if got := c.Reach(); !slices.Equal(got, want) {
		t.Errorf("Reach = %v", got)
	}
}

func TestNothingIsLeftOpen(t *testing.T) {
	// Not parallel: descriptors belong to the whole process.
	entries := func() int {
		found, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("needs /proc: run the tests on Linux")
		}
		return len(found)
	}
	good := program(t, "sh", "cat >/dev/null; echo '{\"protocolVersion\":1,\"values\":{}}'")
	sum := sha256.Sum256([]byte("other"))
	backends := []*exec.Backend{
		open(t, exec.Config{Command: good, PassEnv: []string{"PATH"}}),
		open(t, exec.Config{Command: good, SHA256: hex.EncodeToString(sum[:])}),
		open(t, exec.Config{Command: good + "2"}),
	}
	run := func() {
		for _, b := range backends {
			_, _ = b.GetBatch(t.Context(), requests("a"))
			_ = b.Probe(t.Context())
		}
	}
	run()
	before := entries()
	for range 5 {
		run()
	}
	if after := entries(); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// BenchmarkBatch compares a batch of 1,000 ids with the bare run of the same program on the same input.
func BenchmarkBatch(b *testing.B) {
	const n = 1000
	dir := tempDir(b)
	ids := make([]string, n)
	var answer strings.Builder
	for i := range ids {
		ids[i] = fmt.Sprintf("kv/app/%d/password", i)
		fmt.Fprintf(&answer, "%c%q:%q", ",{"[min(1, 1-min(i, 1))], ids[i], strings.Repeat("s", 40))
	}
	response := filepath.Join(dir, "response")
	if err := os.WriteFile(response, []byte(`{"protocolVersion":1,"values":`+answer.String()+"}}"), fs.FileMode(0o600)); err != nil {
		b.Fatal(err)
	}
	cat, err := filepath.EvalSymlinks("/bin/cat")
	if err != nil {
		b.Skip("needs /bin/cat: install coreutils")
	}
	var bare time.Duration
	b.Run("bare", func(b *testing.B) {
		for b.Loop() {
			if out, err := osexec.Command(cat, response).Output(); err != nil || len(out) == 0 {
				b.Fatal(err)
			}
		}
		bare = b.Elapsed() / time.Duration(b.N)
	})
	b.Run("adapter", func(b *testing.B) {
		e := open(b, exec.Config{Command: cat, Args: []string{response}})
		reqs := requests(ids...)
		for b.Loop() {
			results, err := e.GetBatch(b.Context(), reqs)
			if err != nil || results[n-1].Err != nil {
				b.Fatal(err, results[n-1].Err)
			}
		}
		b.ReportMetric(float64((b.Elapsed()/time.Duration(b.N)-bare).Nanoseconds())/n, "own-ns/ref")
	})
}
