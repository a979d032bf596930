package openclaw

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/json5"
	"github.com/credresolve/credresolve/secretref"
)

const plainConfig = `// the house
{
  secrets: { providers: { conf: { source: 'file', path: 'SECRETS' } } }, // where they are
  gateway: { auth: { mode: "token", token: 'gateway-c4nary' } },
  models: { providers: {
    openai: { baseUrl: "http://127.0.0.1", apiKey: "openai-c4nary" /* paid */ },
  } },
}
`

// plainHome is a home with secrets in plain text in all the places that a plan scrubs, and the store that they move to.
func plainHome(t *testing.T) (Home, string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("needs owners and modes of files, which providers of source file check")
	}
	store := filepath.Join(tree(t, map[string]string{"secrets.json": `{"gateway": "gateway-c4nary", "openai": "openai-c4nary"}`}), "secrets.json")
	if err := os.Chmod(store, 0o600); err != nil {
		t.Fatal(err)
	}
	config := strings.ReplaceAll(plainConfig, "SECRETS", store)
	dir := tree(t, map[string]string{
		"openclaw.json":                         config,
		"openclaw.json.bak":                     config,
		".env":                                  "A=1\nexport OPENAI_API_KEY=\"openai-c4nary\"\r\n# gateway\nMINE=gateway-c4nary\nLAST=x",
		"agents/main/agent/auth-profiles.json":  `{"version":1,"profiles":{"openai:default":{"type":"api_key","provider":"openai","key":"profile-c4nary"},"other:x":{"type":"token","provider":"other","token":"stays"}}}`,
		"agents/work/agent/auth-profiles.json":  `{"version":1,"profiles":{"openai:b":{"type":"api_key","provider":"OpenAI","key":"openai-c4nary","email":"a@b"}}}`,
		"agents/main/agent/models.json":         `{"providers":{"openai":{"apiKey":"openai-c4nary","headers":{"x":"gateway-c4nary"}}}}`,
		"agents/main/agent/auth.json":           `{"openai":{"type":"api_key","key":"legacy-c4nary"},"z":{"type":"oauth"}}`,
		"agents/main/agent/unrelated/notes.txt": "nothing",
	})
	h, err := DirHome(dir, variables("HOME="+dir), dir)
	if err != nil {
		t.Fatal(err)
	}
	return h, dir
}

const plainPlan = `{"version":1,"protocolVersion":1,"targets":[
	{"type":"gateway.auth.token","path":"gateway.auth.token","ref":{"source":"file","provider":"conf","id":"/gateway"}},
	{"type":"models.providers.apiKey","path":"models.providers.openai.apiKey","pathSegments":["models","providers","openai","apiKey"],"providerId":"openai","ref":{"source":"file","provider":"conf","id":"/openai"}}],
	"options":{"scrubLegacyAuthJson":true}}`

