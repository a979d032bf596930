package document_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/joho/godotenv"
	"github.com/pelletier/go-toml/v2"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref/document"
	"github.com/credresolve/credresolve/secretref"
)

// fuzz checks what holds for any input: no panic (which would be an internal error), a document without refs comes back
// byte for byte, and one with refs yields a document that can be read, without refs and the same but for them.
func fuzz(f *testing.F, format document.Format, seeds []string) {
	for _, s := range seeds {
		d, err := document.Parse("seed", []byte(s), format, document.Options{})
		if err != nil {
			f.Fatalf("seed %q: %v", s, err)
		}
		if len(d.Refs()) == 0 {
			f.Fatalf("seed %q holds no ref", s)
		}
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		if err := sameWithForeign(src, format, document.Options{}); err != nil {
			t.Fatalf("%q: %v", src, err)
		}
		d, err := document.Parse("in", src, format, document.Options{})
		if err != nil {
			if backend.CodeOf(err) != backend.CodeUsage {
				t.Fatal(err)
			}
			return
		}
		if _, err := d.Env(); err != nil && backend.CodeOf(err) != backend.CodeUsage {
			t.Fatal(err)
		}
		for _, remove := range []bool{false, true} {
			out, err := d.Render(func(s *document.Site) (document.Replacement, error) {
				if remove && s.Optional {
					return document.Replacement{Remove: true}, nil
				}
				return document.Replacement{Secret: backend.NewSecretString("v: '1' # x")}, nil
			})
			if err != nil {
				if backend.CodeOf(err) != backend.CodeUnsupported {
					t.Fatal(err)
				}
				continue
			}
			if len(d.Refs()) == 0 {
				if !bytes.Equal(out, src) {
					t.Fatalf("%q became %q", src, out)
				}
				continue
			}
			again, err := document.Parse("out", out, format, document.Options{})
			if err != nil {
				t.Fatalf("%q became %q: %v", src, out, err)
			}
			if n := len(again.Refs()); n != 0 {
				t.Fatalf("%q became %q with %d refs left", src, out, n)
			}
			if err := readElsewhere(format, src); err == nil {
				if err := readElsewhere(format, out); err != nil {
					t.Fatalf("%q became %q: %v", src, out, err)
				}
			}
		}
	})
}

// readElsewhere reads with a reader that is not ours.
func readElsewhere(format document.Format, b []byte) (err error) {
	var v any
	switch format {
	case document.YAML:
		if bytes.Contains(b, []byte("&#")) {
			return yaml.ErrExceededMaxDepth // an anchor's name may begin with #, which the library takes for a comment
		}
		defer func() {
			if recover() != nil {
				err = yaml.ErrExceededMaxDepth // the library failed
			}
		}()
		dec := yaml.NewDecoder(bytes.NewReader(b))
		return dec.Decode(&v)
	case document.JSON:
		return json.Unmarshal(b, &v)
	case document.TOML:
		return toml.Unmarshal(b, &v)
	case document.Env:
		_, err := godotenv.UnmarshalBytes(b)
		return err
	}
	return nil
}

// FuzzForeign is fuzz for documents with SecretRefs among their refs, with and without shorthands.
func FuzzForeign(f *testing.F) {
	formats := document.Formats()
	for i, s := range []string{
		"a: {source: env, provider: default, id: X}\nb:\n  source: file\n  provider: f\n  id: /a/b # c\nc: cred://p/x\n",
		`{"a": {"source": "exec", "provider": "v", "id": "a/b"}, "b": "${X}"}`,
		"{a: {source: 'env', provider: 'default', id: 'X'}, b: ['$Y', {source: 'env', id: 'Z'}]}",
		"[a.b]\nsource = 'env'\nprovider = 'default'\nid = 'X'\n[[c]]\nprovider = 'p'\nid = 'y'\n[[c]]\nsource = 'env'\nprovider = 'default'\nid = 'Y'\n",
		"A='$X'\nB=${Y}\n",
	} {
		foreign := 0
		d, err := document.Parse("seed", []byte(s), formats[i], document.Options{Foreign: secretRefs(secretref.Grammar{Shorthands: true})})
		if err != nil {
			f.Fatalf("seed %q: %v", s, err)
		}
		for _, site := range d.Refs() {
			if site.Foreign != nil {
				foreign++
			}
		}
		if foreign == 0 {
			f.Fatalf("seed %q holds no SecretRef", s)
		}
		f.Add([]byte(s), uint8(i), true)
	}
	f.Fuzz(func(t *testing.T, src []byte, format uint8, shorthands bool) {
		is := formats[int(format)%len(formats)]
		o := document.Options{Foreign: secretRefs(secretref.Grammar{Shorthands: shorthands})}
		d, err := document.Parse("in", src, is, o)
		if err != nil {
			if backend.CodeOf(err) != backend.CodeUsage {
				t.Fatal(err)
			}
			return
		}
		if _, err := d.Env(); err != nil && backend.CodeOf(err) != backend.CodeUsage {
			t.Fatal(err)
		}
		out, err := d.Render(func(*document.Site) (document.Replacement, error) {
			return document.Replacement{Secret: backend.NewSecretString("v: '1' # x")}, nil
		})
		if err != nil {
			if backend.CodeOf(err) != backend.CodeUnsupported {
				t.Fatal(err)
			}
			return
		}
		again, err := document.Parse("out", out, is, o)
		if err != nil {
			t.Fatalf("%q became %q: %v", src, out, err)
		}
		if n := len(again.Refs()); n != 0 {
			t.Fatalf("%q became %q with %d refs left", src, out, n)
		}
	})
}

