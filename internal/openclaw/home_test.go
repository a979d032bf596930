package openclaw

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/secretref"
)

// tree writes files below a new directory, whose names end in "/" for directories, and gives the directory.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(path, 0o700)
		} else if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
			err = os.WriteFile(path, []byte(content), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// variables makes an environment of NAME=value.
func variables(pairs ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, pair := range pairs {
			if k, v, _ := strings.Cut(pair, "="); k == name {
				return v, true
			}
		}
		return "", false
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{
		"user/":                            "",
		"old/.clawdbot/clawdbot.json":      "{}",
		"both/.openclaw/x":                 "",
		"both/.clawdbot/openclaw.json":     "{}",
		"mine/.openclaw/openclaw.json":     "{}",
		"mine/.openclaw/clawdbot.json":     "{}",
		"elsewhere/state/clawdbot.json":    "{}",
		"elsewhere/config/mine.json5":      "{}",
		"mine/alternative/openclaw.json":   "{}",
		"mine/alternative/.openclaw/agent": "",
	})
	for name, c := range map[string]struct {
		env           []string
		state, config string
	}{
		"nothing yet":              {[]string{"HOME=user"}, "user/.openclaw", "user/.openclaw/openclaw.json"},
		"what the system says":     {nil, "mine/.openclaw", "mine/.openclaw/openclaw.json"},
		"no home that is a word":   {[]string{"HOME=undefined"}, "mine/.openclaw", "mine/.openclaw/openclaw.json"},
		"the older names":          {[]string{"HOME=old"}, "old/.clawdbot", "old/.clawdbot/clawdbot.json"},
		"a configuration of old":   {[]string{"HOME=both"}, "both/.openclaw", "both/.clawdbot/openclaw.json"},
		"the newer names first":    {[]string{"USERPROFILE=mine"}, "mine/.openclaw", "mine/.openclaw/openclaw.json"},
		"OPENCLAW_HOME":            {[]string{"HOME=user", "OPENCLAW_HOME=mine"}, "mine/.openclaw", "mine/.openclaw/openclaw.json"},
		"OPENCLAW_HOME with ~":     {[]string{"HOME=mine", "OPENCLAW_HOME=~/alternative"}, "mine/alternative/.openclaw", "mine/alternative/.openclaw/openclaw.json"},
		"OPENCLAW_STATE_DIR":       {[]string{"HOME=mine", "OPENCLAW_STATE_DIR= elsewhere/state "}, "elsewhere/state", "elsewhere/state/clawdbot.json"},
		"an empty state directory": {[]string{"HOME=mine", "OPENCLAW_STATE_DIR=~/new"}, "mine/new", "mine/new/openclaw.json"},
		"OPENCLAW_CONFIG_PATH":     {[]string{"HOME=mine", "OPENCLAW_CONFIG_PATH=elsewhere/config/mine.json5"}, "mine/.openclaw", "elsewhere/config/mine.json5"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var env []string
			for _, pair := range c.env {
				k, v, _ := strings.Cut(pair, "=")
				if trimmed := strings.TrimSpace(v); trimmed[0] != '~' && trimmed != "undefined" {
					v = strings.Replace(v, trimmed, filepath.Join(dir, trimmed), 1)
				}
				env = append(env, k+"="+v)
			}
			h, err := Find(variables(env...), filepath.Join(dir, "mine"))
			if err != nil || h.State != filepath.Join(dir, c.state) || h.Config != filepath.Join(dir, c.config) {
				t.Errorf("%v: state %s, configuration %s", err, h.State, h.Config)
			}
		})
	}
	if _, err := Find(variables(), ""); err == nil {
		t.Error("there is a home without a home")
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{
		"state/openclaw.json": `{
			// one agent is elsewhere
			agents: { entries: { Research: {}, far: { agentDir: "~/far" } } },
			$include: ["./base.json5", "sub/more.json5"],
			list: [3],
			env: { vars: { FROM_VARS: "v", BOTH: "vars" }, BOTH: "top", LOOPED: "${X}" },
			secrets: {
				providers: { files: { source: "file", path: "${STORE}/s.json" }, kept: { source: "file", path: "/$${A}/${MISSING}" } },
				defaults: { file: "files" },
			},
		}`,
		"state/base.json5":                  "{ list: [1], a: { b: 1, c: 2 } }",
		"state/sub/more.json5":              "{ list: [2], a: { c: { $include: './leaf.json5' } } }",
		"state/sub/leaf.json5":              "'leaf'",
		"state/.env":                        "# comment\nexport QUOTED=\"two\\nlines\"\nPLAIN= a value # comment\nSTORE='/store'\nBOTH=file\nSET=file\n",
		"home/.config/openclaw/gateway.env": "FROM_GATEWAY=no\n",
		"state/agents/main/agent/":          "",
		"state/agents/zoe/agent/":           "",
	})
	h, err := Find(variables("OPENCLAW_STATE_DIR="+dir+"/state", "OPENCLAW_HOME="+dir+"/home", "SET=set"), "")
	if err != nil {
		t.Fatal(err)
	}
	d, err := h.Load()
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := json.Marshal(map[string]any{"a": d.Value["a"], "list": d.Value["list"]}); string(got) != `{"a":{"b":1,"c":"leaf"},"list":[1,2,3]}` {
		t.Errorf("it holds %s", got)
	}
	var agents []string
	for _, a := range d.Agents {
		rest, _ := filepath.Rel(dir, a.Dir)
		agents = append(agents, a.ID+" "+filepath.ToSlash(rest))
	}
	if want := []string{"main state/agents/main/agent", "zoe state/agents/zoe/agent", "research state/agents/research/agent", "far home/far"}; !slices.Equal(agents, want) {
		t.Errorf("agents %q", agents)
	}
	for name, want := range map[string]string{"QUOTED": "two\nlines", "PLAIN": "a value", "SET": "set", "BOTH": "file", "FROM_VARS": "v", "LOOPED": "", "FROM_GATEWAY": ""} {
		if got, ok := d.LookupEnv(name); got != want || ok != (want != "") {
			t.Errorf("%s is %q", name, got)
		}
	}
	if p := d.Secrets.Providers; p["files"].File.Path != "/store/s.json" || p["kept"].File.Path != "/${A}/${MISSING}" || d.Grammar.Defaults.File != "files" {
		t.Errorf("providers %+v", p)
	}
	if want := []string{filepath.Join(dir, "state/.env")}; !reflect.DeepEqual(d.EnvFiles, want) {
		t.Errorf(".env files %v", d.EnvFiles)
	}
	if len(d.Included) != 3 {
		t.Errorf("included %v", d.Included)
	}
}