func decodePlan(t testing.TB, text string) *Plan {
	t.Helper()
	p, err := DecodePlan([]byte(text), secretref.Newest)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// files reads all files below dir.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		out[filepath.ToSlash(name)] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// appliedFiles is what a home holds after its plan.
func wantApplied(t *testing.T, before, after map[string]string) {
	t.Helper()
	for name, content := range after {
		if strings.Contains(content, "c4nary") {
			t.Errorf("%s holds a secret that moved:\n%s", name, content)
		}
		if _, there := before[name]; !there {
			t.Errorf("%s is left", name)
		}
	}
	ref := func(text, secret, id string) string {
		for _, quote := range []string{`"`, "'"} {
			text = strings.ReplaceAll(text, quote+secret+quote, fmt.Sprintf(`{ source: Qfile%[1]s, provider: Qconf%[1]s, id: Q%[2]s%[1]s }`, "Q", id))
		}
		return text
	}
	want := ref(ref(before["openclaw.json"], "gateway-c4nary", "/gateway"), "openai-c4nary", "/openai")
	same := func(s string) string { return strings.NewReplacer("'", "Q", `"`, "Q").Replace(s) }
	for _, name := range []string{"openclaw.json", "openclaw.json.bak"} {
		if same(after[name]) != same(want) {
			t.Errorf("%s is\n%s\nwant\n%s", name, after[name], want)
		}
	}
	for name, want := range map[string]string{
		".env":                                 "A=1\n# gateway\nLAST=x",
		"agents/main/agent/auth-profiles.json": `{"version":1,"profiles":{"openai:default":{"type":"api_key","provider":"openai"},"other:x":{"type":"token","provider":"other","token":"stays"}}}`,
		"agents/work/agent/auth-profiles.json": `{"version":1,"profiles":{"openai:b":{"type":"api_key","provider":"OpenAI","email":"a@b"}}}`,
		"agents/main/agent/models.json":        `{"providers":{"openai":{"apiKey":"secretref-managed","headers":{"x":"secretref-managed"}}}}`,
		"agents/main/agent/auth.json":          `{"z":{"type":"oauth"}}`,
	} {
		if after[name] != want {
			t.Errorf("%s is\n%s\nwant\n%s", name, after[name], want)
		}
	}
}

func TestApply(t *testing.T) {
	t.Parallel()
	h, dir := plainHome(t)
	before := files(t, dir)
	if err := os.Chmod(filepath.Join(dir, ".env"), 0o640); err != nil {
		t.Fatal(err)
	}
	plan := decodePlan(t, plainPlan)
	dry, err := h.Apply(t.Context(), plan, ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(files(t, dir), before) {
		t.Error("a dry run wrote")
	}
	wrote, err := h.Apply(t.Context(), plan, ApplyOptions{Write: true})
	if err != nil {
		t.Fatal(err)
	}
	wantApplied(t, before, files(t, dir))
	if info, err := os.Stat(filepath.Join(dir, ".env")); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the mode was not kept: %v, %v", info.Mode(), err)
	}
	if len(dry.ChangedFiles) != 7 || !reflect.DeepEqual(dry.ChangedFiles, wrote.ChangedFiles) {
		t.Errorf("changed files: dry run %q, write %q", dry.ChangedFiles, wrote.ChangedFiles)
	}
	dry.Mode, dry.ChangedFiles, wrote.ChangedFiles = wrote.Mode, nil, nil
	want := &ApplyReport{Mode: ApplyWrite, Changed: true, Checks: ApplyChecks{true, true}, RefsChecked: 2, Warnings: []string{}}
	if !reflect.DeepEqual(wrote, want) || !reflect.DeepEqual(dry, want) {
		t.Errorf("reports %+v and %+v, want %+v", dry, wrote, want)
	}
	text, _ := json.Marshal(wrote)
	var keys map[string]any
	_ = json.Unmarshal(text, &keys)
	for _, key := range []string{"mode", "changed", "changedFiles", "checks", "refsChecked", "skippedExecRefs", "warningCount", "warnings"} {
		if _, ok := keys[key]; !ok || len(keys) != 8 {
			t.Errorf("the report has the keys %v", keys)
		}
	}
	again, err := h.Apply(t.Context(), plan, ApplyOptions{Write: true})
	if err != nil || again.Changed {
		t.Errorf("a second time: %+v, %v", again, err)
	}
}

// What an apply refuses leaves everything as it was.
func TestApplyRefuses(t *testing.T) {
	t.Parallel()
	target := func(kind, path, ref string) string {
		return fmt.Sprintf(`{"type":%q,"path":%q,"agentId":"main","ref":%s}`, kind, path, ref)
	}
	const good = `{"source":"file","provider":"conf","id":"/gateway"}`
	plan := func(rest string, targets ...string) string {
		return `{"version":1,"protocolVersion":1,"targets":[` + strings.Join(targets, ",") + `]` + rest + `}`
	}
	for name, c := range map[string]struct {
		plan   string
		change func(t *testing.T, dir string)
		want   string
	}{
		"not found": {plan: plan("", target("gateway.auth.token", "gateway.auth.token", `{"source":"file","provider":"conf","id":"/none"}`)),
			want: `gateway.auth.token: file:conf:/none does not resolve, and nothing was changed: JSON pointer segment "none" does not exist.`},
		"no provider": {plan: plan("", target("gateway.auth.token", "gateway.auth.token", `{"source":"exec","provider":"conf2","id":"a"}`)),
			want: "Plan contains exec SecretRefs/providers. Re-run with --allow-exec."},
		"provider in use": {plan: plan(`,"providerDeletes":["conf"]`), change: func(t *testing.T, dir string) {
			replaceIn(t, filepath.Join(dir, "openclaw.json"), "'gateway-c4nary'", good)
		}, want: "gateway.auth.token would lose its provider"},
		"link": {plan: plainPlan, change: func(t *testing.T, dir string) {
			if err := errors.Join(os.Rename(filepath.Join(dir, "openclaw.json"), filepath.Join(dir, "real.json5")), os.Symlink("real.json5", filepath.Join(dir, "openclaw.json"))); err != nil {
				t.Fatal(err)
			}
		}, want: "is a symbolic link to "},
		"second name": {plan: plainPlan, change: func(t *testing.T, dir string) {
			if err := os.Link(filepath.Join(dir, "openclaw.json"), filepath.Join(dir, "second.json")); err != nil {
				t.Fatal(err)
			}
		}, want: "has a second name"},
		"second name of .env": {plan: plainPlan, change: func(t *testing.T, dir string) {
			if err := os.Link(filepath.Join(dir, ".env"), filepath.Join(dir, "second")); err != nil {
				t.Fatal(err)
			}
		}, want: "has a second name"},
		"included": {plan: plainPlan, change: func(t *testing.T, dir string) {
			replaceIn(t, filepath.Join(dir, "openclaw.json"), `mode: "token", token: 'gateway-c4nary'`, `$include: "./auth.json5"`)
			if err := os.WriteFile(filepath.Join(dir, "auth.json5"), []byte(`{mode: "token", token: "gateway-c4nary"}`), 0o600); err != nil {
				t.Fatal(err)
			}
		}, want: "gateway.auth.token comes from a file that is included there"},
		"twice": {plan: plainPlan, change: func(t *testing.T, dir string) {
			replaceIn(t, filepath.Join(dir, "openclaw.json"), `mode: "token"`, `mode: "token", mode: "token"`)
		}, want: "is there twice"},
		"no JSON5": {plan: plainPlan, change: func(t *testing.T, dir string) {
			replaceIn(t, filepath.Join(dir, "openclaw.json"), `mode:`, `mode`)
		}, want: "openclaw.json:4:"},
		"oauth": {plan: plan("", target("auth-profiles.api_key.key", "profiles.o:x.key", good)), change: func(t *testing.T, dir string) {
			replaceIn(t, filepath.Join(dir, "agents/main/agent/auth-profiles.json"), `"other:x"`, `"o:x":{"type":"oauth","provider":"o","access":"c4nary"},"other:x"`)
		}, want: "OAuth sign-in"},
		"another type": {plan: plan("", target("auth-profiles.api_key.key", "profiles.other:x.key", good)), want: "is of type token"},
		"new profile":  {plan: plan("", target("auth-profiles.api_key.key", "profiles.new:x.key", good)), want: "authProfileProvider"},
		"document":     {plan: plan("", target(DocumentValue, "x.y", good)), want: "is no place where openclaw takes a reference"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, dir := plainHome(t)
			if c.change != nil {
				c.change(t, dir)
			}
			before := files(t, dir)
			_, err := h.Apply(t.Context(), decodePlan(t, c.plan), ApplyOptions{Write: true})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "c4nary") {
				t.Errorf("the error shows a secret: %v", err)
			}
			if !reflect.DeepEqual(files(t, dir), before) {
				t.Error("something was written")
			}
		})
	}
}

