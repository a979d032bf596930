//go:build unix

package openclaw

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/internal/openclawtest"
	"github.com/credresolve/credresolve/secretref"
)

// auditCase is a home, and what an audit finds there: "CODE file path", sorted.
type auditCase struct {
	name     string
	files    map[string]string // below the state directory; DIR in them is that directory
	env      []string
	exec     bool // --allow-exec
	store    map[string]string
	profiles map[string]string // stores of agents by their ids, in databases, which OpenClaw itself writes
	want     []string
	checked  int
	skipped  int
	// ours and theirs are findings of one alone: where this audit differs from OpenClaw's, and why.
	ours, theirs []string
	why          string
}

const (
	model   = `baseUrl: "https://api.example/v1", models: []`
	program = "#!/bin/sh\nread -r request\necho x >> \"${0%/*}/started\"\n"
)

var auditCases = []auditCase{
	{name: "nothing", files: map[string]string{"openclaw.json": `{}`}},
	{name: "no configuration", files: map[string]string{"x": ""}},
	{name: "a syntax error", files: map[string]string{"openclaw.json": `{ models: {`}, want: []string{"REF_UNRESOLVED openclaw.json <root>"}},
	{name: "no object", files: map[string]string{"openclaw.json": `[]`}, want: []string{"REF_UNRESOLVED openclaw.json <root>"}},
	{name: "a key that newer releases removed", files: map[string]string{"openclaw.json": `{secrets: {resolution: {maxBatchBytes: 1000}}}`},
		want: []string{"REF_UNRESOLVED openclaw.json <root>"}},
	{name: "a fourth key", files: map[string]string{"openclaw.json": `{models: {providers: {a: {` + model + `, apiKey: {source: "env", provider: "default", id: "HOME", note: "x"}}}}}`},
		want: []string{"REF_UNRESOLVED openclaw.json <root>"}},
	{name: "a ref without a provider", files: map[string]string{"openclaw.json": `{models: {providers: {a: {` + model + `, apiKey: {source: "env", id: "HOME"}}}}}`},
		want: []string{"REF_UNRESOLVED openclaw.json <root>"}},
	{name: "a number for a key", files: map[string]string{"openclaw.json": `{models: {providers: {a: {` + model + `, apiKey: 3}}}}`},
		want: []string{"REF_UNRESOLVED openclaw.json <root>"}},
	{name: "a malformed id", files: map[string]string{"openclaw.json": `{models: {providers: {a: {` + model + `, apiKey: {source: "env", provider: "default", id: "lower"}}}}}`},
		want: []string{"REF_UNRESOLVED openclaw.json models.providers.a.apiKey"}, checked: 1,
		ours: []string{"REF_UNRESOLVED openclaw.json models.providers.a.apiKey"}, theirs: []string{"REF_UNRESOLVED openclaw.json <root>"},
		why: "the place says more than that the configuration is invalid"},
	{name: "shorthands", files: map[string]string{"openclaw.json": `{models: {providers: {
			a: {` + model + `, apiKey: "$HOME"}, b: {` + model + `, apiKey: " ${HOME} "}, c: {` + model + `, apiKey: "pre-${HOME}"},
			d: {` + model + `, apiKey: "$${HOME}"}, e: {` + model + `, apiKey: "   "}, f: {` + model + `, apiKey: "$home"}, g: {` + model + `, apiKey: "${NOT_SET}"}}}}`},
		want: []string{"PLAINTEXT_FOUND openclaw.json models.providers.c.apiKey", "PLAINTEXT_FOUND openclaw.json models.providers.d.apiKey",
			"PLAINTEXT_FOUND openclaw.json models.providers.f.apiKey", "REF_UNRESOLVED openclaw.json models.providers.g.apiKey"}, checked: 2},
	{name: "retired markers", files: map[string]string{"openclaw.json": `{models: {providers: {a: {` + model + `, apiKey: "secretref-env:HOME"}, b: {` + model + `, apiKey: "__env__:HOME"}}},
			gateway: {auth: {mode: "token", token: "secretref-env:HOME"}}}`},
		want: []string{"PLAINTEXT_FOUND openclaw.json gateway.auth.token", "PLAINTEXT_FOUND openclaw.json models.providers.b.apiKey"}},
	{name: "placeholders", files: map[string]string{".env": "REDACTED_HERE=***\n", "openclaw.json": `{models: {providers: {a: {` + model + `, apiKey: "$REDACTED_HERE"}}}}`},
		want: []string{"PLACEHOLDER_VALUE openclaw.json models.providers.a.apiKey"}, checked: 1},
	{name: "headers and markers", files: map[string]string{"openclaw.json": `{models: {providers: {a: {` + model + `, apiKey: "ollama-local",
			headers: {"X-Trace": "x", Authorization: "Bearer x", "X-My-Secret-Thing": "x", "x-api-key": "${HOME}"}}, b: {` + model + `, apiKey: "OPENAI_API_KEY"}, c: {` + model + `, apiKey: "GH_TOKEN"}}}}`},
		want: []string{"PLAINTEXT_FOUND openclaw.json models.providers.a.headers.Authorization", "PLAINTEXT_FOUND openclaw.json models.providers.a.headers.X-My-Secret-Thing",
			"PLAINTEXT_FOUND openclaw.json models.providers.c.apiKey"}, checked: 1},
	{name: "providers of refs", files: map[string]string{"file.json": `{"a": {"b": "x"}, "n": 3, "s": " "}`, "one": "x\n", "openclaw.json": `{
			models: {providers: {
				a: {` + model + `, apiKey: {source: "file", provider: "conf", id: "/a/b"}}, b: {` + model + `, apiKey: {source: "file", provider: "conf", id: "/a"}},
				c: {` + model + `, apiKey: {source: "file", provider: "conf", id: "/n"}}, d: {` + model + `, apiKey: {source: "file", provider: "conf", id: "/s"}},
				e: {` + model + `, apiKey: {source: "file", provider: "conf", id: "/gone"}}, f: {` + model + `, apiKey: {source: "file", provider: "one", id: "value"}},
				g: {` + model + `, apiKey: {source: "file", provider: "nobody", id: "/a"}}, h: {` + model + `, apiKey: {source: "exec", provider: "conf", id: "a"}},
				i: {` + model + `, apiKey: {source: "exec", provider: "nobody", id: "a"}}, j: {` + model + `, apiKey: {source: "env", provider: "few", id: "PATH"}},
				k: {` + model + `, apiKey: {source: "file", provider: "lost", id: "/a"}}}},
			secrets: {providers: {conf: {source: "file", path: "DIR/file.json"}, one: {source: "file", path: "DIR/one", mode: "singleValue"},
				few: {source: "env", allowlist: ["HOME"]}, lost: {source: "file", path: "DIR/lost.json"}}}}`},
		want: []string{"REF_UNRESOLVED openclaw.json models.providers.b.apiKey", "REF_UNRESOLVED openclaw.json models.providers.c.apiKey", "REF_UNRESOLVED openclaw.json models.providers.d.apiKey",
			"REF_UNRESOLVED openclaw.json models.providers.e.apiKey", "REF_UNRESOLVED openclaw.json models.providers.g.apiKey", "REF_UNRESOLVED openclaw.json models.providers.h.apiKey",
			"REF_UNRESOLVED openclaw.json models.providers.i.apiKey", "REF_UNRESOLVED openclaw.json models.providers.j.apiKey", "REF_UNRESOLVED openclaw.json models.providers.k.apiKey"},
		checked: 9, skipped: 2},
	{name: "a program that may not run", files: map[string]string{"bin": program + "exit 1\n", "openclaw.json": `{models: {providers: {
			a: {` + model + `, apiKey: {source: "exec", provider: "p", id: "a"}}, b: {` + model + `, apiKey: {source: "exec", provider: "p", id: "b"}}, c: {` + model + `, apiKey: {source: "exec", provider: "p", id: "a"}}}},
			secrets: {providers: {p: {source: "exec", command: "DIR/bin"}}}}`}, skipped: 2},
	{name: "a program", exec: true, files: map[string]string{"openclaw.json": `{models: {providers: {
			a: {` + model + `, apiKey: {source: "exec", provider: "p", id: "a"}}, b: {` + model + `, apiKey: {source: "exec", provider: "p", id: "b"}}, c: {` + model + `, apiKey: {source: "exec", provider: "p", id: "c"}}}},
			secrets: {providers: {p: {source: "exec", command: "DIR/bin", passEnv: ["PATH"]}}}}`,
		"bin": program + `echo '{"protocolVersion":1,"values":{"a":"x","b":3},"errors":{"c":{"code":"NOT_FOUND"}}}'` + "\n"},
		want: []string{"REF_UNRESOLVED openclaw.json models.providers.b.apiKey", "REF_UNRESOLVED openclaw.json models.providers.c.apiKey"}, checked: 3},
	{name: "a program that fails", exec: true, files: map[string]string{"bin": program + "exit 7\n", "openclaw.json": `{models: {providers: {
			a: {` + model + `, apiKey: {source: "exec", provider: "p", id: "a"}}, b: {` + model + `, apiKey: {source: "exec", provider: "p", id: "b"}}}},
			secrets: {providers: {p: {source: "exec", command: "DIR/bin"}}}}`},
		want: []string{"REF_UNRESOLVED openclaw.json models.providers.a.apiKey", "REF_UNRESOLVED openclaw.json models.providers.b.apiKey"}, checked: 2},
	{name: "agents and what older releases left", files: map[string]string{
		"openclaw.json":                                               `{agents: {ownership: "explicit", entries: {zed: {memory: {search: {remote: {apiKey: "x"}}}}, far: {agentDir: "DIR/far"}}}, skills: {entries: {s: {apiKey: "k", env: {A: "b"}}}}}`,
		"far/models.json":                                             `{"providers": {"p": {"apiKey": "x", "headers": {"X-Api-Key": "secretref-env:A", "Token": "x", "Other": "x"}}, "q": {"apiKey": "secretref-managed"}, "r": {"apiKey": {"source": "env", "provider": "default", "id": "A"}}, "s": {"apiKey": "${HOME}"}}}`,
		"agents/zed/agent/auth.json":                                  `{"a": {"type": "api_key", "key": "x"}}`,
		"agents/zed/agent/models.json":                                `{"broken`,
		"agents/other/agent/auth-state.json":                          `{}`,
		"agents/other/agent/auth-profiles.json.migrated-2026":         `{}`,
		"agents/other/agent/auth-profiles.json.sqlite-import.1.bak":   `{}`,
		"agents/other/agent/auth-profiles.json.sqlite-import.1.other": `{}`,
		"agents/file":            "",
		"credentials/oauth.json": `{}`,
		".env":                   "export  OPENAI_API_KEY = 'x'\nXAI_API_KEY=\"\"\nEDITOR=vi\n# GEMINI_API_KEY=x\n\tGH_TOKEN=x\nMISTRAL_API_KEY=x\n"},
		want: []string{"LEGACY_RESIDUE agents/other/agent/auth-profiles.json.migrated-2026 <root>", "LEGACY_RESIDUE agents/other/agent/auth-profiles.json.sqlite-import.1.bak <root>",
			"LEGACY_RESIDUE agents/other/agent/auth-state.json <root>", "LEGACY_RESIDUE agents/zed/agent/auth.json <root>", "LEGACY_RESIDUE credentials/oauth.json <root>",
			"PLAINTEXT_FOUND .env $env.GH_TOKEN", "PLAINTEXT_FOUND .env $env.MISTRAL_API_KEY", "PLAINTEXT_FOUND .env $env.OPENAI_API_KEY",
			"PLAINTEXT_FOUND far/models.json providers.p.apiKey", "PLAINTEXT_FOUND far/models.json providers.p.headers.Token",
			"PLAINTEXT_FOUND openclaw.json agents.entries.zed.memory.search.remote.apiKey", "PLAINTEXT_FOUND openclaw.json skills.entries.s.apiKey",
			"REF_UNRESOLVED agents/zed/agent/models.json <root>", "REF_UNRESOLVED far/models.json providers.r.apiKey", "REF_UNRESOLVED far/models.json providers.s.apiKey"},
		ours: []string{"PLAINTEXT_FOUND .env $env.MISTRAL_API_KEY"}, why: "OpenClaw knows it only when its plugin is installed"},
	{name: "what is included", files: map[string]string{"models.json5": `{providers: {a: {` + model + `, apiKey: "x"}}}`,
		"openclaw.json": `{models: {$include: "./models.json5"}, channels: {telegram: {enabled: true, botToken: "1:x", accounts: {"a.b": {botToken: "$HOME"}, c: {botToken: "x"}}}}, hooks: {enabled: true, token: "x"}}`},
		want:    []string{"PLAINTEXT_FOUND openclaw.json channels.telegram.accounts.c.botToken", "PLAINTEXT_FOUND openclaw.json channels.telegram.botToken", "PLAINTEXT_FOUND openclaw.json models.providers.a.apiKey"},
		checked: 1},
	{name: "auth profiles", files: map[string]string{"agents/main/agent/": "", "agents/work/agent/": "", "openclaw.json": `{models: {providers: {OpenAI: {` + model + `, apiKey: "$HOME"}, google: {` + model + `, apiKey: "$HOME"}, zai: {` + model + `, apiKey: "$HOME"}}}}`},
		profiles: map[string]string{
			"main": `{"version":1,"profiles":{"openai:a":{"type":"api_key","provider":"openai","key":"x"},"anthropic:t":{"type":"token","provider":"anthropic","tokenRef":{"source":"env","provider":"default","id":"GONE"},"token":"x"},
				"google:o":{"type":"oauth","provider":"google","access":"x","refresh":"x","expires":4102444800000}}}`,
			"work": `{"version":1,"profiles":{"xai:w":{"type":"api_key","provider":"xai","keyRef":{"source":"env","provider":"default","id":"HOME"}},"zai:w":{"type":"api_key","provider":"zai","key":"${HOME}"},"openai:b":{"type":"token","provider":"openai","token":"x"}}}`},
		want: []string{"LEGACY_RESIDUE agents/main/agent/openclaw-agent.sqlite profiles.google:o",
			"PLAINTEXT_FOUND agents/main/agent/openclaw-agent.sqlite profiles.anthropic:t.token", "PLAINTEXT_FOUND agents/main/agent/openclaw-agent.sqlite profiles.openai:a.key",
			"PLAINTEXT_FOUND agents/work/agent/openclaw-agent.sqlite profiles.openai:b.token",
			"REF_SHADOWED openclaw.json models.providers.OpenAI.apiKey", "REF_SHADOWED openclaw.json models.providers.google.apiKey", "REF_SHADOWED openclaw.json models.providers.zai.apiKey",
			"REF_UNRESOLVED agents/main/agent/openclaw-agent.sqlite profiles.anthropic:t.token"}, checked: 2},
	{name: "OpenClaw's own store", files: map[string]string{"openclaw.json": `{models: {providers: {a: {` + model + `, apiKey: {source: "store", provider: "default", id: "KEY_A"}},
			b: {` + model + `, apiKey: {source: "store", provider: "default", id: "GONE"}}, c: {` + model + `, apiKey: "twice"}, d: {` + model + `, apiKey: "once"}}}}`},
		store: map[string]string{"KEY_A": "x", "DUP": "twice", "DUP_TOO": "twice"},
		want: []string{"PLAINTEXT_FOUND openclaw.json models.providers.c.apiKey", "PLAINTEXT_FOUND openclaw.json models.providers.d.apiKey", "REF_UNRESOLVED openclaw.json models.providers.b.apiKey",
			"STORE_PLAINTEXT_RESIDUE openclaw.json models.providers.c.apiKey", "STORE_PLAINTEXT_RESIDUE openclaw.json models.providers.c.apiKey"}, checked: 2},
}

