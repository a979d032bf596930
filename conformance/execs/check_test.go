//go:build unix

package execs

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/credresolve/credresolve/conformance"
	"github.com/credresolve/credresolve/conformance/vectors"
)

// adapter builds testdata/adapter, and gives a Program of it that plays every role.
func adapter(t *testing.T) Program {
	t.Helper()
	dir := t.TempDir()
	command := filepath.Join(dir, "adapter")
	if out, err := exec.Command("go", "build", "-o", command, "./testdata/adapter").CombinedOutput(); err != nil {
		t.Skipf("needs the go command: https://go.dev/dl (%v, %s)", err, out)
	}
	p := Program{Command: command, Known: map[string]Known{}}
	for role, value := range map[string]any{
		"present": "correct-horse-battery-staple", "second": "another value that is long",
		"object": map[string]any{"user": "u", "port": 5432, "tls": map[string]any{"on": true}},
		"empty":  "", "white-space": " \t\r\n x \n\n", "unicode": "e\u0301 \u00e9 \u65e5\u672c \U0001f511", "quotes": "\"'\\n\\ $HOME `id` \x01\x1b",
		"large":   strings.Repeat("0123456789abcdef", 1<<13),
		"missing": nil, "denied": nil, "invalid": nil, "locked": nil, "unavailable": nil, "throttled": nil, "logged-out": nil, "expired": nil,
	} {
		k := Known{ID: "test/" + role}
		if value != nil {
			text, err := json.Marshal(value)
			if err != nil {
				t.Fatal(err)
			}
			k.Value = text
		}
		p.Known[role] = k
	}
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "known.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := Read(bytes.NewReader(text), command)
	if err != nil || len(again.Known) != len(p.Known) {
		t.Fatalf("reading it again: %d known, %v", len(again.Known), err)
	}
	p.Args = []string{path}
	return p
}

// load gives the vectors, the time limit among them shortened.
func load(t *testing.T) []vectors.Vector {
	t.Helper()
	vs, err := vectors.Load()
	if err != nil {
		t.Fatal(err)
	}
	for i := range vs {
		if vs[i].Name == "process/time" {
			vs[i].Expect.WithinMS = 600
		}
	}
	return vs
}