func replaceIn(t *testing.T, path, old, new string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil || !bytes.Contains(content, []byte(old)) {
		t.Fatalf("%s does not hold %q: %v", path, old, err)
	}
	if err := os.WriteFile(path, bytes.Replace(content, []byte(old), []byte(new), 1), 0o600); err != nil {
		t.Fatal(err)
	}
}

// steps are the steps of an apply of plainPlan.
func applySteps(t *testing.T) []string {
	t.Helper()
	h, _ := plainHome(t)
	var steps []string
	_, err := h.Apply(t.Context(), decodePlan(t, plainPlan), ApplyOptions{Write: true, step: func(s string) error {
		steps = append(steps, s)
		return nil
	}})
	if err != nil || len(steps) != 15 {
		t.Fatalf("steps %q, %v", steps, err)
	}
	return steps
}

// A failure at any step leaves all files as they were.
func TestApplyPutsBack(t *testing.T) {
	t.Parallel()
	for i, step := range applySteps(t)[:14] {
		t.Run(fmt.Sprint(i, " ", step), func(t *testing.T) {
			t.Parallel()
			h, dir := plainHome(t)
			before := files(t, dir)
			n := 0
			_, err := h.Apply(t.Context(), decodePlan(t, plainPlan), ApplyOptions{Write: true, step: func(string) error {
				if n++; n == i+1 {
					return errors.New("no room")
				}
				return nil
			}})
			if err == nil || !strings.Contains(err.Error(), "no room") {
				t.Errorf("got %v", err)
			}
			if after := files(t, dir); !reflect.DeepEqual(after, before) {
				t.Errorf("the files are %q", after)
			}
		})
	}
}