// make writes the home and gives its state directory.
func (c auditCase) make(t *testing.T) string {
	t.Helper()
	dir := tree(t, c.files)
	for name, content := range c.files {
		if strings.Contains(content, "DIR/") {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(content, "DIR/", dir+"/")), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, ok := c.files["bin"]; ok {
		if err := os.Chmod(filepath.Join(dir, "bin"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func (c auditCase) environment(dir string) []string {
	return append([]string{"HOME=" + filepath.Join(dir, "no-such-home"), "PATH=" + os.Getenv("PATH"), "OPENCLAW_STATE_DIR=" + dir}, c.env...)
}

func (c auditCase) audit(t *testing.T, dir string) *AuditReport {
	t.Helper()
	h, err := Find(variables(c.environment(dir)...), "")
	if err != nil {
		t.Fatal(err)
	}
	r, err := h.Audit(t.Context(), AuditOptions{AllowExec: c.exec})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// starts counts how often the home's program ran.
func starts(dir string) int {
	b, _ := os.ReadFile(filepath.Join(dir, "started"))
	return strings.Count(string(b), "x")
}

// brief gives findings as auditCase has them.
func brief(dir string, findings []Finding) []string {
	var out []string
	for _, f := range findings {
		file := strings.TrimPrefix(f.File, dir+"/")
		out = append(out, fmt.Sprintf("%s %s %s", f.Code, file, f.Path))
	}
	slices.Sort(out)
	return out
}

func TestAudit(t *testing.T) {
	t.Parallel()
	for _, c := range auditCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.store != nil || c.profiles != nil {
				t.Skip("OpenClaw writes what the case needs: TestAuditIsOpenClawsOwn")
			}
			dir := c.make(t)
			r := c.audit(t, dir)
			c.check(t, dir, r)
			if want := btoi(c.exec); starts(dir) != want {
				t.Errorf("the program started %d times, want %d", starts(dir), want)
			}
		})
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (c auditCase) check(t *testing.T, dir string, r *AuditReport) {
	t.Helper()
	if got := brief(dir, r.Findings); !slices.Equal(got, c.want) {
		t.Errorf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
	}
	if r.Resolution.Checked != c.checked || r.Resolution.Skipped != c.skipped || r.Resolution.Complete != (c.skipped == 0) {
		t.Errorf("resolution %+v, want %d checked and %d skipped", *r.Resolution, c.checked, c.skipped)
	}
	unresolved := slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity == SeverityError })
	switch {
	case unresolved && (r.Status != AuditUnresolved || r.ExitStatus(false) != 2),
		!unresolved && len(r.Findings) > 0 && (r.Status != AuditFindings || r.ExitStatus(false) != 0 || r.ExitStatus(true) != 1),
		len(r.Findings) == 0 && (r.Status != AuditClean || r.ExitStatus(true) != 0):
		t.Errorf("status %s, %d", r.Status, r.ExitStatus(true))
	}
	for _, f := range r.Findings {
		if f.Severity == SeverityError && f.Remedy == "" && !strings.Contains(f.Message, "resolved value is not") && !strings.Contains(f.Message, "must match") {
			t.Errorf("%s has no remedy", f.Message)
		}
	}
}

// The same homes, audited by OpenClaw itself: the reports are equal but for what the cases say.
func TestAuditIsOpenClawsOwn(t *testing.T) {
	t.Parallel()
	openclaw := openclawtest.StartScript(t, "testdata/audit.mjs")
	for _, c := range auditCases {
		t.Run(c.name, func(t *testing.T) {
			dir := c.make(t)
			env := map[string]string{}
			for _, pair := range c.environment(dir) {
				name, value, _ := strings.Cut(pair, "=")
				env[name] = value
			}
			profiles := map[string]json.RawMessage{}
			for agent, store := range c.profiles {
				profiles[agent] = json.RawMessage(store)
			}
			var theirs struct {
				AuditReport
				Error string
			}
			openclaw.Ask(t, map[string]any{"env": env, "allowExec": c.exec, "store": c.store, "profiles": profiles}, &theirs)
			if theirs.Error != "" {
				t.Fatal(theirs.Error)
			}
			if n := starts(dir); n > 1 {
				t.Logf("OpenClaw started the program %d times", n)
				if err := os.Remove(filepath.Join(dir, "started")); err != nil {
					t.Fatal(err)
				}
			}
			ours := c.audit(t, dir)
			c.check(t, dir, ours)
			c.compare(t, dir, ours, &theirs.AuditReport)
		})
	}
}

func (c auditCase) compare(t *testing.T, dir string, ours, theirs *AuditReport) {
	t.Helper()
	if len(c.ours)+len(c.theirs) == 0 {
		a, _ := json.Marshal([]any{ours.Status, ours.Resolution, ours.Files, ours.Summary})
		b, _ := json.Marshal([]any{theirs.Status, theirs.Resolution, theirs.Files, theirs.Summary})
		if string(a) != string(b) {
			t.Errorf("ours   %s\ntheirs %s", a, b)
		}
	}
	without := func(findings []Finding, alone []string) []Finding {
		return slices.DeleteFunc(slices.Clone(findings), func(f Finding) bool { return slices.Contains(alone, brief(dir, []Finding{f})[0]) })
	}
	left, right := without(ours.Findings, c.ours), without(theirs.Findings, c.theirs)
	if len(ours.Findings)-len(left) != len(c.ours) || len(theirs.Findings)-len(right) != len(c.theirs) {
		t.Errorf("the difference is gone: ours %q, theirs %q", c.ours, c.theirs)
	}
	order := func(a, b Finding) int {
		return strings.Compare(string(a.Code)+a.File+a.Path+a.Message, string(b.Code)+b.File+b.Path+b.Message)
	}
	slices.SortFunc(left, order)
	slices.SortFunc(right, order)
	if len(left) != len(right) {
		t.Fatalf("ours\n%s\ntheirs\n%s", strings.Join(brief(dir, left), "\n"), strings.Join(brief(dir, right), "\n"))
	}
	for i := range left {
		a, b := left[i], right[i]
		a.Line, a.Detail, a.Remedy = 0, "", ""
		if a.Code == PlaceholderValue || strings.HasPrefix(a.Message, "Invalid JSON in models.json: ") || strings.HasPrefix(b.Message, strings.TrimSuffix(a.Message, ").")+" | ") {
			a.Message = b.Message // OpenClaw adds what Node says, and a hint
		}
		if a != b {
			t.Errorf("ours   %+v\ntheirs %+v", a, b)
		}
	}
}

// By the rules of 2026.3.2 profiles are in files, and the report has another shape.
func TestAuditOfAnOlderRelease(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{
		"openclaw.json":                        `{models: {providers: {openai: {apiKey: "${HOME}", headers: {Any: "x"}}, b: {apiKey: "$HOME"}}}, secrets: {resolution: {maxBatchBytes: 1000}}}`,
		"agents/main/agent/auth-profiles.json": `{"version": 1, "profiles": {"openai:a": {"type": "api_key", "provider": "openai", "key": "x", "keyRef": {"source": "env", "provider": "default", "id": "GONE"}}, "a": {"type": "token", "provider": "b", "token": "${HOME}"}}}`,
		"agents/work/agent/auth-profiles.json": `{"broken`,
		"agents/work/agent/auth.json":          `{"p": {"type": "api_key", "key": "x"}, "q": {"type": "oauth"}}`,
		"agents/work/agent/models.json":        `{"providers": {"p": {"apiKey": "x"}}}`,
	})
	h, err := DirHome(dir, variables("HOME=/nowhere"), "")
	if err != nil {
		t.Fatal(err)
	}
	h.Compat = secretref.V2026_3_2
	r, err := h.Audit(t.Context(), AuditOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"LEGACY_RESIDUE agents/work/agent/auth.json p",
		"PLAINTEXT_FOUND agents/main/agent/auth-profiles.json profiles.a.token",
		"PLAINTEXT_FOUND agents/main/agent/auth-profiles.json profiles.openai:a.key",
		"PLAINTEXT_FOUND openclaw.json models.providers.b.apiKey",
		"PLAINTEXT_FOUND openclaw.json models.providers.openai.headers.Any",
		"REF_SHADOWED openclaw.json models.providers.openai.apiKey",
		"REF_UNRESOLVED agents/main/agent/auth-profiles.json profiles.openai:a.key",
		"REF_UNRESOLVED agents/work/agent/auth-profiles.json <root>",
	}
	if got := brief(dir, r.Findings); !slices.Equal(got, want) {
		t.Errorf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	text, err := json.Marshal(r)
	if err != nil || strings.Contains(string(text), "resolution") || strings.Contains(string(text), "storeResidueCount") {
		t.Errorf("%v: %s", err, text)
	}
}

func TestAuditEndsWithItsContext(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{"openclaw.json": "{}"})
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	if r, err := FileHome(filepath.Join(dir, "openclaw.json")).Audit(ctx, AuditOptions{}); !errors.Is(err, cause) {
		t.Errorf("%v: %v", r, err)
	}
}

func TestSplitPath(t *testing.T) {
	t.Parallel()
	for _, steps := range [][]string{{"a"}, {"a", "b-c", "d:e"}, {"a", "b.c", "d"}, {"a", `q"u`, "0"}, {"é", "x"}} {
		shown, pointer := "", ""
		for _, s := range steps {
			shown = AppendKey(shown, s)
			pointer += "/" + strings.ReplaceAll(s, "/", "~1")
		}
		if got := SplitPath(shown); !reflect.DeepEqual(got, steps) {
			t.Errorf("%s is %q", shown, got)
		}
		if got := SplitPath(pointer); !reflect.DeepEqual(got, steps) {
			t.Errorf("%s is %q", pointer, got)
		}
	}
	if got := SplitPath(`a[3]["x.y"].b`); !reflect.DeepEqual(got, []string{"a", "3", "x.y", "b"}) {
		t.Errorf("it is %q", got)
	}
}
