package json5

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func parse(t *testing.T, text string) *File {
	t.Helper()
	f, err := Parse([]byte(text))
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return f
}

func TestValue(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]any{
		`null`:                                  nil,
		` true // yes`:                          true,
		"\ufeff'it\\'s'":                        "it's",
		`"\x41\u00e9\ud83d\ude00\` + "\n" + `"`: "Aé😀",
		`12.5e3`:                                json.Number("12.5e3"),
		`0x10`:                                  16.0,
		`-0xff`:                                 -255.0,
		`+.5`:                                   0.5,
		`-Infinity`:                             math.Inf(-1),
		`1e999`:                                 json.Number("1e999"),
		`[1, 'a', [], {},]`:                     []any{json.Number("1"), "a", []any{}, map[string]any{}},
		`{a: 1, "b c": {$d_1: false,}, a: 2}`:   map[string]any{"a": json.Number("2"), "b c": map[string]any{"$d_1": false}},
		`{/* one */ "__proto__": 'x' // two` + "\n}": map[string]any{"__proto__": "x"},
	} {
		if got := parse(t, text).Root().Value(); !reflect.DeepEqual(got, want) {
			t.Errorf("%q is %#v, want %#v", text, got, want)
		}
	}
	if got := parse(t, "NaN").Root().Value().(float64); !math.IsNaN(got) {
		t.Errorf("NaN is %v", got)
	}
}

func TestParseErrorsNameThePlace(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                          "1:1: a value is missing",
		"{\n  a: s3cret\n}":         "2:6: a value is expected",
		"{\n  é: 's3cret', b c: 1}": "2:18: a colon is expected after a key",
		"['s3cret\n']":              "1:9: a control character or the end of the line within a string",
		"[1] s3cret":                "1:5: something follows the end of the document",
		"{a: [}":                    "1:6: a value is expected",
		"{a: 's3cret":               "1:5: a string without its end",
		"[1 /* s3cret":              "1:4: a comment without its end",
		"\"\xff\"":                  "1:2: the document is not UTF-8",
		strings.Repeat("[", 1001):   "1:1001: more than 1000 levels of nesting",
	} {
		_, err := Parse([]byte(text))
		if err == nil || err.Error() != want {
			t.Errorf("%.20q: %v, want %s", text, err, want)
		}
	}
}

func TestGet(t *testing.T) {
	t.Parallel()
	f := parse(t, "{\n  a: [{'b/c': 1}, 2],\n  d: 3, d: 4,\n}")
	for path, want := range map[string]string{"a.0.b/c": "1", "a.1": "2", "d": "4"} {
		n := f.Root().Get(strings.Split(path, ".")...)
		if n == nil || f.Text()[n.Start:n.End] != want {
			t.Errorf("%s is %v", path, n)
		}
	}
	for _, path := range []string{"x", "a.2", "a.00", "a.b", "a.1.x", "d.e", "a.-1"} {
		if n := f.Root().Get(strings.Split(path, ".")...); n != nil {
			t.Errorf("%s is there", path)
		}
	}
	n := f.Root().Get("a", "1")
	if line, column := f.Place(n.Start); line != 2 || column != 19 {
		t.Errorf("it stands at %d:%d", line, column)
	}
	if got := f.Twice(); !reflect.DeepEqual(got, []string{"d"}) {
		t.Errorf("twice: %v", got)
	}
}

// cases of testdata/edits.txt: before, edits, after, apart by lines of dashes.
func edits(t *testing.T) (cases [][4]string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "edits.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range strings.Split(string(text), "\n==== ")[1:] {
		name, rest, _ := strings.Cut(one, "\n")
		parts := strings.Split(rest+"\n", "----\n")
		if len(parts) != 3 {
			t.Fatalf("%s has %d parts", name, len(parts))
		}
		cases = append(cases, [4]string{name, parts[0], parts[1], strings.TrimSuffix(parts[2], "\n")})
	}
	return cases
}

// readEdits reads lines of a JSON Pointer and a JSON value, or of a pointer alone, which deletes.
func readEdits(t testing.TB, text string) (list []Edit) {
	t.Helper()
	for line := range strings.Lines(text) {
		pointer, value, set := strings.Cut(strings.TrimSpace(line), " ")
		e := Edit{Delete: !set}
		if pointer != "/" {
			for _, step := range strings.Split(pointer, "/")[1:] {
				e.Path = append(e.Path, strings.NewReplacer("~1", "/", "~0", "~").Replace(step))
			}
		}
		if set {
			if !json.Valid([]byte(value)) {
				t.Fatalf("%s is no JSON", value)
			}
			e.Value = json.RawMessage(value)
		}
		list = append(list, e)
	}
	return list
}

func TestApply(t *testing.T) {
	t.Parallel()
	cases := edits(t)
	if len(cases) < 25 {
		t.Fatalf("there are %d cases alone", len(cases))
	}
	for _, c := range cases {
		t.Run(c[0], func(t *testing.T) {
			t.Parallel()
			before, want := strings.TrimSuffix(c[1], "\n"), strings.TrimSuffix(c[3], "\n")
			out, err := parse(t, before).Apply(readEdits(t, c[2]))
			got := string(out)
			if err != nil {
				got = "error: " + err.Error()
			}
			if got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if err == nil {
				again, err := parse(t, got).Apply(readEdits(t, c[2]))
				if err != nil || string(again) != got {
					if !strings.Contains(c[0], "once") {
						t.Errorf("a second time: %v\n%s", err, again)
					}
				}
			}
		})
	}
}

