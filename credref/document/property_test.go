package document_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/joho/godotenv"
	"github.com/pelletier/go-toml/v2"
	"pgregory.net/rapid"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref/document"
)

// texts draws what passwords, keys and certificates look like, and what breaks quoting.
func texts() *rapid.Generator[string] {
	pieces := rapid.SampledFrom([]string{
		"a", "Z", "0", " ", "  ", "'", "\"", "\\", "`", "$", "${X}", "$(x)", "#", " #", ":", ": ", "- ", "\n", "\n\n", "\t", "\r", "\r\n", "{", "}", "[", "]", ",", "&a", "*a", "!", "|", ">", "%", "@",
		"no", "null", "~", "1e3", "0x1F", "true", "---", "...", "<<", "=", "\\n", "\\u0041", "\u0085", "\u00a0", "\u2028", "\ufeff", "\ufffe", "é", "漢", "😀", "\x00", "\x01", "\x1b", "\x7f", "//", "/*", "'''", "\"\"\"", "cred://p/x",
	})
	return rapid.OneOf(
		rapid.Map(rapid.SliceOfN(pieces, 0, 12), func(s []string) string { return strings.Join(s, "") }),
		rapid.StringOf(rapid.Rune()), rapid.StringMatching(`[ -~]{0,40}`),
	)
}

// put renders a document of one ref with a value in its place.
func put(t interface{ Fatalf(string, ...any) }, format document.Format, in string, value backend.Secret) ([]byte, error) {
	d, err := document.Parse("in", []byte(in), format, document.Options{})
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	return d.Render(func(*document.Site) (document.Replacement, error) { return document.Replacement{Secret: value}, nil })
}

// What Render writes reads back as exactly the text, through a reader that is not ours.
func TestTextsReadBack(t *testing.T) {
	t.Parallel()
	type doc = map[string]any
	for _, tt := range []struct {
		name   string
		format document.Format
		in     string
		read   func([]byte) (any, error)
	}{
		{"YAML block", document.YAML, "a:\n  provider: p\n  id: x\nb: 1\n", func(b []byte) (any, error) { v := doc{}; err := yaml.Unmarshal(b, &v); return v["a"], err }},
		{"YAML flow", document.YAML, "{a: [cred://p/x], b: 1}\n", func(b []byte) (any, error) {
			var v struct{ A []any }
			err := yaml.Unmarshal(b, &v)
			return append(v.A, nil)[0], err
		}},
		{"JSON", document.JSON, `{"a": "cred://p/x"}`, func(b []byte) (any, error) { v := doc{}; err := json.Unmarshal(b, &v); return v["a"], err }},
		{"TOML table", document.TOML, "[b]\nc = 1\n[a] # c\nprovider = 'p'\nid = 'x'\n", func(b []byte) (any, error) { v := doc{}; err := toml.Unmarshal(b, &v); return v["a"], err }},
		{"TOML dotted keys", document.TOML, "a.provider = 'p'\nb = 1\na.id = 'x' # c\n", func(b []byte) (any, error) { v := doc{}; err := toml.Unmarshal(b, &v); return v["a"], err }},
		{"TOML array of tables", document.TOML, "[[a]]\nprovider = 'p'\nid = 'x'\n[b]\n", func(b []byte) (any, error) {
			var v struct{ A []any }
			err := toml.Unmarshal(b, &v)
			return append(v.A, nil)[0], err
		}},
		{"TOML", document.TOML, "a = {provider = 'p', id = 'x'}\nb = 1\n", func(b []byte) (any, error) { v := doc{}; err := toml.Unmarshal(b, &v); return v["a"], err }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) {
				text := texts().Draw(t, "text")
				out, err := put(t, tt.format, tt.in, backend.NewSecretString(text))
				if !utf8.ValidString(text) {
					t.Skip("not UTF-8")
				}
				if err != nil {
					t.Fatalf("Render: %v", err)
				}
				got, err := tt.read(out)
				if err != nil || got != text {
					t.Fatalf("%q reads back as %q, %v", out, got, err)
				}
				// Our own reader agrees, too: what it reads holds no ref, or the one that the text is.
				if d, err := document.Parse("out", out, tt.format, document.Options{}); err == nil {
					again, _ := d.Render(func(s *document.Site) (document.Replacement, error) {
						return document.Replacement{Secret: backend.NewSecretString(text)}, nil
					})
					if !bytes.Equal(again, out) {
						t.Fatalf("%q became %q", out, again)
					}
				} else if !strings.HasPrefix(text, "cred://") {
					t.Fatalf("our own reader: %v", err)
				}
			})
		})
	}
}