// A process that is killed at any step leaves no secret where none was, and the next run finishes its work.
func TestApplyKilled(t *testing.T) {
	if dir := os.Getenv("APPLY_KILLED_IN"); dir != "" {
		h, err := DirHome(dir, variables("HOME="+dir), dir)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		_, err = h.Apply(t.Context(), decodePlan(t, plainPlan), ApplyOptions{Write: true, step: func(string) error {
			if n++; fmt.Sprint(n) == os.Getenv("APPLY_KILLED_AT") {
				self, _ := os.FindProcess(os.Getpid())
				_ = self.Kill()
				select {}
			}
			return nil
		}})
		t.Fatal("not killed", err)
	}
	t.Parallel()
	for i, step := range applySteps(t) {
		t.Run(fmt.Sprint(i, " ", step), func(t *testing.T) {
			t.Parallel()
			h, dir := plainHome(t)
			before := files(t, dir)
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestApplyKilled$")
			cmd.Env = append(os.Environ(), "APPLY_KILLED_IN="+dir, fmt.Sprint("APPLY_KILLED_AT=", i+1))
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != -1 {
				t.Fatalf("the process was not killed: %v\n%s", err, out)
			}
			for name, content := range files(t, dir) {
				if _, there := before[name]; !there && strings.Contains(content, "c4nary") {
					t.Errorf("%s has a copy of a secret", name)
				}
			}
			if _, err := h.Apply(t.Context(), decodePlan(t, plainPlan), ApplyOptions{Write: true}); err != nil {
				t.Fatal(err)
			}
			wantApplied(t, before, files(t, dir))
		})
	}
}

// What was left beside a file under a temporary name goes with the next run.
func TestApplySweeps(t *testing.T) {
	t.Parallel()
	h, dir := plainHome(t)
	before := files(t, dir)
	for _, name := range []string{".openclaw.json.credresolve-AAAA", ".env.credresolve-B"} {
		if err := os.WriteFile(filepath.Join(dir, map[bool]string{true: "." + name, false: name}[name[1] == 'e']), []byte("c4nary"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.Apply(t.Context(), decodePlan(t, plainPlan), ApplyOptions{Write: true}); err != nil {
		t.Fatal(err)
	}
	wantApplied(t, before, files(t, dir))
}

// A file that somebody else writes meanwhile keeps what they wrote.
func TestApplyNoticesOthers(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"openclaw.json", ".env", "auth-profiles.json"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, dir := plainHome(t)
			before := files(t, dir)
			path := filepath.Join(dir, name)
			if name == "auth-profiles.json" {
				path = filepath.Join(dir, "agents/work/agent", name)
			}
			_, err := h.Apply(t.Context(), decodePlan(t, plainPlan), ApplyOptions{Write: true, step: func(step string) error {
				if step == "place "+name {
					return os.WriteFile(path, []byte("theirs"), 0o600)
				}
				return nil
			}})
			if err == nil || !strings.Contains(err.Error(), name+" was changed meanwhile by another program") {
				t.Errorf("got %v", err)
			}
			after := files(t, dir)
			rel, _ := filepath.Rel(dir, path)
			if before[filepath.ToSlash(rel)] = "theirs"; !reflect.DeepEqual(after, before) {
				t.Errorf("the files are %q", after)
			}
		})
	}
}

