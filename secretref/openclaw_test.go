//go:build unix

package secretref_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/secretref"
)

// TestContractOfOpenClaw asks OpenClaw itself what it makes of the cases of testdata/contract.json: the expectations there are
// its behaviour and not our belief.
func TestContractOfOpenClaw(t *testing.T) {
	t.Parallel()
	// Each works in the directory of the case that it is asked about, so it has one at a time.
	const together = 3
	free := make(chan *openclaw, together)
	for range together {
		free <- startOpenClaw(t)
	}
	asked := 0
	for _, c := range readContract(t) {
		if c.Compat != secretref.Newest || strings.HasPrefix(c.Ours, "all: ") {
			continue
		}
		asked++
		t.Run(strings.ReplaceAll(c.Name, "/", "|"), func(t *testing.T) {
			t.Parallel()
			openclaw := <-free
			defer func() { free <- openclaw }()
			switch {
			case c.In != nil:
				c.askGrammar(t, openclaw)
			case c.Checks != nil:
				c.askCheck(t, openclaw)
			case c.Config != nil:
				var takes bool
				openclaw.ask(t, map[string]any{"ask": "config", "config": c.Config}, &takes)
				if takes != (c.Path == "") {
					t.Errorf("OpenClaw takes the section: %t", takes)
				}
			case c.Consume != nil:
				var takes bool
				openclaw.ask(t, map[string]any{"ask": "consume", "value": c.Consume, "expected": c.Expected}, &takes)
				if takes != (c.Error == "") {
					t.Errorf("OpenClaw takes the value: %t", takes)
				}
			case c.Reasons != nil:
				for code, want := range c.Reasons {
					var got logEntry
					if openclaw.ask(t, map[string]any{"ask": "reason", "code": code}, &got); got != want {
						t.Errorf("%s: OpenClaw says %v, we %v", code, got, want)
					}
				}
			default:
				c.askPass(t, openclaw)
			}
		})
	}
	t.Logf("OpenClaw was asked %d cases", asked)
}

type openclaw struct {
	in  io.Writer
	out *bufio.Reader
}

func startOpenClaw(t *testing.T) *openclaw {
	t.Helper()
	program := os.Getenv("CREDRESOLVE_OPENCLAW")
	if program == "" {
		t.Skip("needs OpenClaw: scripts/openclaw-setup.sh DIR installs it and prints what CREDRESOLVE_OPENCLAW has to name")
	}
	install := filepath.Dir(program)
	script, err := filepath.Abs("testdata/openclaw.mjs")
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	cmd := exec.CommandContext(t.Context(), filepath.Join(install, "node", "bin", "node"), script, filepath.Join(install, "node_modules", "openclaw", "dist"))
	cmd.Env = []string{"HOME=" + home, "OPENCLAW_STATE_DIR=" + filepath.Join(home, "state"), "PATH=" + os.Getenv("PATH")}
	cmd.Dir, cmd.Stderr = home, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	return &openclaw{in, bufio.NewReader(out)}
}

// ask puts one question, and reads its answer into answer.
func (o *openclaw) ask(t *testing.T, question map[string]any, answer any) {
	t.Helper()
	var line bytes.Buffer
	if err := json.NewEncoder(&line).Encode(question); err != nil {
		t.Fatal(err)
	}
	if _, err := o.in.Write(line.Bytes()); err != nil {
		t.Fatal(err)
	}
	said, err := o.out.ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(said, answer); err != nil {
		t.Fatalf("OpenClaw says %s: %v", said, err)
	}
}

func fromJSON(text string) (v any) {
	_ = json.Unmarshal([]byte(text), &v)
	return v
}

func (c contractCase) askGrammar(t *testing.T, o *openclaw) {
	var got *secretref.Ref
	defaults := map[string]any{}
	for source, alias := range map[string]string{"env": c.Defaults.Env, "file": c.Defaults.File, "exec": c.Defaults.Exec, "store": c.Defaults.Store} {
		if alias != "" {
			defaults[source] = alias
		}
	}
	o.ask(t, map[string]any{"ask": "in", "in": c.In, "shorthands": c.Shorthands, "defaults": defaults}, &got)
	if !reflect.DeepEqual(got, c.Ref) {
		t.Errorf("OpenClaw takes %s for %v, we for %v", c.In, got, c.Ref)
	}
}

func (c contractCase) askCheck(t *testing.T, o *openclaw) {
	for _, one := range c.Checks {
		var got string
		o.ask(t, map[string]any{"ask": "check", "ref": one.Ref}, &got)
		if c.Ours != "" {
			if (got == "") != (one.Error == "") {
				t.Errorf("%s: OpenClaw says %q, we %q", one.Ref.Key(), got, one.Error)
			}
		} else if got != one.Error {
			t.Errorf("%s: OpenClaw says %q, we %q", one.Ref.Key(), got, one.Error)
		}
	}
}

func (c contractCase) askPass(t *testing.T, o *openclaw) {
	dir := caseDir(t)
	section, refs, expand := c.setUp(t, dir)
	env := c.Env
	if c.AllEnv != "" {
		env = make(map[string]string)
		for _, r := range refs {
			env[r.ID] = c.AllEnv
		}
	}
	if env == nil {
		env = map[string]string{}
	}
	var got []struct {
		Value, JSON *string
		Error       string
		Code        secretref.Code
		Scope       secretref.Scope
	}
	o.ask(t, map[string]any{"ask": "pass", "secrets": section, "env": env, "refs": refs, "dir": dir, "home": filepath.Join(dir, "home")}, &got)
	if len(got) != len(refs) {
		t.Fatalf("%d answers of %d refs", len(got), len(refs))
	}
	for i, g := range got {
		want := c.Want[min(i, len(c.Want)-1)]
		id := func(s string) string { return strings.ReplaceAll(expand(s), "$ID", refs[i].ID) }
		switch {
		case want.Error != "":
			if g.Code != want.Code || want.Scope != nil && g.Scope != *want.Scope || c.Ours == "" && g.Error != id(want.Error) {
				t.Errorf("%s: OpenClaw says %s %s\n\t%s\nwe %s\n\t%s", refs[i].Key(), g.Scope, g.Code, g.Error, want.Code, id(want.Error))
			}
		case want.JSON != "":
			if g.JSON == nil || !sameJSON([]byte(*g.JSON), fromJSON(want.JSON)) {
				t.Errorf("%s: OpenClaw says %v, we %s", refs[i].Key(), g, want.JSON)
			}
		default:
			if value := id(strings.Repeat(want.Value, max(want.Times, 1))); g.Value == nil || *g.Value != value {
				t.Errorf("%s: OpenClaw says %v, we a value of %d bytes", refs[i].Key(), g, len(value))
			}
		}
	}
	if c.Starts != nil {
		starts, _ := os.ReadFile(filepath.Join(dir, "starts"))
		if got := bytes.Count(starts, []byte("\n")); got != *c.Starts {
			t.Errorf("OpenClaw starts %d processes, we %d", got, *c.Starts)
		}
	}
	if c.Request != "" {
		if got, _ := os.ReadFile(filepath.Join(dir, "request")); string(got) != c.Request {
			t.Errorf("OpenClaw asks %s, we %s", got, c.Request)
		}
	}
}
