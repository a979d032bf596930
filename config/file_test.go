package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/credresolve/credresolve/adapters/memory"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
)

const canary = "c4nary-in-the-config"

// boxConfig has a setting of each sort that an adapter may have.
type boxConfig struct {
	Address  string            `yaml:"address"`
	Password backend.Source    `yaml:"password"`
	Timeout  time.Duration     `yaml:"timeout"`
	Count    int               `yaml:"count"`
	Deep     boxDeep           `yaml:"deep"`
	Names    []string          `yaml:"names"`
	Env      map[string]string `yaml:"env"`
	Path     string            `yaml:"path"`

	Vars map[string]backend.Source `yaml:"vars"`
}

type boxDeep struct {
	On    bool           `yaml:"on"`
	Token backend.Source `yaml:"token"`
}

func (c boxConfig) Reach() []backend.Reach {
	switch {
	case c.Path != "":
		return []backend.Reach{{What: backend.ReachFile, Value: c.Path}}
	case c.Address != "":
		return []backend.Reach{{What: backend.ReachAddress, Value: c.Address}}
	}
	return nil
}

// box answers with the secret of its own password setting.
type box struct {
	backend.Backend
	password backend.Source
}

// registry has the kind memory, and the kind box whose backends are put into opened.
func registry(opened map[string]boxConfig) *backend.Registry {
	return backend.NewRegistry(memory.Kind(), backend.NewKind("box", "a kind for tests", func(c boxConfig, h backend.Host) (backend.Backend, error) {
		if c.Address == "refused" {
			return nil, backend.Errorf(backend.CodeInvalidConfig, "address: it cannot be refused")
		}
		if opened != nil {
			opened[h.Provider] = c
		}
		m, err := memory.New(memory.Config{Values: map[string]string{"x": c.Address}})
		return box{m, c.Password}, err
	}))
}