func TestAdapterPasses(t *testing.T) {
	t.Parallel()
	r, err := Check(t.Context(), adapter(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range r.Results {
		if x.Outcome != conformance.Pass {
			t.Errorf("%s: %s: %v", x.Name, x.Outcome, x.Reasons)
		}
	}
}

// TestMutants shows that each vector can fail: a program that is broken in one way fails that vector and no other. One that
// needs it may be blocked.
func TestMutants(t *testing.T) {
	t.Parallel()
	p, vs := adapter(t), load(t)
	needs := make(map[string][]string)
	for _, v := range vs {
		needs[v.Name] = v.Needs
	}
	var depends func(name, on string) bool
	depends = func(name, on string) bool {
		return slices.ContainsFunc(needs[name], func(n string) bool { return n == on || depends(n, on) })
	}
	var runs sync.WaitGroup
	defer runs.Wait()
	atOnce := make(chan struct{}, 4) // more would starve each other of the time that the vectors allow
	for _, v := range vs {
		atOnce <- struct{}{}
		runs.Go(func() {
			defer func() { <-atOnce }()
			t.Run(v.Name, func(t *testing.T) {
				mutant := p
				mutant.Args = append([]string{"-broken", v.Name}, p.Args...)
				tried := vs
				if raceDetector || testing.Short() { // which take the vectors of other subjects on trust, for the sake of time
					subject := func(name string) string { s, _, _ := strings.Cut(name, "/"); return s }
					tried = slices.DeleteFunc(slices.Clone(vs), func(x vectors.Vector) bool {
						return subject(x.Name) != subject(v.Name) && !depends(v.Name, x.Name) && !slices.Contains(x.Needs, v.Name)
					})
				}
				for _, x := range (checker{mutant, 2 * time.Second, tried}).check(t.Context()).Results {
					switch {
					case x.Name == v.Name && x.Outcome != conformance.Fail:
						t.Errorf("%s did not fail but ended as %s %v", v.Name, x.Outcome, x.Reasons)
					case x.Name != v.Name && x.Outcome == conformance.Fail:
						t.Errorf("%s failed too: %v", x.Name, x.Reasons)
					case x.Outcome == conformance.Blocked && !depends(x.Name, v.Name):
						t.Errorf("%s is blocked: %v", x.Name, x.Reasons)
					}
				}
			})
		})
	}
}

// TestHostilePrograms shows that a program which misbehaves neither stops the run nor is quoted by it.
func TestHostilePrograms(t *testing.T) {
	t.Parallel()
	const canary = "Kanary-that-only-the-program-knows"
	for name, script := range map[string]string{
		"hangs":               "sleep 100",
		"hangs for good":      "trap '' TERM; while :; do sleep 1; done",
		"floods":              "yes " + canary,
		"floods the other":    "yes " + canary + " >&2",
		"crashes":             "kill -SEGV $$",
		"forks and holds":     "sleep 100 & exit 0",
		"leaves the group":    "setsid sleep 3 & exit 0",
		"answers nothing":     "exit 0",
		"answers garbage":     "echo " + canary,
		"answers a list":      "echo '[\"" + canary + "\"]'",
		"answers deep":        "head -c 100000 /dev/zero | tr '\\0' '['",
		"lies":                `echo '{"protocolVersion":1,"values":{"` + canary + `":"` + canary + `"},"errors":{"x":{"code":"` + canary + `"}}}'`,
		"lies about its form": `echo '{"protocolVersion":1,"values":["` + canary + `"],"errors":"` + canary + `"}'`,
		"is no program":       "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "program")
			text := "#!/bin/sh\n" + script + "\n"
			if script == "" {
				text = canary
			}
			if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
				t.Fatal(err)
			}
			p := Program{Command: path, Known: map[string]Known{"present": {ID: "a", Value: []byte(`"the value that is known"`)}, "missing": {ID: "b"}}}
			vs := load(t)[:4]
			start := time.Now()
			r := checker{p, 300 * time.Millisecond, vs}.check(t.Context())
			if len(r.Results) != len(vs) || !r.Failed() {
				t.Errorf("%d results for %d vectors, %d failed", len(r.Results), len(vs), r.Count(conformance.Fail))
			}
			if took := time.Since(start); took > 8*time.Second {
				t.Errorf("it took %v", took)
			}
			var out bytes.Buffer
			if err := r.WriteTable(&out); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(out.String(), "Kanary") {
				t.Errorf("the report quotes the program: %s", out.String())
			}
		})
	}
}

func TestWhatIsKnownIsChecked(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"nothing":         ``,
		"no JSON":         `{"known": `,
		"an unknown key":  `{"known": {"present": {"id": "a", "value": "hunter2"}}, "x": "hunter2"}`,
		"another type":    `{"known": {"present": {"id": 7, "value": "hunter2"}}}`,
		"two values":      `{"known": {"present": {"id": "a", "value": "hunter2"}}} {}`,
		"nothing present": `{"known": {"missing": {"id": "a"}}}`,
		"no value":        `{"known": {"present": {"id": "a"}}}`,
	} {
		if _, err := Read(strings.NewReader(text), "/bin/true"); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Check(t.Context(), Program{Command: "relative", Known: map[string]Known{"present": {ID: "a", Value: []byte(`"v"`)}}}); err == nil {
		t.Error("a relative path was taken")
	}
}

func TestRolesThatAreNotKnownAreSkipped(t *testing.T) {
	t.Parallel()
	p := adapter(t)
	p.Known = map[string]Known{"present": p.Known["present"]}
	r, err := Check(t.Context(), p)
	if err != nil || r.Failed() || r.Count(conformance.Skip) == 0 || r.Count(conformance.Blocked) > 0 {
		t.Errorf("%d failed, %d skipped, %d blocked, %v", r.Count(conformance.Fail), r.Count(conformance.Skip), r.Count(conformance.Blocked), err)
	}
}

// TestRunEndedFromOutside shows that a vector whose run is ended from outside is skipped: the program did nothing wrong.
func TestRunEndedFromOutside(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\nsleep 100\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	r, err := Check(ctx, Program{Command: path, Known: map[string]Known{"present": {ID: "a", Value: []byte(`"the value that is known"`)}}})
	if err != nil || len(r.Results) != len(load(t)) || r.Count(conformance.Skip) != len(r.Results) {
		t.Errorf("%d of %d skipped, %d failed, %v", r.Count(conformance.Skip), len(r.Results), r.Count(conformance.Fail), err)
	}
}