func TestLoadTellsWhatIsWrong(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]string{
		"{a: s3cret}":                                 "openclaw.json:1:5: a value is expected",
		"[]":                                          "is no object",
		"{secrets: {providers: {P: {}}}}":             "secrets.providers",
		"{$include: '../outside.json'}":               "outside of the configuration's directory",
		"{$include: './link.json'}":                   "outside of the configuration's directory",
		"{$include: './openclaw.json'}":               "includes itself",
		"{$include: './missing.json'}":                "no such file",
		"{$include: 3}":                               "a path or a list of paths",
		"{$include: './list.json', a: 1}":             "files that hold an object",
		"{secrets: {resolution: {maxBatchBytes: 1}}}": "2026.8",
	} {
		dir := tree(t, map[string]string{"outside.json": "{}", "state/openclaw.json": content, "state/list.json": "[]", "state/.env": "A=b"})
		if err := os.Symlink(filepath.Join(dir, "outside.json"), filepath.Join(dir, "state", "link.json")); err != nil {
			t.Skip(err)
		}
		h, err := DirHome(filepath.Join(dir, "state"), variables(), dir)
		if err != nil {
			t.Fatal(err)
		}
		d, err := h.Load()
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", content, err)
		}
		if d == nil || len(d.Agents) == 0 || len(d.EnvFiles) != 1 {
			t.Errorf("%s: no document", content)
		}
	}
	dir := tree(t, map[string]string{"openclaw.json": "{secrets: {resolution: {maxBatchBytes: 1}}}"})
	h := FileHome(filepath.Join(dir, "openclaw.json"))
	h.Compat = secretref.V2026_3_2
	if _, err := h.Load(); err != nil {
		t.Error(err)
	}
}

func TestFileHomeHasNoState(t *testing.T) {
	t.Parallel()
	d, err := FileHome(filepath.Join(t.TempDir(), "missing.json5")).Load()
	if err != nil || d.File != nil || len(d.Value) != 0 || len(d.Agents) != 0 || len(d.EnvFiles) != 1 {
		t.Errorf("%v: %+v", err, d)
	}
	if stores := d.ProfileStores(t.Context()); len(stores) != 0 {
		t.Errorf("stores %v", stores)
	}
}
