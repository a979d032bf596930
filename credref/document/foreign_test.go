package document_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	yamltestsuite "github.com/goccy/go-yaml/testdata/yaml-test-suite"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/credref/document"
	"github.com/credresolve/credresolve/secretref"
)

// secretRefs finds SecretRefs by the rules of g.
func secretRefs(g secretref.Grammar) *document.Foreign {
	f := &document.Foreign{
		Keys: []string{"source", "provider", "id"},
		Map: func(members map[string]string) (any, bool) {
			ref, ok := g.FromObject(members, false)
			return ref, ok
		},
	}
	if g.Shorthands {
		f.Text = func(text string) (any, bool) {
			ref, ok := g.FromString(text)
			return ref, ok
		}
	}
	return f
}

func answerForeign(s *document.Site) (document.Replacement, error) {
	if ref, ok := s.Foreign.(secretref.Ref); ok {
		return document.Replacement{Secret: backend.NewSecretString(ref.Key())}, nil
	}
	return answer(s)
}

func TestForeign(t *testing.T) {
	t.Parallel()
	objects := secretRefs(secretref.Grammar{})
	all := secretRefs(secretref.Grammar{Shorthands: true})
	for _, tt := range []struct {
		name    string
		format  document.Format
		foreign *document.Foreign
		in      string
		want    string
	}{
		{"YAML block", document.YAML, objects, "a:\n  source: env # c\n  provider: default\n  id: X\nb: cred://p/y\n", "a: \"env:default:X\"\nb: \"y\"\n"},
		{"YAML flow", document.YAML, objects, "a: [{id: /x, source: file, provider: f}, {provider: p, id: y}]\n", "a: [\"file:f:/x\", \"y\"]\n"},
		{"YAML whole document", document.YAML, objects, "source: exec\nprovider: v\nid: a/b\n", "\"exec:v:a/b\"\n"},
		{"YAML alias", document.YAML, objects, "a: &r {source: env, provider: default, id: X}\nb: *r\n", "a: &r \"env:default:X\"\nb: *r\n"},
		{"JSON", document.JSON, objects, `{"a": {"source": "store", "provider": "default", "id": "X"}, "b": "$X"}`, `{"a": "store:default:X", "b": "$X"}`},
		{"JSON5", document.JSON5, objects, "{a: {source: 'env', provider: 'default', id: 'X',}}", `{a: "env:default:X"}`},
		{"TOML inline", document.TOML, objects, "a = {source = 'env', provider = 'default', id = 'X'}\n", "a = \"env:default:X\"\n"},
		{"TOML table", document.TOML, objects, "[a]\nb = 1\n[a.key]\nsource = 'env'\nprovider = 'default'\nid = 'X'\n", "[a]\nb = 1\nkey = \"env:default:X\"\n"},
		{"TOML dotted keys", document.TOML, objects, "k.source = 'env'\nk.provider = 'default'\nk.id = 'X'\nb = 1\n", "k = \"env:default:X\"\nb = 1\n"},
		{"TOML array of tables of both kinds", document.TOML, objects, "[[a]]\nsource = 'env'\nprovider = 'default'\nid = 'X'\n[[a]]\nprovider = 'p'\nid = 'y'\n", "a = [\"env:default:X\", \"y\"]\n"},
		{"shorthands", document.JSON5, all, `{a: "${X}", b: '$Y', c: "x$Y", d: "$${X}", e: {source: "env", id: "Z"}, f: "cred://p/y"}`, `{a: "env:default:X", b: "env:default:Y", c: "x$Y", d: "$${X}", e: "env:default:Z", f: "y"}`},
		{"a shorthand within a CredentialRef is its text", document.JSON, all, `{"a": {"provider": "p", "id": "$X"}}`, `{"a": "$X"}`},
		// What is somebody else's stays.
		{"another source", document.YAML, objects, "a: {source: vault, provider: p, id: x}\n", "a: {source: vault, provider: p, id: x}\n"},
		{"a fourth key", document.YAML, objects, "a: {source: env, provider: p, id: X, version: 1}\n", "a: {source: env, provider: p, id: X, version: 1}\n"},
		{"no provider", document.YAML, objects, "a: {source: env, id: X}\n", "a: {source: env, id: X}\n"},
		{"a number", document.YAML, objects, "a: {source: env, provider: p, id: 5}\n", "a: {source: env, provider: p, id: 5}\n"},
		{"a blank id", document.YAML, objects, "a: {source: env, provider: p, id: ' '}\n", "a: {source: env, provider: p, id: ' '}\n"},
		{"a map of one's own tag", document.YAML, objects, "a: !x {source: env, provider: p, id: X}\n", "a: !x {source: env, provider: p, id: X}\n"},
		{"under <<", document.YAML, objects, "a:\n  <<: {source: env, provider: p, id: X}\n", "a:\n  <<: {source: env, provider: p, id: X}\n"},
		{"TOML table of another's", document.TOML, objects, "[a]\nsource = 'git'\nprovider = 'p'\nid = 'x'\n", "[a]\nsource = 'git'\nprovider = 'p'\nid = 'x'\n"},
		{"TOML document", document.TOML, objects, "source = 'git'\nprovider = 'p'\nid = 'x'\n", "source = 'git'\nprovider = 'p'\nid = 'x'\n"},
		{"shorthands elsewhere", document.YAML, objects, "a: $X\nb: ${X}\n", "a: $X\nb: ${X}\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d, err := document.Parse("in", []byte(tt.in), tt.format, document.Options{Foreign: tt.foreign, Providers: []string{"p"}})
			if err != nil {
				t.Fatal(err)
			}
			out, err := d.Render(answerForeign)
			if err != nil || string(out) != tt.want {
				t.Errorf("got\n%s\nwant\n%s\n%v", out, tt.want, err)
			}
			for _, o := range []document.Options{{Refs: document.RefsShort}, {Ignore: []string{"/**"}}} {
				o.Foreign = tt.foreign
				d, err := document.Parse("in", []byte(tt.in), tt.format, o)
				if err != nil {
					t.Fatal(err)
				}
				for _, s := range d.Refs() {
					if s.Foreign != nil {
						t.Errorf("%+v: found %s", o, s.Path)
					}
				}
			}
		})
	}
}

