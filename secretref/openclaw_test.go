//go:build unix

package secretref_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/internal/openclawtest"
	"github.com/credresolve/credresolve/secretref"
)

// TestContractOfOpenClaw asks OpenClaw itself what it makes of the cases of testdata/contract.json: the expectations there are
// its behaviour and not our belief.
func TestContractOfOpenClaw(t *testing.T) {
	t.Parallel()
	// Each works in the directory of the case that it is asked about, so it has one at a time.
	const together = 3
	free := make(chan *openclawtest.Script, together)
	for range together {
		free <- openclawtest.StartScript(t, "testdata/openclaw.mjs")
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
				openclaw.Ask(t, map[string]any{"ask": "config", "config": c.Config}, &takes)
				if takes != (c.Path == "") {
					t.Errorf("OpenClaw takes the section: %t", takes)
				}
			case c.Consume != nil:
				var takes bool
				openclaw.Ask(t, map[string]any{"ask": "consume", "value": c.Consume, "expected": c.Expected}, &takes)
				if takes != (c.Error == "") {
					t.Errorf("OpenClaw takes the value: %t", takes)
				}
			case c.Reasons != nil:
				for code, want := range c.Reasons {
					var got logEntry
					if openclaw.Ask(t, map[string]any{"ask": "reason", "code": code}, &got); got != want {
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

func fromJSON(text string) (v any) {
	_ = json.Unmarshal([]byte(text), &v)
	return v
}

func (c contractCase) askGrammar(t *testing.T, o *openclawtest.Script) {
	var got *secretref.Ref
	defaults := map[string]any{}
	for source, alias := range map[string]string{"env": c.Defaults.Env, "file": c.Defaults.File, "exec": c.Defaults.Exec, "store": c.Defaults.Store} {
		if alias != "" {
			defaults[source] = alias
		}
	}
	o.Ask(t, map[string]any{"ask": "in", "in": c.In, "shorthands": c.Shorthands, "defaults": defaults}, &got)
	if !reflect.DeepEqual(got, c.Ref) {
		t.Errorf("OpenClaw takes %s for %v, we for %v", c.In, got, c.Ref)
	}
}

func (c contractCase) askCheck(t *testing.T, o *openclawtest.Script) {
	for _, one := range c.Checks {
		var got string
		o.Ask(t, map[string]any{"ask": "check", "ref": one.Ref}, &got)
		if c.Ours != "" {
			if (got == "") != (one.Error == "") {
				t.Errorf("%s: OpenClaw says %q, we %q", one.Ref.Key(), got, one.Error)
			}
		} else if got != one.Error {
			t.Errorf("%s: OpenClaw says %q, we %q", one.Ref.Key(), got, one.Error)
		}
	}
}

func (c contractCase) askPass(t *testing.T, o *openclawtest.Script) {
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
	o.Ask(t, map[string]any{"ask": "pass", "secrets": section, "env": env, "refs": refs, "dir": dir, "home": filepath.Join(dir, "home")}, &got)
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