func TestApplyEnds(t *testing.T) {
	t.Parallel()
	h, dir := plainHome(t)
	before := files(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := h.Apply(ctx, decodePlan(t, plainPlan), ApplyOptions{Write: true, step: func(step string) error {
		if step == "place openclaw.json" {
			cancel()
		}
		return nil
	}})
	if !errors.Is(err, context.Canceled) || !reflect.DeepEqual(files(t, dir), before) {
		t.Errorf("got %v, and the files are %q", err, files(t, dir))
	}
}

// A variable that something reads stays in .env, also where its value moved elsewhere.
func TestApplyKeepsWhatIsRead(t *testing.T) {
	t.Parallel()
	h, dir := plainHome(t)
	plan := decodePlan(t, `{"version":1,"protocolVersion":1,"targets":[
		{"type":"models.providers.apiKey","path":"models.providers.openai.apiKey","ref":{"source":"env","provider":"default","id":"OPENAI_API_KEY"}}]}`)
	r, err := h.Apply(t.Context(), plan, ApplyOptions{Write: true})
	if err != nil {
		t.Fatal(err)
	}
	after := files(t, dir)
	if !strings.Contains(after[".env"], `export OPENAI_API_KEY="openai-c4nary"`) {
		t.Errorf(".env is %q", after[".env"])
	}
	if r.WarningCount == 0 || !strings.Contains(strings.Join(r.Warnings, "\n"), ".env: OPENAI_API_KEY stays, since something still reads it") {
		t.Errorf("warnings: %q", r.Warnings)
	}
	if strings.Contains(after["openclaw.json"]+after["agents/work/agent/auth-profiles.json"], "openai-c4nary") {
		t.Error("the secret is still where it was")
	}
}

func TestApplyProfile(t *testing.T) {
	t.Parallel()
	h, dir := plainHome(t)
	plan := decodePlan(t, `{"version":1,"protocolVersion":1,"targets":[
		{"type":"auth-profiles.api_key.key","path":"profiles.openai:default.key","agentId":"main","ref":{"source":"file","provider":"conf","id":"/openai"}},
		{"type":"auth-profiles.token.token","path":"profiles.new:x.token","agentId":"main","authProfileProvider":"new","ref":{"source":"file","provider":"conf","id":"/gateway"}}],
		"options":{"scrubEnv":false}}`)
	r, err := h.Apply(t.Context(), plan, ApplyOptions{Write: true})
	if err != nil {
		t.Fatal(err)
	}
	var store map[string]map[string]map[string]any
	got := files(t, dir)["agents/main/agent/auth-profiles.json"]
	if strings.Contains(got, "c4nary") {
		t.Error("the secret is still there")
	}
	_ = json.Unmarshal([]byte(strings.Replace(got, `"version":1,`, "", 1)), &store)
	want := map[string]map[string]any{
		"openai:default": {"type": "api_key", "provider": "openai", "keyRef": map[string]any{"source": "file", "provider": "conf", "id": "/openai"}},
		"other:x":        {"type": "token", "provider": "other", "token": "stays"},
		"new:x":          {"type": "token", "provider": "new", "tokenRef": map[string]any{"source": "file", "provider": "conf", "id": "/gateway"}},
	}
	if !reflect.DeepEqual(store["profiles"], want) {
		t.Errorf("the profiles are %s", got)
	}
	if len(r.ChangedFiles) != 1 || !strings.Contains(strings.Join(r.Warnings, "\n"), "the reference gives another secret") {
		t.Errorf("report %+v", r)
	}
}

// A document that is not OpenClaw's takes a ref anywhere.
func TestApplyDocument(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{"app.json5": "{a: {'b c': \"secret-c4nary\"}, secrets: {}} // end\n"})
	plan := &Plan{Options: DefaultPlanOptions(secretref.Newest)}
	target, err := NewTarget([]string{"a", "b c"}, secretref.Ref{Source: secretref.Env, Provider: "default", ID: "NAME"}, "", true, secretref.Newest)
	if err != nil {
		t.Fatal(err)
	}
	plan.Targets = append(plan.Targets, target)
	h := FileHomeIn(filepath.Join(dir, "app.json5"), variables("NAME=value"), dir)
	if _, err := h.Apply(t.Context(), plan, ApplyOptions{Write: true}); err != nil {
		t.Fatal(err)
	}
	got := files(t, dir)["app.json5"]
	f, err := json5.Parse([]byte(got))
	if err != nil || !strings.HasSuffix(got, "// end\n") || strings.Contains(got, "c4nary") ||
		!reflect.DeepEqual(f.Root().Get("a", "b c").Value(), map[string]any{"source": "env", "provider": "default", "id": "NAME"}) {
		t.Errorf("got %q, %v", got, err)
	}
}