func TestForeignSite(t *testing.T) {
	t.Parallel()
	d, err := document.Parse("in", []byte("A: cred://p/x\nB:\n  source: env\n  provider: default\n  id: X\nC: text\n"), document.YAML,
		document.Options{Foreign: secretRefs(secretref.Grammar{})})
	if err != nil {
		t.Fatal(err)
	}
	s := d.Refs()[1]
	if s.Path != "B" || s.Line != 3 || s.Column != 3 || s.Foreign != (secretref.Ref{Source: "env", Provider: "default", ID: "X"}) || s.Ref != (credref.Ref{}) {
		t.Errorf("the site is %+v", s)
	}
	vars, err := d.Env()
	if err != nil || len(vars) != 3 || vars[1].Name != "B" || vars[1].Site != s {
		t.Errorf("the variables are %v, %v", vars, err)
	}
}

func TestForeignFaults(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		format   document.Format
		in, want string
	}{
		{document.YAML, "a: {provider: p, id: x, fallback: {source: env, provider: default, id: X}}\n", "in:1:35: a.fallback: a fallback must be a ref of the same kind"},
		{document.YAML, "a: {provider: p, id: x, fallback: [cred://p/y, {source: env, provider: default, id: X}]}\n", "in:1:48: a.fallback[1]: a fallback must be a ref of the same kind"},
		{document.YAML, "a: {provider: p, id: x, default: {source: env, provider: default, id: X}}\n", "in:1:34: a.default: the default must be"},
		{document.YAML, "a: {source: env, provider: &n default, id: X}\nb: *n\n", "in:2:4: b: the alias names a part of a ref"},
		{document.YAML, "a: &r {source: env, provider: default, id: X}\nb:\n  <<: *r\n", "in:3:7: b[\"<<\"]: << merges a ref"},
		{document.YAML, "a: {source: env, source: env, id: X}\n", "in:1:18: a.source: the key is there twice"},
		{document.TOML, "source = 'env'\nprovider = 'default'\nid = 'X'\n", "in:1:1: .: a TOML document is a table"},
		{document.TOML, "[[a]]\nsource = 'env'\nprovider = 'default'\nid = 'X'\n[[a]]\nb = 1\n", "in:1:3: a[0]: a ref in an array of tables"},
	} {
		_, err := document.Parse("in", []byte(tt.in), tt.format, document.Options{Foreign: secretRefs(secretref.Grammar{})})
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%q: got %v, want %s", tt.in, err, tt.want)
		}
	}
}

