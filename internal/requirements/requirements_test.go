package requirements

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, file, src, want string }{
		{"a skill", "SKILL.md", "---\nname: a\nmetadata: {x: y}\ncredentials:\n  - env: A_KEY\n    provider: p\n    id: i\n    field: f\n    type: oauth2\n    scopes: [r, 'w:x']\n---\n# Text\n- not: yaml: [\n",
			"5:5 A_KEY cred://p/i#f oauth2 [r w:x]"},
		{"windows line ends and a byte order mark", "SKILL.md", "\ufeff---\r\nname: a\r\ncredentials:\r\n  - env: A\r\n    provider: p\r\n---\r\ntext", "4:5 A cred://p/default"},
		{"a skill that requires nothing", "SKILL.md", "---\nname: a\ndescription: b\n---\n", ""},
		{"a map by variables", "SKILL.md", "---\ncredentials:\n  A: {provider: p, id: i}\n  B: {provider: p, id: j, optional: true}\n---\n", "3:7 A cred://p/i|4:7 B cred://p/j optional"},
		{"front matter under another name", "fd", "---\ncredentials: [{env: A, provider: p}]\n---\n", "2:16 A cred://p/default"},
		{"a list", "r.yaml", "- env: A\n  provider: p\n", "1:3 A cred://p/default"},
		{"a document that begins with a line of dashes", "r.yaml", "---\n- env: A\n  provider: p\n", "2:3 A cred://p/default"},
		{"JSON", "r.json", `{"name": "x", "credentials": [{"env": "A", "provider": "p", "id": "i", "required": false}]}`, "1:32 A cred://p/i optional"},
		{"a map by variables alone", "r.yaml", "A: {provider: p}\nB: {provider: q}\n", "1:5 A cred://p/default|2:5 B cred://q/default"},
		{"names alone", "r.yaml", "credentials: [A, B]", "1:15 A -|1:18 B -"},
		{"the words of the proposal", "r.yaml", "- {name: A, description: d, required: true}\n- {name: B, required: false}", "1:4 A -|2:4 B - optional"},
		{"a skill of OpenClaw", "SKILL.md", "---\nname: a\nmetadata: {\"openclaw\": {\"requires\": {\"env\": [\"A\", \"B\"], \"bins\": [\"x\"]}, \"primaryEnv\": \"A\"}}\n---\n", "3:46 A -|3:51 B -"},
		{"a skill of OpenClaw with descriptions", "SKILL.md", "---\nmetadata:\n  openclaw:\n    requires:\n      env: [A]\n    envVars:\n      - {name: A, description: d}\n      - {name: B, required: false}\n---\n", "7:10 A -|8:10 B - optional"},
		{"a skill of OpenClaw with credentials", "SKILL.md", "---\ncredentials: [A]\nmetadata: {openclaw: {requires: {env: [B]}}}\n---\n", "2:15 A -"},
		{"other metadata", "SKILL.md", "---\nname: a\nmetadata: {author: x, openclaw: {emoji: y}}\n---\n", ""},
		{"nothing under the key", "r.yaml", "credentials:\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			all, err := Parse(tt.file, []byte(tt.src))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range all {
				ref := "-"
				if r.Ref.Provider != "" {
					ref = r.Ref.String()
				}
				text := strings.TrimPrefix(r.Place(), tt.file+":") + " " + r.Env + " " + ref
				if r.Type != "" {
					text += " " + string(r.Type)
				}
				if len(r.Scopes) > 0 {
					text += " [" + strings.Join(r.Scopes, " ") + "]"
				}
				if r.Optional {
					text += " optional"
				}
				got = append(got, text)
			}
			if text := strings.Join(got, "|"); text != tt.want {
				t.Errorf("got  %s\nwant %s", text, tt.want)
			}
		})
	}
}

