package cli

import (
	"os"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/adapters/exec"
	"github.com/credresolve/credresolve/adapters/oauth2"
	"github.com/credresolve/credresolve/adapters/vault"
	"github.com/credresolve/credresolve/backend"
)

// The page shows the templates as they are.
func TestTemplatesAreThoseOfThePage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/adapters/oauth2.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range templates() {
		block := "```yaml\n" + one.name + ":\n"
		for line := range strings.Lines(one.text) {
			block += "  " + line
		}
		if !strings.Contains(string(page), block+"```\n") || !strings.Contains(string(page), "| `"+one.name+"` | "+one.register+" |\n") {
			t.Errorf("docs/adapters/oauth2.md does not show the template %s as it is", one.name)
		}
	}
}

func TestInsertProviderKeepsAllElse(t *testing.T) {
	t.Parallel()
	const entry = "kind: x\nurl: https://h/p\nlist: [a, b]\nin:\n  key: \"v\"\n"
	const inFlow = `n: {kind: x, url: "https://h/p", list: [a, b], in: {key: "v"}}`
	inBlock := func(indent, end string) string {
		out := ""
		for _, line := range []string{"n:", "  kind: x", "  url: https://h/p", "  list: [a, b]", "  in:", `    key: "v"`} {
			out += indent + line + end
		}
		return out
	}
	for src, want := range map[string]string{
		"providers:\r\n    a: {}\r\n\r\n# next\r\nserve: {}\r\n": "providers:\r\n    a: {}\r\n" + inBlock("    ", "\r\n") + "\r\n# next\r\nserve: {}\r\n",
		"providers:\n  a: {}": "providers:\n  a: {}\n" + inBlock("  ", "\n"),
		"providers:\n":        "providers:\n" + inBlock("  ", "\n"),
		"providers: # all\n":  "providers: # all\n" + inBlock("  ", "\n"),
		"version: 1":          "version: 1\nproviders:\n" + inBlock("  ", "\n"),
		"version: 1 # ours\n\nserve: {}\n# end\n":    "version: 1 # ours\n\nserve: {}\n# end\nproviders:\n" + inBlock("  ", "\n"),
		"providers: {a: {}} # all\n":                 "providers: {" + inFlow + ", a: {}} # all\n",
		"providers: {}\nserve: {}\n":                 "providers: {" + inFlow + "}\nserve: {}\n",
		"providers: { # é\n  a: {}, # one\n}\n":      "providers: { # é\n  " + inFlow + ", a: {}, # one\n}\n",
		"providers:\n  {a: {}}\n":                    "providers:\n  {" + inFlow + ", a: {}}\n",
		"{version: 1, providers: {\"é\": 1, a: {}}}": "{version: 1, providers: {" + inFlow + ", \"é\": 1, a: {}}}",
		"{\"é\": 1, providers: {a: {}}}":             "{\"é\": 1, providers: {" + inFlow + ", a: {}}}",
		"{version: 1}\n":                             "{providers: {" + inFlow + "}, version: 1}\n",
	} {
		if got, added, ok := insertProvider(src, "n", entry); !ok || got != want || !strings.Contains(got, strings.TrimRight(added, "\n")) {
			t.Errorf("%q became\n%q, want\n%q", src, got, want)
		}
	}
	for _, src := range []string{"providers: ~\n", "providers: x\n", "providers: [a]\n", "a: {\n", "x", "- a"} {
		if got, _, ok := insertProvider(src, "n", entry); ok {
			t.Errorf("%q became %q", src, got)
		}
	}
}

func TestSettingsAreWrittenByTheirType(t *testing.T) {
	t.Parallel()
	a := &app{kinds: backend.NewRegistry(oauth2.Kind(), exec.Kind(), vault.Kind())}
	for _, tt := range []struct {
		kind string
		set  []string
		want string // as in the configuration; empty: refused
	}{
		{"oauth2", []string{"scopes=openid", "scopes=a, b", "client_id=12"}, "scopes: [\"openid\", \"a, b\"]\nclient_id: \"12\"\n"},
		{"oauth2", []string{"scopes=[openid, email]", "timeout=5s", "redirect_port=8765"}, "scopes: [openid, email]\ntimeout: \"5s\"\nredirect_port: 8765\n"},
		{"oauth2", []string{"parameters.prompt=consent", "parameters.x-y=a: b # <c>"}, "parameters:\n  prompt: \"consent\"\n  \"x-y\": \"a: b # <c>\"\n"},
		{"oauth2", []string{"parameters={prompt: consent}"}, "parameters: {prompt: consent}\n"},
		{"oauth2", []string{"endpoints.token=https://a/b?c=d", "endpoints.device=https://a/d"}, "endpoints:\n  token: \"https://a/b?c=d\"\n  device: \"https://a/d\"\n"},
		{"oauth2", []string{"redirect_port=x: y"}, "redirect_port: \"x: y\"\n"}, // which reading it refuses
		{"oauth2", []string{"nothing=1"}, "nothing: \"1\"\n"},
		{"oauth2", []string{"client_id=a", "client_id=b"}, ""},
		{"oauth2", []string{"scopes=[a], grant: x"}, ""},
		{"oauth2", []string{"parameters=x"}, ""},
		{"oauth2", []string{"parameters={a: b}", "parameters.c=d"}, ""},
		{"oauth2", []string{"client_id=a\nserve: {}"}, ""},
		{"oauth2", []string{"kind=x"}, ""},
		{"oauth2", []string{"client_id"}, ""},
		{"oauth2", []string{"=x"}, ""},
	} {
		got, _, err := a.fill(newProvider{kind: tt.kind, set: tt.set})
		if want := "kind: " + tt.kind + "\n" + tt.want; (err != nil) != (tt.want == "") || err == nil && got != want {
			t.Errorf("%q: %q, %v", tt.set, got, err)
		}
	}
}