// sameWithForeign holds that looking for three-key objects changes nothing in a document without any.
func sameWithForeign(src []byte, format document.Format, o document.Options) error {
	plain, plainErr := document.Parse("in", src, format, o)
	o.Foreign = secretRefs(secretref.Grammar{})
	both, err := document.Parse("in", src, format, o)
	if both != nil {
		for _, s := range both.Refs() {
			if s.Foreign != nil {
				return nil
			}
		}
	}
	if fmt.Sprint(err) != fmt.Sprint(plainErr) {
		// A three-key object within a CredentialRef, or at the top of a TOML document, is a fault of its own.
		if text := fmt.Sprint(err); strings.Contains(text, "of the same kind") || strings.Contains(text, "cannot be a ref as a whole") || strings.Contains(text, "in an array of tables") {
			return nil
		}
		return fmt.Errorf("with SecretRefs: %v; without: %v", err, plainErr)
	}
	if plain == nil || plainErr != nil {
		return nil
	}
	if a, b := fmt.Sprintf("%+v", sitesOf(plain)), fmt.Sprintf("%+v", sitesOf(both)); a != b {
		return fmt.Errorf("with SecretRefs: %s; without: %s", b, a)
	}
	one, errOne := plain.Render(answer)
	two, errTwo := both.Render(answer)
	if string(one) != string(two) || fmt.Sprint(errOne) != fmt.Sprint(errTwo) {
		return errors.New("it is rendered otherwise")
	}
	return nil
}

func TestForeignChangesNoOtherDocument(t *testing.T) {
	t.Parallel()
	cases, err := yamltestsuite.TestSuites()
	if err != nil {
		t.Skip("needs the YAML test suite: run go mod download github.com/goccy/go-yaml, and test without -trimpath")
	}
	for _, c := range cases {
		if err := sameWithForeign(c.InYAML, document.YAML, document.Options{}); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
	}
	for _, format := range document.Formats() {
		if err := sameWithForeign(manyRefs(format, 100), format, document.Options{Providers: []string{"app"}}); err != nil {
			t.Error(err)
		}
	}
}

func sitesOf(d *document.Document) []string {
	var out []string
	for _, s := range d.Refs() {
		out = append(out, fmt.Sprint(s.Path, s.Line, s.Column, s.Ref, s.Fallback, s.Optional))
	}
	return out
}

func BenchmarkTenThousandForeignRefs(b *testing.B) {
	var src strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&src, "svc%d:\n  # the database\n  host: db%d.example\n  password:\n    source: exec\n    provider: vault\n    id: kv/app/db%d # c\n", i, i, i)
	}
	b.SetBytes(int64(src.Len()))
	b.ReportAllocs()
	for b.Loop() {
		d, err := document.Parse("f", []byte(src.String()), document.YAML, document.Options{Foreign: secretRefs(secretref.Grammar{})})
		if err != nil || len(d.Refs()) != 10_000 {
			b.Fatal(err)
		}
		if _, err := d.Render(answerForeign); err != nil {
			b.Fatal(err)
		}
	}
}