func TestParseTellsWhatIsWrong(t *testing.T) {
	t.Parallel()
	many := "credentials:\n" + ""
	for i := range maxRequirements + 1 {
		many += fmt.Sprintf("  - A%d\n", i)
	}
	for _, tt := range []struct{ name, file, src, want string }{
		{"an unknown key", "SKILL.md", "---\nname: a\ncredentials:\n  - env: A\n    provder: c4nary\n---\n", `SKILL.md:5:5: credentials[0].provder: unknown key; did you mean "provider"?`},
		{"the key misspelt", "SKILL.md", "---\nname: a\ncredential:\n  - env: A\n---\n", `SKILL.md:3:1: credential: unknown key; did you mean "credentials"?`},
		{"the key misspelt in a file", "r.yaml", "credental: [A]\n", `r.yaml:1:1: credental: unknown key; did you mean "credentials"?`},
		{"no front matter", "SKILL.md", "# Skill\n", "SKILL.md: it has no front matter; its first line must be ---"},
		{"front matter without an end", "SKILL.md", "---\nname: a\n", "SKILL.md: its front matter has no end; a line --- must stand behind it"},
		{"no YAML", "SKILL.md", "---\nname: a\ncredentials: [c4nary\n---\n", "SKILL.md:3:"},
		{"empty", "r.yaml", " \n", "r.yaml: it is empty"},
		{"a comment alone", "r.yaml", "# c4nary\n", "it is empty, where one YAML document must be"},
		{"something else", "r.yaml", "version: 1\nproviders: {}\n", `expected a list of requirements, or a map with the key "credentials"`},
		{"a text", "r.yaml", "c4nary", `expected a map with the key "credentials"`},
		{"no list", "r.yaml", "credentials: 12", "credentials: expected a list of requirements"},
		{"no variable", "r.yaml", "- {provider: p}", "[0]: the key env is missing"},
		{"two variables", "r.yaml", "- {env: A, name: B, provider: p}", "write one of them"},
		{"nothing behind a variable", "r.yaml", "credentials:\n  A:\n", "r.yaml:2:3: credentials.A: nothing stands here"},
		{"a malformed variable", "r.yaml", "- {env: A-c4nary, provider: p}", "letters, digits and underscores alone"},
		{"a digit first", "r.yaml", "- {env: 1A, provider: p}", "begins with no digit"},
		{"a refused variable", "r.yaml", "- {env: A, provider: p}\n- {env: LD_PRELOAD, provider: p}", "r.yaml:2:4: [1]: the variable LD_PRELOAD may not be set by requirements: it can change what programs do (rule *_PRELOAD)"},
		{"a variable twice", "r.yaml", "- {env: A, provider: p}\n- {env: a, provider: q}", "r.yaml:2:4: [1]: the variable a is declared twice; it is on line 1 already"},
		{"an unknown type", "r.yaml", "- {env: A, provider: p, type: api-key}", `unknown type; did you mean "api_key"?`},
		{"scopes of something else", "r.yaml", "- {env: A, provider: p, type: basic, scopes: [a]}", "scopes are of type oauth2 alone"},
		{"scopes in one text", "r.yaml", "- {env: A, provider: p, scopes: 'a b'}", "scopes: expected a list, found a text"},
		{"a scope with a space", "r.yaml", "- {env: A, provider: p, scopes: ['a b']}", "one scope each"},
		{"an id without a provider", "r.yaml", "- {env: A, id: i}", "the key provider is missing"},
		{"a malformed provider", "r.yaml", "- {env: A, provider: C4nary}", "provider"},
		{"optional and required", "r.yaml", "- {env: A, provider: p, optional: true, required: true}", "it cannot be optional and required"},
		{"a ref in the place of a provider", "r.yaml", "- {env: A, provider: 'cred://p/c4nary'}", "provider"},
		{"too many", "r.yaml", many, "there are more than 256 requirements"},
		{"two documents", "r.yaml", "- A\n---\n- B\n", "it must hold one YAML document, not 2"},
		{"nested deeply", "r.json", strings.Repeat("[", 5000), "it is nested too deeply"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := Parse(tt.file, []byte(tt.src))
			if backend.CodeOf(err) != backend.CodeInvalidConfig || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, %v; want %q", got, err, tt.want)
			}
			if strings.Contains(err.Error(), "c4nary") {
				t.Errorf("the error repeats a value: %v", err)
			}
		})
	}
}