func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), config.FileName)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t *testing.T, content string) *config.File {
	t.Helper()
	f, err := config.Load(write(t, content), registry(nil))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestLoadSettings(t *testing.T) {
	t.Parallel()
	f, err := config.Load(write(t, `
version: 1
cache: {entries: 10, bytes: 1000}
limits: {concurrency: 4, retries: 0}
refs: short
ignore: [/metadata/**]
providers:
  store: {kind: memory, values: {pw: secret}}
  app:
    kind: box
    address: "x"     # a comment
    password: {provider: store, id: pw}
    timeout: 1h30m
    count: 3
    deep: {on: true, token: "cred://store/pw"}
    names: [a, 12]
    env: {A: b}
    cache: {ttl: 0, max_stale: 1h}
    types: {"kv/*": api_key, "*": token}
`), registry(nil))
	if err != nil {
		t.Fatal(err)
	}
	if !f.ShortRefsOnly() || !slices.Equal(f.Ignore(), []string{"/metadata/**"}) || len(f.Warnings()) != 0 {
		t.Errorf("short %v, ignore %v, warnings %v", f.ShortRefsOnly(), f.Ignore(), f.Warnings())
	}
	opened := map[string]boxConfig{}
	f, err = config.Load(f.Path(), registry(opened))
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Open(config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := opened["app"]
	if c.Timeout != 90*time.Minute || c.Count != 3 || !c.Deep.On || !slices.Equal(c.Names, []string{"a", "12"}) || c.Env["A"] != "b" {
		t.Errorf("settings: %+v", c)
	}
	for name, s := range map[string]backend.Source{"password": c.Password, "deep.token": c.Deep.Token} {
		secret, revision, err := s.Get(t.Context())
		if err != nil || string(secret.Reveal()) != "secret" || revision == "" || s.IsLiteral() {
			t.Errorf("%s: %q, revision %q, %v", name, secret.Reveal(), revision, err)
		}
	}
	if chain := f.Provider("app").Chain; len(chain) != 2 || chain[0] != (credref.Ref{Provider: "store", ID: "pw"}) {
		t.Errorf("chain: %v", chain)
	}
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, content, want string }{
		{"empty", "", "one YAML document"},
		{"two documents", "version: 1\n---\nversion: 1\n", "one YAML document"},
		{"not a map", "- a\n", "expected a map"},
		{"no version", "providers: {}\n", "version: it is missing"},
		{"version 2", "version: 2\n", ":1:10: version: this program knows version 1 alone"},
		{"syntax", "version: 1\nproviders: {" + canary + ": [\n", "not valid YAML: a list in [ ] lacks"},
		{"tab", "version: 1\nproviders:\n\ta: {kind: " + canary + "}\n", ":3:1: it is not valid YAML: indentation takes spaces, no tabs"},
		{"open map", "version: 1\nproviders:\n  a: {kind: box\n", "not valid YAML: a map in { } lacks"},
		{"open text", "version: 1\nproviders:\n  a: {kind: \"" + canary + "\n", "not valid YAML: a text in double quotes lacks its end"},
		{"two colons", "version: 1\nproviders:\n  a: b: " + canary + "\n", "not valid YAML: a second colon in a line"},
		{"no colon", "version: 1\nproviders:\n  a:\n    kind: box\n    " + canary + "\n", "not valid YAML: a colon after the key is missing"},
		{"no colon in a line", "version: 1\nproviders:\n  a: {kind: box, password " + canary + "}\n", ":3:18: providers.a.password…: unknown key; a colon and a space must"},
		{"an equals sign", "version: 1\nproviders:\n  a: {kind: box, password=" + canary + ", password=" + canary + "}\n", `the key "password…" stands twice`},
		{"no colon behind a name", "version: 1\nproviders: {a " + canary + ": {kind: box}}\n", "providers.a…: the name of a provider must match"},
		{"a long key", "version: 1\n" + strings.Repeat("k", 70) + canary + ": 1\n", "k…: unknown key"},
		{"unknown key", "version: 1\nproviderz: {}\n", `:2:1: providerz: unknown key; did you mean "providers"?`},
		{"unknown kind", "version: 1\nproviders:\n  a: {kind: boxx}\n", `:3:13: providers.a.kind: unknown kind "boxx"; known kinds: box, memory; did you mean "box"?`},
		{"no kind", "version: 1\nproviders:\n  a: {address: x}\n", ":3:3: providers.a: kind is missing"},
		{"unknown setting", "version: 1\nproviders:\n  a:\n    kind: box\n    adress: x\n", `:5:5: providers.a.adress: unknown key; did you mean "address"?`},
		{"unknown setting within", "version: 1\nproviders:\n  a:\n    kind: box\n    deep: {onn: true}\n", `providers.a.deep.onn: unknown key`},
		{"name", "version: 1\nproviders:\n  App: {kind: box}\n", "providers.App: the name of a provider must match"},
		{"wrong type", "version: 1\nproviders:\n  a: {kind: box, address: [x]}\n", ":3:27: providers.a.address: expected a text, found a list"},
		{"number", "version: 1\nproviders:\n  a: {kind: box, count: " + canary + "}\n", "providers.a.count: expected a whole number"},
		{"bool", "version: 1\nproviders:\n  a: {kind: box, deep: {on: yes please}}\n", "expected true or false"},
		{"duration", "version: 1\nproviders:\n  a: {kind: box, timeout: " + canary + "}\n", "expected a duration such as"},
		{"negative duration", "version: 1\nproviders:\n  a: {kind: box, timeout: -5s}\n", "expected a duration such as"},
		{"duplicate", "version: 1\nproviders:\n  a: {kind: box}\n  a: {kind: box}\n", `:4:3: the key "a" stands twice`},
		{"duplicate setting", "version: 1\nproviders:\n  a: {kind: box, count: 1, count: 2}\n", `:3:28: the key "count" stands twice`},
		{"ref with unknown key", "version: 1\nproviders:\n  a: {kind: box, password: {provider: a, id: x, default: y}}\n", "providers.a.password.default: unknown key"},
		{"malformed ref", "version: 1\nproviders:\n  a: {kind: box, password: \"cred://" + canary + "\"}\n", "malformed credential reference"},
		{"ref to unknown provider", "version: 1\nproviders:\n  store: {kind: memory}\n  a: {kind: box, password: {provider: stroe, id: x}}\n", `:4:29: providers.a.password: unknown provider "stroe"; did you mean "store"?`},
		{"cycle", "version: 1\nproviders:\n  a: {kind: box, password: {provider: b, id: x}}\n  b: {kind: box, password: {provider: c, id: x}}\n  c: {kind: box, password: {provider: b, id: x}}\n", "b → c → b"},
		{"needs itself", "version: 1\nproviders:\n  a: {kind: box, password: {provider: a, id: x}}\n", "a → a"},
		{"scope", "version: 1\nproviders:\n  a: {kind: box, scope: [user]}\n", "unknown scope; known: session, end_user, tenant, plugin"},
		{"type", "version: 1\nproviders:\n  a: {kind: box, types: {\"*\": key}}\n", "unknown type; known: [api_key"},
		{"limit", "version: 1\nproviders:\n  a: {kind: box, limits: {retries: -1}}\n", "a limit cannot be negative"},
		{"refs", "version: 1\nrefs: long\n", "expected any or short"},
		{"deep", "version: 1\nproviders: " + strings.Repeat("[", 100_000) + "\n", "nested too deeply"},
		{"laughs", "version: 1\na: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nproviders: [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n", "unknown key"},
		{"large", "version: 1\n#" + strings.Repeat("x", 2<<20), "larger than"},
		{"alias without anchor", "version: 1\nproviders: *nope\n", "alias"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := config.Load(write(t, tt.content), registry(nil))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			if !errors.Is(err, backend.ErrInvalidConfig) || backend.CodeOf(err) != backend.CodeInvalidConfig {
				t.Errorf("code %s, want invalid_config", backend.CodeOf(err))
			}
			if strings.Contains(err.Error(), canary) {
				t.Errorf("the error holds a value of the file: %v", err)
			}
		})
	}
}