func TestApplyKeepsCarriageReturnsAndTheMark(t *testing.T) {
	t.Parallel()
	out, err := parse(t, "\ufeff{\r\n\ta: 1, // one\r\n}\r\n").Apply(readEdits(t, "/b {\"c\":true}\n"))
	if want := "\ufeff{\r\n\ta: 1, // one\r\n\tb: {\r\n\t\tc: true\r\n\t},\r\n}\r\n"; err != nil || string(out) != want {
		t.Errorf("%v: got %q, want %q", err, out, want)
	}
}

func TestApplyRefusesWithoutShowingValues(t *testing.T) {
	t.Parallel()
	_, err := parse(t, "{a: 1}").Apply([]Edit{{Path: []string{"a", "b"}, Value: "s3cret"}})
	if err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Error(err)
	}
	if _, err := parse(t, "{a: 1}").Apply([]Edit{{Path: []string{"a"}, Value: math.NaN()}}); err == nil {
		t.Error("NaN was taken")
	}
	if _, err := parse(t, "{a: 1}").Apply([]Edit{{Delete: true}}); err == nil {
		t.Error("the document was deleted")
	}
}

// commentsOf gives the comments of a text.
func commentsOf(text string) (all []string) {
	r := &reader{s: text, json5: true, h: &builder{}}
	on := linesOf(text)
	for r.i < len(r.s) {
		switch c := r.s[r.i]; {
		case c == '"' || c == '\'':
			if _, err := r.text(); err != nil {
				return all
			}
		case strings.HasPrefix(r.s[r.i:], "//"):
			end := on.end(r.i)
			all = append(all, strings.TrimSpace(text[r.i:end]))
			r.i = end
		case strings.HasPrefix(r.s[r.i:], "/*"):
			end := r.i + 2 + strings.Index(text[r.i+2:], "*/") + 2
			all = append(all, text[r.i:end])
			r.i = end
		default:
			r.i++
		}
	}
	return all
}

func FuzzApply(f *testing.F) {
	seeds := 0
	text, err := os.ReadFile(filepath.Join("testdata", "edits.txt"))
	if err != nil {
		f.Fatal(err)
	}
	for _, one := range strings.Split(string(text), "\n==== ")[1:] {
		_, rest, _ := strings.Cut(one, "\n")
		if parts := strings.Split(rest, "----\n"); len(parts) == 3 {
			for line := range strings.Lines(parts[1]) {
				pointer, value, _ := strings.Cut(strings.TrimSpace(line), " ")
				f.Add(parts[0], pointer, value)
				seeds++
			}
		}
	}
	if seeds < 25 {
		f.Fatalf("there are %d seeds alone", seeds)
	}
	f.Fuzz(func(t *testing.T, text, pointer, value string) {
		file, err := Parse([]byte(text))
		if err != nil || value != "" && !json.Valid([]byte(value)) {
			return
		}
		list := []Edit{{Delete: value == "", Value: json.RawMessage(value)}}
		if pointer != "" {
			list[0].Path = strings.Split(strings.TrimPrefix(pointer, "/"), "/")
		}
		out, err := file.Apply(list)
		if err != nil {
			if strings.Contains(err.Error(), "mistake of credresolve") {
				t.Errorf("%q %v %s: %v", text, list[0].Path, value, err)
			}
			return
		}
		if !list[0].Delete && !strings.ContainsAny(value, "[{") { // these may take out what they do not hold
			if before, after := commentsOf(text), commentsOf(string(out)); !reflect.DeepEqual(before, after) {
				t.Errorf("%q %v %s: comments were %q, are %q", text, list[0].Path, value, before, after)
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{`{a: 1, 'b': [0x1f, +.5, NaN], "c": "\u00e9\x41"}`, "// c\n[/* d */ null,]", "\ufeff-Infinity", `{"a": {"b": []}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		file, err := Parse(src)
		if err != nil {
			return
		}
		out, err := file.Apply(nil)
		if err != nil || string(out) != string(src) {
			t.Fatalf("%q became %q: %v", src, out, err)
		}
		var plain any
		if json.Unmarshal(src, &plain) == nil && !same(file.root, mustEncode(t, plain, file)) {
			t.Errorf("%q reads differently than in encoding/json", src)
		}
	})
}

// mustEncode makes a tree of what encoding/json read, in the order of file.
func mustEncode(t *testing.T, v any, file *File) *Node {
	t.Helper()
	n, err := encode(v)
	if err != nil {
		t.Fatal(err)
	}
	if file.Twice() != nil {
		return file.root
	}
	n.adopt(file.root)
	return n
}

// What takes the square of the size here does not end within the time of a test.
func TestApplyToOneLongLine(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString(`{"first":{}`)
	for i := range 60_000 {
		fmt.Fprintf(&b, `,"key %d":{"a":[1]}`, i)
	}
	b.WriteString("}")
	text := b.String()
	got, err := parse(t, text).Apply([]Edit{
		{Path: []string{"first", "new"}, Value: "v"},
		{Path: []string{"key 59998"}, Delete: true},
		{Path: []string{"last"}, Value: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(text, `"first":{}`, `"first":{"new":"v"}`, 1)
	want = strings.Replace(want, `"key 59998":{"a":[1]},`, "", 1)
	want = strings.TrimSuffix(want, "}") + `,"last":true}`
	if string(got) != want {
		t.Errorf("the text has %d bytes, want %d, and ends %q", len(got), len(want), got[max(0, len(got)-80):])
	}
}