func TestEnvTextsReadBack(t *testing.T) {
	t.Parallel()
	var script strings.Builder
	var want []string
	rapid.Check(t, func(t *rapid.T) {
		text := texts().Draw(t, "text")
		out, err := put(t, document.Env, "A=cred://p/x # c\nB=1\n", backend.NewSecretString(text))
		if err != nil {
			if backend.CodeOf(err) != backend.CodeUnsupported {
				t.Fatalf("Render: %v", err)
			}
			return
		}
		got, err := godotenv.UnmarshalBytes(out)
		if err != nil || got["A"] != text || got["B"] != "1" {
			t.Fatalf("%q reads back as %q, %v", out, got, err)
		}
		if d, err := document.Parse("out", out, document.Env, document.Options{}); err == nil {
			if vars, err := d.Env(); err != nil || vars[0].Site == nil && vars[0].Value != text {
				t.Fatalf("%q: our own reader gives %v", out, err)
			}
		} else if !strings.HasPrefix(text, "cred://") {
			t.Fatalf("our own reader: %v", err)
		}
		if len(want) < 200 {
			fmt.Fprintf(&script, "%s\nprintf '%%s\\0' \"$A\"\n", out)
			want = append(want, text)
		}
	})
	if len(want) < 20 {
		t.Fatalf("only %d texts could be written", len(want))
	}
	t.Run("shell", func(t *testing.T) {
		shell, err := exec.LookPath("sh")
		if err != nil {
			t.Skip("needs a POSIX shell: install sh")
		}
		cmd := exec.Command(shell, "-s")
		cmd.Stdin = strings.NewReader(script.String())
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
		if !reflect.DeepEqual(got, want) {
			t.Errorf("the shell reads %q, want %q", got, want)
		}
	})
}

// JSON values keep their types in every format.
func TestJSONValuesReadBack(t *testing.T) {
	t.Parallel()
	var draw func(depth int, null bool) *rapid.Generator[any]
	draw = func(depth int, null bool) *rapid.Generator[any] {
		return rapid.Custom(func(t *rapid.T) any {
			kinds := 4
			if depth > 0 {
				kinds = 6
			}
			switch rapid.IntRange(0, kinds).Draw(t, "kind") {
			case 0:
				return rapid.Bool().Draw(t, "bool")
			case 1:
				return float64(rapid.IntRange(-1<<40, 1<<40).Draw(t, "int"))
			case 2:
				return rapid.SampledFrom([]float64{1.5, -0.25, 1e30, 5e-9}).Draw(t, "float")
			case 3:
				return strings.ToValidUTF8(texts().Draw(t, "text"), "")
			case 4:
				if null {
					return nil
				}
				return "x"
			case 5:
				return rapid.SliceOfN(draw(depth-1, null), 0, 3).Draw(t, "list")
			}
			key := rapid.OneOf(rapid.Map(texts(), func(s string) string { return strings.ToValidUTF8(s, "") }), rapid.Just(strings.Repeat("k", 1100)))
			return rapid.MapOfN(key, draw(depth-1, null), 0, 3).Draw(t, "map")
		})
	}
	normal := func(t *rapid.T, v any) string { // numbers of any Go type as JSON says them
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatalf("%v", err)
		}
		var f any
		_ = json.Unmarshal(b, &f)
		b, _ = json.Marshal(f)
		return string(b)
	}
	for _, tt := range []struct {
		name   string
		format document.Format
		in     string
		read   func([]byte, any) error
		null   bool
	}{
		{"YAML", document.YAML, "a: cred://p/x # c\nb: 1\n", func(b []byte, v any) error { return yaml.Unmarshal(b, v) }, true},
		{"JSON", document.JSON, `{"a": "cred://p/x"}`, json.Unmarshal, true},
		{"TOML", document.TOML, "a = 'cred://p/x' # c\nb = 1\n", toml.Unmarshal, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) {
				value := draw(3, tt.null).Draw(t, "value")
				var b bytes.Buffer
				enc := json.NewEncoder(&b)
				enc.SetIndent("", rapid.SampledFrom([]string{"", " "}).Draw(t, "indent"))
				if err := enc.Encode(value); err != nil {
					t.Fatalf("%v", err)
				}
				out, err := put(t, tt.format, tt.in, backend.NewJSONSecret(b.Bytes()))
				if err != nil {
					t.Fatalf("Render: %v", err)
				}
				var got map[string]any
				if err := tt.read(out, &got); err != nil {
					t.Fatalf("%q: %v", out, err)
				}
				if g, w := normal(t, got["a"]), normal(t, value); g != w {
					t.Fatalf("%q reads back as %s, want %s", out, g, w)
				}
			})
		})
	}
}