// A skill must not bring code in through the environment.
func TestCheckEnv(t *testing.T) {
	t.Parallel()
	for _, name := range strings.Fields(`PATH Path LD_PRELOAD LD_LIBRARY_PATH ld_audit DYLD_INSERT_LIBRARIES NODE_OPTIONS NODE_PATH PYTHONPATH PYTHONSTARTUP
		PYTHONHOME BASH_ENV BASH_FUNC_x ENV IFS PS4 PROMPT_COMMAND GIT_SSH_COMMAND GIT_SSH GIT_ASKPASS GIT_CONFIG_COUNT GIT_EXTERNAL_DIFF GIT_EXEC_PATH
		SSH_ASKPASS SUDO_ASKPASS PERL5OPT PERL5LIB RUBYOPT RUBYLIB JAVA_TOOL_OPTIONS _JAVA_OPTIONS JDK_JAVA_OPTIONS MAVEN_OPTS CLASSPATH GOFLAGS
		RUSTC_WRAPPER RUSTFLAGS CARGO_HOME npm_config_script_shell NPM_CONFIG_NODE_OPTIONS PIP_INDEX_URL HTTPS_PROXY http_proxy SSL_CERT_FILE
		NODE_EXTRA_CA_CERTS OPENSSL_CONF EDITOR VISUAL PAGER GIT_PAGER MANPAGER LESSOPEN BROWSER SHELL HOME ZDOTDIR XDG_CONFIG_HOME TMPDIR
		GLIBC_TUNABLES GCONV_PATH DOTNET_STARTUP_HOOKS CORECLR_PROFILER LUA_INIT PHPRC ERL_FLAGS KUBECONFIG AWS_CONFIG_FILE DOCKER_CONFIG
		CREDRESOLVE_CONFIG CREDRESOLVE_TOKEN LD_TOKEN MAKEFLAGS COMSPEC PSModulePath`) {
		if err := CheckEnv(name); err == nil {
			t.Errorf("%s may be set", name)
		}
	}
	for _, name := range strings.Fields(`GITHUB_TOKEN GH_TOKEN GIT_TOKEN OPENAI_API_KEY AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN PGPASSWORD PGUSER
		DATABASE_URL SLACK_BOT_TOKEN NPM_TOKEN NODE_AUTH_TOKEN CARGO_REGISTRY_TOKEN PIP_PASSWORD DOCKER_PASSWORD VAULT_TOKEN api_key _x STRIPE_KEY`) {
		if err := CheckEnv(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"", "A B", "A=B", "A\x00", "é", strings.Repeat("A", 129)} {
		if err := CheckEnv(name); err == nil || strings.Contains(err.Error(), "A B") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// The page lists what the program refuses.
func TestRulesAreDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/requirements.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range []struct{ row, names string }{{"names", refusedNames}, {"beginnings", refusedPrefixes}, {"ends", refusedSuffixes}} {
		m := regexp.MustCompile("(?m)^\\| " + rule.row + " \\| `([^`]+)` \\|$").FindSubmatch(page)
		if m == nil || !slices.Equal(strings.Fields(string(m[1])), strings.Fields(rule.names)) {
			t.Errorf("docs/requirements.md does not list the %s as they are", rule.row)
		}
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	value := func(typ backend.Type, scope string, end time.Time) *resolver.Value {
		return resolver.NewValue(resolver.ValueFacts{Secret: backend.NewSecretString("c4nary"), Type: typ, Expires: end, Metadata: map[string]string{"scope": scope}})
	}
	oauth, key := backend.TypeOAuth2, backend.TypeAPIKey
	for _, tt := range []struct {
		name   string
		need   Requirement
		v      *resolver.Value
		err    error
		want   Status
		remedy string
	}{
		{"anything", Requirement{}, value(key, "", time.Time{}), nil, OK, ""},
		{"the type", Requirement{Type: oauth, Scopes: []string{"a", "b"}}, value(oauth, "b c a", now.Add(time.Hour)), nil, OK, ""},
		{"scopes with commas", Requirement{Scopes: []string{"a", "b"}}, value(oauth, "a,b", time.Time{}), nil, OK, ""},
		{"a type nobody told", Requirement{Type: key}, value(backend.TypeUserValue, "", time.Time{}), nil, OK, ""},
		{"an access token", Requirement{Type: backend.TypeToken}, value(oauth, "", time.Time{}), nil, OK, ""},
		{"another type", Requirement{Type: oauth}, value(backend.TypeUserValue, "", time.Time{}), nil, Unsupported, "--map A=cred://"},
		{"a key for a login", Requirement{Type: backend.TypeBasic}, value(key, "", time.Time{}), nil, Unsupported, "--map A=cred://"},
		{"scopes that lack", Requirement{Scopes: []string{"a", "z"}}, value(oauth, "a", time.Time{}), nil, Unsupported, "lacks the scopes z; add them to the provider's scopes, and, if it is one that a person logs in to, log in again: credresolve login p 'my id'"},
		{"scopes that nobody tells", Requirement{Scopes: []string{"a"}}, value(oauth, "", time.Time{}), nil, Unsupported, "does not tell its scopes"},
		{"past its life", Requirement{}, value(key, "", now), nil, Expired, "past its life"},
		{"not found", Requirement{}, nil, backend.Errorf(backend.CodeNotFound, "it is not there"), Missing, "it is not there; store it, or take another: --map A=cred://provider/id"},
		{"a login", Requirement{}, nil, backend.Errorf(backend.CodeAuthRequired, "nobody has logged in"), NeedsLogin, "log in: credresolve login p 'my id'"},
		{"expired", Requirement{}, nil, backend.ErrExpired, Expired, ""},
		{"denied", Requirement{}, nil, backend.Errorf(backend.CodeDenied, "no"), Failed, "no"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.need.Env, tt.need.Ref = "A", credref.Ref{Provider: "p", ID: "my id"}
			f := tt.need.Judge(tt.v, tt.err, now)
			if f.Status != tt.want || (f.Err == nil) != (tt.want == OK) || f.Err != nil && !strings.Contains(f.Err.Error(), tt.remedy) {
				t.Errorf("%s: %v", f.Status, f.Err)
			}
			if (f.Login != "") != (tt.want == NeedsLogin) {
				t.Errorf("the login is %q", f.Login)
			}
		})
	}
}

func TestMap(t *testing.T) {
	t.Parallel()
	one := Requirement{Env: "A", Ref: credref.Ref{Provider: "p", ID: "i"}, Scopes: []string{"a"}, Optional: true, File: "one", Line: 1}
	same := Requirement{Env: "A", Ref: one.Ref, Scopes: []string{"b", "a"}, File: "two", Line: 2}
	other := Requirement{Env: "A", Ref: credref.Ref{Provider: "p", ID: "other"}, File: "three", Line: 3, Column: 1}
	got, err := Map([]Requirement{one, same}, nil)
	if err != nil || len(got) != 1 || got[0].Optional || !slices.Equal(got[0].Scopes, []string{"a", "b"}) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err = Map([]Requirement{one, other}, nil); err == nil || !strings.Contains(err.Error(), "three:3:1: the variable A is declared in one:1:0 already, for another credential") {
		t.Errorf("%v", err)
	}
	mine := credref.Ref{Provider: "mine", ID: "x"}
	if got, err = Map([]Requirement{one, other}, map[string]credref.Ref{"A": mine}); err != nil || len(got) != 1 || got[0].Ref != mine {
		t.Errorf("%+v, %v", got, err)
	}
	long := Requirement{Env: "GITHUB_TOKEN"}
	if _, err = Map([]Requirement{long}, map[string]credref.Ref{"GITHUB_TOKN": mine}); err == nil || !strings.Contains(err.Error(), `did you mean "GITHUB_TOKEN"?`) {
		t.Errorf("%v", err)
	}
}

func FuzzParse(f *testing.F) {
	seeds, _ := os.ReadDir("../../docs")
	if len(seeds) == 0 {
		f.Fatal("there are no seeds")
	}
	page, err := os.ReadFile("../../docs/requirements.md")
	if err != nil {
		f.Fatal(err)
	}
	f.Add("SKILL.md", page)
	f.Add("SKILL.md", []byte("---\nname: a\ncredentials:\n  - {env: A, provider: p, scopes: [a]}\n---\n"))
	f.Add("r.yaml", []byte("A: {provider: p}\n"))
	f.Add("r.json", []byte(`[{"env": "A", "provider": "p", "type": "oauth2"}]`))
	f.Add("r.yaml", []byte("&a [*a]"))
	f.Fuzz(func(t *testing.T, name string, src []byte) {
		all, err := Parse(name, src)
		if err != nil {
			if backend.CodeOf(err) != backend.CodeInvalidConfig {
				t.Fatalf("%v", err)
			}
			return
		}
		for _, r := range all {
			if CheckEnv(r.Env) != nil || r.Line < 1 || r.Ref.Provider != "" && r.Ref.Validate() != nil {
				t.Fatalf("%+v", r)
			}
		}
	})
}