func TestAllProblemsAreTold(t *testing.T) {
	t.Parallel()
	_, err := config.Load(write(t, "version: 1\nfoo: 1\nproviders:\n  a: {kind: nope}\n  b: {kind: box, count: x}\n"), registry(nil))
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("want three lines, got %v", err)
	}
}

func TestAnchorsAndMergeKeys(t *testing.T) {
	t.Parallel()
	opened := map[string]boxConfig{}
	f, err := config.Load(write(t, `
version: 1
providers:
  a: &a {kind: box, address: one, count: 1}
  b: {<<: *a, address: two}
`), registry(opened))
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Open(config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b := opened["b"]; b.Address != "two" || b.Count != 1 {
		t.Errorf("b = %+v", b)
	}
}

func TestLiteralSecretsDrawAWarning(t *testing.T) {
	t.Parallel()
	f := load(t, "version: 1\nproviders:\n  a:\n    kind: box\n    password: "+canary+"\n")
	w := f.Warnings()
	if len(w) != 1 || !strings.Contains(w[0], ":5:15: providers.a.password is a secret in plain text") || strings.Contains(w[0], canary) {
		t.Errorf("warnings: %q", w)
	}
}

func TestVariablesDrawAWarningByTheirName(t *testing.T) {
	t.Parallel()
	f := load(t, "version: 1\nproviders:\n  a:\n    kind: box\n    vars: {LOG_LEVEL: debug, API_TOKEN: "+canary+"}\n    password: "+canary+"\n")
	w := strings.Join(f.Warnings(), "\n")
	if strings.Count(w, "\n") != 1 || !strings.Contains(w, "vars.API_TOKEN is a secret") || !strings.Contains(w, "a.password is a secret") {
		t.Errorf("warnings: %s", w)
	}
}

func TestOpenTellsWhichProviderIsWrong(t *testing.T) {
	t.Parallel()
	f := load(t, "version: 1\nproviders:\n  a: {kind: box, address: refused}\n")
	if _, err := f.Open(config.Options{}); !errors.Is(err, backend.ErrInvalidConfig) || !strings.Contains(err.Error(), "providers.a: address: it cannot be refused") {
		t.Errorf("got %v", err)
	}
}

func TestOpenFromGo(t *testing.T) {
	t.Parallel()
	r, err := config.Open(write(t, "version: 1\nproviders:\n  store: {kind: memory, values: {db: '{\"password\":\"s\"}'}}\n"), memory.Kind())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	v, err := r.Resolve(t.Context(), credref.Ref{Provider: "store", ID: "db", Field: "password"})
	if err != nil || string(v.Secret().Reveal()) != "s" {
		t.Errorf("%v, %v", v, err)
	}
}