// writer writes one document twice: with refs, and with the values in their place.
type writer struct{ in, want strings.Builder }

func (w *writer) both(s string)     { w.in.WriteString(s); w.want.WriteString(s) }
func (w *writer) ref(in, id string) { w.in.WriteString(in); w.want.WriteString(`"` + id + `"`) }

// node writes a value of YAML at an indentation, after an indicator.
func (w *writer) node(t *rapid.T, indent, depth int, n *int) {
	pad := strings.Repeat(" ", indent)
	kind := rapid.IntRange(0, 8).Draw(t, "kind")
	if depth == 0 {
		kind %= 5
	}
	*n++
	id := fmt.Sprintf("id%d", *n)
	comment := rapid.SampledFrom([]string{"", " # c: {}", "  \t# 'x"}).Draw(t, "comment")
	anchor := rapid.SampledFrom([]string{"", " &a" + id}).Draw(t, "anchor")
	switch kind {
	case 0:
		w.both(" " + rapid.SampledFrom([]string{"plain text", "5", "'it''s: #x'", "\"q\\\" # \\\n   next\"", "a\n" + pad + " b c", "", "[1, {a: 'x, y'}]", "{a: b, \"c\":d}"}).Draw(t, "scalar") + comment + "\n")
	case 1:
		w.both(rapid.SampledFrom([]string{" |", " >-", " |+"}).Draw(t, "block") + "\n" + pad + " see cred://p/no\n" + pad + "   # x: y\n\n" + pad + " z\n")
	case 2:
		w.both(anchor + " ")
		w.ref("cred://p/"+id, id)
		w.both(comment + "\n")
	case 3:
		w.both(anchor + " [x, ")
		w.ref("{provider: p, # c\n"+pad+"  id: "+id+"}", id)
		w.both(" , 'y' ]" + comment + "\n")
	case 4:
		w.both(anchor)
		w.in.WriteString("\n" + pad + " provider: p" + comment + "\n" + pad + " # c\n" + pad + " id: '" + id + "'")
		w.want.WriteString(` "` + id + `"`)
		w.both(comment + "\n")
	case 5, 6:
		w.both(anchor + comment + "\n")
		for i := range rapid.IntRange(1, 3).Draw(t, "entries") {
			w.both(pad + " k" + fmt.Sprint(i) + ":")
			w.node(t, indent+1, depth-1, n)
			if i == 1 {
				w.both("\n" + pad + "# between\n")
			}
		}
	default:
		w.both(anchor + "\n")
		for range rapid.IntRange(1, 3).Draw(t, "items") {
			w.both(pad + " -")
			w.node(t, indent+1, depth-1, n)
		}
	}
}

// Every byte that is no part of a ref survives, whatever is around it.
func TestYAMLBytesSurvive(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var w writer
		n := 0
		for i := range rapid.IntRange(1, 3).Draw(t, "keys") {
			w.both(fmt.Sprintf("top%d:", i))
			w.node(t, 0, 3, &n)
		}
		in, want := w.in.String(), w.want.String()
		if rapid.Bool().Draw(t, "CRLF") {
			in, want = strings.ReplaceAll(in, "\n", "\r\n"), strings.ReplaceAll(want, "\n", "\r\n")
		}
		d, err := document.Parse("in", []byte(in), document.YAML, document.Options{})
		if err != nil {
			t.Fatalf("%v\n%s", err, in)
		}
		out, err := d.Render(answer)
		if err != nil {
			t.Fatalf("%v\n%s", err, in)
		}
		if string(out) != want {
			t.Fatalf("in\n%s\ngot\n%s\nwant\n%s", in, out, want)
		}
	})
}

