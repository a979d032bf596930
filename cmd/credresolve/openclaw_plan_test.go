//go:build linux

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/internal/json5"
)

// What secretref configure plans, OpenClaw itself carries out, and both leave the same configuration behind.
func TestOpenClawCarriesOutOurPlan(t *testing.T) {
	c := newClawed(t)
	installed, err := os.ReadFile(c.home.Config)
	if err != nil {
		t.Fatal(err)
	}
	const plain = "plain-c4nary-of-a-key"
	key := `{source: "exec", provider: "credresolve", id: "` + c.id("model") + `"}`
	before := strings.Replace(string(installed), "apiKey: "+key, `apiKey: "`+plain+`"`, 1)
	if !strings.Contains(before, plain) {
		t.Fatalf("the configuration has no key to replace:\n%s", before)
	}
	c.home.Write(before)

	plan := filepath.Join(c.dir, "plan.json")
	if got := c.run("--config", "credresolve.yaml", "secretref", "configure", "--allow-exec", "--plan-out", plan,
		"--set", "models.providers.fake.apiKey=exec:credresolve:"+c.id("model"),
		"--provider", "files=file,path="+filepath.Join(c.dir, "token")+",mode=singleValue"); got.status != 0 {
		t.Fatalf("configure: %d %s%s", got.status, got.stdout, got.stderr)
	}
	applied := func(args ...string) (mode string, changed bool) {
		t.Helper()
		got := c.home.Run(nil, append([]string{"secrets", "apply", "--from", plan, "--allow-exec", "--json"}, args...)...)
		var answer struct {
			Mode    string `json:"mode"`
			Changed bool   `json:"changed"`
			Checks  struct {
				Resolvability bool `json:"resolvability"`
			} `json:"checks"`
			Checked int `json:"refsChecked"`
		}
		if err := json.Unmarshal([]byte(got.Stdout), &answer); err != nil || got.Status != 0 {
			t.Fatalf("openclaw secrets apply: status %d (%v)\n%s%s", got.Status, err, got.Stdout, got.Stderr)
		}
		if !answer.Checks.Resolvability || answer.Checked == 0 {
			t.Errorf("openclaw secrets apply resolved nothing: %s", got.Stdout)
		}
		return answer.Mode, answer.Changed
	}
	if mode, changed := applied("--dry-run"); mode != "dry-run" || !changed {
		t.Errorf("a dry run is %q, changed %v", mode, changed)
	}
	if now, err := os.ReadFile(c.home.Config); err != nil || string(now) != before {
		t.Errorf("a dry run changed the configuration (%v)", err)
	}
	if mode, changed := applied(); mode != "write" || !changed {
		t.Errorf("apply is %q, changed %v", mode, changed)
	}
	theirs := settings(t, c.home.Config)

	c.home.Write(before)
	if got := c.run("--config", "credresolve.yaml", "secretref", "apply", "--from", plan, "--allow-exec"); got.status != 0 {
		t.Fatalf("apply: %d %s%s", got.status, got.stdout, got.stderr)
	}
	if ours := settings(t, c.home.Config); !reflect.DeepEqual(ours, theirs) {
		t.Errorf("apply leaves\n%v\nand openclaw secrets apply\n%v", ours, theirs)
	}
	if a := c.audit(0); a.Status != "clean" || len(a.Findings) != 0 {
		t.Errorf("the audit afterwards: %+v", a)
	}
}

// settings reads a configuration of OpenClaw, without what it notes of its own writing.
func settings(t *testing.T, path string) map[string]any {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	file, err := json5.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	all, ok := file.Root().Value().(map[string]any)
	if !ok || all["models"] == nil {
		t.Fatalf("%s holds no settings", path)
	}
	delete(all, "meta")
	return all
}