func FuzzYAML(f *testing.F) {
	fuzz(f, document.YAML, []string{
		"a:\n  provider: p\n  id: x\n  optional: true\nb: cred://p/y # c\n",
		"- k: {provider: p, id: x, optional: true}\n  l: cred://p/q\n",
		"[a: cred://p/x, {b: [{provider: p, id: x, optional: true}, 1]}]\n",
		"a: !!str &n\n  cred://p/x\nb: |-\n  cred://p/y\nc: *n\n",
		"%YAML 1.2\n---\n? [x]\n: - cred://p/x\n  - - {provider: p, id: x, optional: true}\n...\n--- 'cred://p/x'\n",
		"{\"a\": {\"provider\":\"p\",\"id\":\"x\",\"optional\":true} , # c\n b}\r\n",
		"a:\n- {provider: p, id: x, optional: true}\nb: >+\n  x\n   y\n\nc: \"cred:\\\n  //p/x\"\n",
	})
}

func FuzzJSON(f *testing.F) {
	fuzz(f, document.JSON, []string{
		`{"a": {"provider": "p", "id": "x", "optional": true}, "b": ["cred://p/y", 1e5]} // c`,
		"[\n  1, /* c */\n  {\"provider\": \"p\", \"id\": \"x\", \"optional\": true}\n]",
	})
}

func FuzzJSON5(f *testing.F) {
	fuzz(f, document.JSON5, []string{
		"{a: {provider: 'p', id: '\\x78', optional: true,}, b: ['cred://p/y', +0xF, .5, Infinity,],}",
		"// c\n[\n  {$a_1: 'cred://p/\\\ny'}, {provider: \"p\", id: 'x', optional: true}]",
	})
}

func FuzzTOML(f *testing.F) {
	fuzz(f, document.TOML, []string{
		"a = {provider = 'p', id = \"x\", optional = true}\n[[t]]\nb.c = [ 'cred://p/x', # c\n {provider = 'p', id = 'x', optional = true} ]\n",
		"# c\n[a.b]\nprovider = 'p'\nid = 'x'\n[a]\nc.provider = 'p'\nc.id = 'y'\n[x]\n[a.'d e'] # c\nprovider = 'p'\nid = 'z'\noptional = true\n",
		"[x]\n[[a]]\nprovider = 'p'\nid = 'x'\n[[a.fallback]]\nprovider = 'p'\nid = 'y'\n[[a]]\nprovider = 'p'\nid = 'z'\noptional = true",
		"a = \"\"\"\ncred://p/x\"\"\"\r\nd = 1979-05-27T07:32:00Z\n[x.\"y z\"]\n",
	})
}

func FuzzEnv(f *testing.F) {
	fuzz(f, document.Env, []string{"export A='cred://p/x' # c\nB=\"cred://p/y\"\nC=cred://p/z\n\nD\n", "A='it'\\''s'\r\nB=cred://p/x"})
}

// manyRefs makes a document of n services with a ref each.
func manyRefs(format document.Format, n int) []byte {
	var b strings.Builder
	write := func(s string, i int) { b.WriteString(strings.ReplaceAll(s, "%", string(appendInt(nil, i)))) }
	if format == document.JSON || format == document.JSON5 {
		b.WriteString("{\n")
	}
	for i := range n {
		switch format {
		case document.YAML:
			write("svc%:\n  # the database\n  host: db%.example\n  password:\n    provider: app\n    id: kv/app/db% # c\n    field: password\n", i)
		case document.JSON, document.JSON5:
			write("  \"svc%\": {\"host\": \"db%.example\", \"password\": {\"provider\": \"app\", \"id\": \"kv/app/db%\", \"field\": \"password\"}},\n", i)
		case document.TOML:
			write("[svc%]\nhost = \"db%.example\"\npassword = {provider = \"app\", id = \"kv/app/db%\", field = \"password\"}\n", i)
		case document.Env:
			write("HOST_%=db.example\nPASSWORD_%=cred://app/kv/app/db%#password\n", i)
		}
	}
	if format == document.JSON || format == document.JSON5 {
		b.WriteString("}\n")
	}
	return []byte(b.String())
}

func appendInt(b []byte, i int) []byte {
	if i >= 10 {
		b = appendInt(b, i/10)
	}
	return append(b, byte('0'+i%10))
}

func BenchmarkTenThousandRefs(b *testing.B) {
	run := func(name string, format document.Format, src []byte) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(src)))
			b.ReportAllocs()
			for b.Loop() {
				d, err := document.Parse("f", src, format, document.Options{})
				if err != nil {
					b.Fatal(err)
				}
				if n := len(d.Refs()); n != 10_000 {
					b.Fatalf("%d refs", n)
				}
				if _, err := d.Render(answer); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	for _, format := range document.Formats() {
		run(string(format), format, manyRefs(format, 10_000))
	}
	for _, table := range []struct{ name, lines string }{
		{"toml tables in their place", "[svc%]\nhost = \"db%.example\"\n[svc%.password]\nprovider = \"app\"\nid = \"kv/app/db%\"\n"},
		{"toml tables of one parent", "[svc.password%]\nprovider = \"app\"\nid = \"kv/app/db%\"\n[other%]\n"},
		{"toml array of tables", "[[svc.password]]\nprovider = \"app\"\nid = \"kv/app/db%\"\n[other%]\n"},
		{"toml dotted keys", "password%.provider = \"app\"\npassword%.id = \"kv/app/db%\"\n"},
	} {
		var b strings.Builder
		for i := range 10_000 {
			b.WriteString(strings.ReplaceAll(table.lines, "%", string(appendInt(nil, i))))
		}
		run(table.name, document.TOML, []byte(b.String()))
	}
}