// tomlDocument draws lines of TOML; many a document is not valid.
func tomlDocument(t *rapid.T) string {
	name := rapid.SampledFrom([]string{"a", "b", "c", "'x y'", "\"\\u00fc\""})
	names := rapid.Map(rapid.SliceOfN(name, 1, 3), func(s []string) string {
		return strings.Join(s, rapid.SampledFrom([]string{".", " . "}).Draw(t, "dot"))
	})
	comment := rapid.SampledFrom([]string{"", "", " # c", "\t# [x] 'y"})
	var b strings.Builder
	n := 0
	line := func(s string) { b.WriteString(s + comment.Draw(t, "comment") + "\n") }
	ref := func(prefix string) {
		n++
		lines := []string{prefix + "provider = 'p'", prefix + fmt.Sprintf("id = 'id%d'", n)}
		if rapid.IntRange(0, 3).Draw(t, "more") == 0 {
			lines = append(lines, prefix+"version = 3", prefix+"fallback = [ 'cred://p/f', # c\n {provider = 'p', id = 'g'} ]")
		}
		for _, one := range rapid.Permutation(lines).Draw(t, "order") {
			line(one)
		}
	}
	body := func() {
		for range rapid.IntRange(0, 2).Draw(t, "lines") {
			n++
			switch rapid.IntRange(0, 4).Draw(t, "line") {
			case 0:
				line(fmt.Sprintf("k%d = [ 1,\n 2 ]", n))
			case 1:
				line(names.Draw(t, "dotted") + ".k = 1")
			case 2:
				line(fmt.Sprintf("k%d = {provider = 'p', id = 'id%d'}", n, n))
			case 3:
				line("\n# c")
			default:
				ref(names.Draw(t, "dotted ref") + ".")
			}
		}
	}
	body()
	for range rapid.IntRange(0, 6).Draw(t, "tables") {
		header := names.Draw(t, "header")
		switch rapid.IntRange(0, 6).Draw(t, "table") {
		case 0:
			line("[" + header + "]")
			body()
		case 1:
			line("[[" + header + "]]")
			body()
		case 2:
			for range rapid.IntRange(1, 3).Draw(t, "items") {
				line("[[" + header + "]]")
				ref("")
			}
		case 3:
			line("[" + header + "]")
			ref("")
			line("[" + header + ".fallback]")
			ref("")
		default:
			line(" [ " + header + "\t]")
			ref("")
		}
	}
	text := b.String()
	if rapid.Bool().Draw(t, "last line") {
		text = strings.TrimSuffix(text, "\n")
	}
	if rapid.Bool().Draw(t, "CRLF") {
		text = strings.ReplaceAll(text, "\n", "\r\n")
	}
	return text
}

// answered gives a decoded document with the ids of its refs in their place.
func answered(v any) any {
	switch v := v.(type) {
	case string:
		return strings.TrimPrefix(v, "cred://p/")
	case []any:
		for i := range v {
			v[i] = answered(v[i])
		}
	case map[string]any:
		_, isRef := v["provider"].(string)
		id, ok := v["id"].(string)
		isRef = isRef && ok
		for key := range v {
			isRef = isRef && (key == "provider" || key == "id" || key == "version" || key == "fallback")
		}
		if isRef {
			return id
		}
		for key := range v {
			v[key] = answered(v[key])
		}
	}
	return v
}

// Wherever tables that are refs stand, the document reads as it did, but for the values in their place.
func TestTOMLTablesReadBack(t *testing.T) {
	t.Parallel()
	var valid, refs, sites int
	rapid.Check(t, func(t *rapid.T) {
		in := tomlDocument(t)
		var want map[string]any
		if err := toml.Unmarshal([]byte(in), &want); err != nil {
			return
		}
		d, err := document.Parse("in", []byte(in), document.TOML, document.Options{})
		if err != nil {
			if !strings.Contains(err.Error(), "not all are refs") && !strings.Contains(err.Error(), "fallback must be") && !strings.Contains(err.Error(), "fallback of its own") {
				t.Fatalf("%v\n%s", err, in)
			}
			return
		}
		out, err := d.Render(answer)
		if err != nil {
			t.Fatalf("%v\n%s", err, in)
		}
		var got map[string]any
		if err := toml.Unmarshal(out, &got); err != nil {
			t.Fatalf("%v\nin\n%s\nout\n%s", err, in, out)
		}
		if !reflect.DeepEqual(got, answered(want)) {
			t.Fatalf("in\n%s\nout\n%s\nreads as %v, want %v", in, out, got, want)
		}
		last := 0
		for _, s := range d.Refs() {
			at := s.Line<<16 + s.Column
			if at <= last {
				t.Fatalf("%s is out of order in\n%s", s.Path, in)
			}
			last = at
		}
		valid++
		if sites += len(d.Refs()); len(d.Refs()) > 1 {
			refs++
		}
	})
	t.Logf("%d documents, %d with several of the %d refs", valid, refs, sites)
	if valid < 20 || refs < 5 {
		t.Errorf("only %d valid documents, %d with several refs", valid, refs)
	}
}