// Random plans for random configurations change their targets and nothing else.
func TestApplyChangesNothingElse(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("needs owners and modes of files")
	}
	root := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		dir := filepath.Join(root, fmt.Sprint(n))
		name := rapid.SampledFrom([]string{"openai", "a.b", "x y", "é", "constructor2", "q\"q", "0"})
		names := rapid.SliceOfNDistinct(name, 1, 4, rapid.ID[string]).Draw(t, "names")
		comment := rapid.SampledFrom([]string{"", " // c\n", " /* c */ ", "\n\n\t"})
		chosen := map[string]bool{}
		var before, after strings.Builder
		plan := &Plan{}
		both := func(s string) { before.WriteString(s); after.WriteString(s) }
		both(comment.Draw(t, "c") + "{" + comment.Draw(t, "c") + "models: {providers: {")
		for i, id := range names {
			quoted, _ := json.Marshal(id)
			both(comment.Draw(t, "c") + string(quoted) + ":" + comment.Draw(t, "c") + "{n: 0x1" + fmt.Sprint(i) + ", 'apiKey': ")
			secret, _ := json.Marshal(fmt.Sprintf("c4nary%d%s", i, rapid.StringMatching(`[ -~]{4,12}`).Draw(t, "secret")))
			if rapid.Bool().Draw(t, "chosen") {
				chosen[id] = true
				target, err := NewTarget([]string{"models", "providers", id, "apiKey"}, secretref.Ref{Source: secretref.Env, Provider: "default", ID: "NAME"}, "", false, secretref.Newest)
				if err != nil {
					t.Fatal(err)
				}
				plan.Targets = append(plan.Targets, target)
				before.Write(secret)
				after.WriteString("REF")
			} else {
				both(string(secret))
			}
			both(comment.Draw(t, "c") + rapid.SampledFrom([]string{"", ","}).Draw(t, "comma") + "}" + comment.Draw(t, "c"))
			if i < len(names)-1 || rapid.Bool().Draw(t, "last") {
				both(",")
			}
		}
		both(comment.Draw(t, "c") + "}}, z: [1, 'c4nary', ] }" + comment.Draw(t, "c"))
		if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "openclaw.json"), []byte(before.String()), 0o600)); err != nil {
			t.Fatal(err)
		}
		h, err := DirHome(dir, variables("HOME="+dir, "NAME=value"), dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Apply(context.Background(), plan, ApplyOptions{Write: true}); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(dir, "openclaw.json"))
		if err != nil {
			t.Fatal(err)
		}
		rest := string(got)
		for i, part := range strings.Split(after.String(), "REF") {
			if i > 0 {
				end := strings.Index(rest, "}")
				f, err := json5.Parse([]byte(rest[:end+1]))
				if err != nil || !sameRef(f.Root().Value(), plan.Targets[0].Ref) {
					t.Fatalf("no reference at %q: %v", rest, err)
				}
				rest = rest[end+1:]
			}
			if !strings.HasPrefix(rest, part) {
				t.Fatalf("got\n%s\nwant\n%s", got, after.String())
			}
			rest = rest[len(part):]
		}
		if rest != "" {
			t.Fatalf("got\n%s\nwant\n%s", got, after.String())
		}
	})
}

// A database is OpenClaw's to write, and a secret that stays in one is told before anything is written.
func TestApplyLeavesDatabases(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("needs python3 to make a database: apt-get install python3")
	}
	for name, c := range map[string]struct{ plan, want string }{
		"target": {`{"version":1,"protocolVersion":1,"targets":[
			{"type":"auth-profiles.api_key.key","path":"profiles.openai:default.key","agentId":"main","ref":{"source":"file","provider":"conf","id":"/openai"}}]}`,
			"which OpenClaw alone writes; nothing was changed"},
		"residue": {plainPlan, "holds a secret of provider openai in plain text, which OpenClaw alone can take out; nothing was changed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, dir := plainHome(t)
			database := filepath.Join(dir, "agents", "main", "agent", "openclaw-agent.sqlite")
			make := exec.CommandContext(t.Context(), python, "-c", `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("CREATE TABLE auth_profile_store (store_key TEXT NOT NULL PRIMARY KEY, store_json TEXT NOT NULL, updated_at INTEGER NOT NULL) STRICT")
db.execute("INSERT INTO auth_profile_store VALUES ('primary', ?, 1)", (sys.argv[2],))
db.commit()
`, database, `{"version":1,"profiles":{"openai:default":{"type":"api_key","provider":"openai","key":"database-c4nary"}}}`)
			if out, err := make.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if err := os.Chmod(database, 0o600); err != nil {
				t.Fatal(err)
			}
			before := files(t, dir)
			_, err := h.Apply(t.Context(), decodePlan(t, c.plan), ApplyOptions{Write: true})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "c4nary") {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if name == "target" && backend.CodeOf(err) != backend.CodeUnsupported {
				t.Errorf("the code is %v", backend.CodeOf(err))
			}
			if !reflect.DeepEqual(files(t, dir), before) {
				t.Error("something was written")
			}
		})
	}
}
