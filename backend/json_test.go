package backend_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/backend"
)

// FuzzSecretFromJSON holds the text of a JSON string, and the JSON of a text, to what encoding/json makes of them.
func FuzzSecretFromJSON(f *testing.F) {
	for _, seed := range []string{
		`""`, `"plain"`, ` "spaced" `, `"\"\\\/\b\f\n\r\t"`, `"\u00e9\u20AC\ud83d\ude00"`, `"\ud800"`, `"\udc00\ud800x"`, `"\ud800\u0041"`, "\"\xff\xc3\"",
		"\"\u2028\"", "\"\x7f\"", `"a" x`, `"a`, `"`, `"\`, `"\u12"`, `"\x"`, "\"\n\"", `1`, ` { "a" : [ 1 ] } `, `null`, ``, `{`, "\u00a0\"x\"",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		given := bytes.Clone(in)
		s := backend.SecretFromJSON(in)
		if !bytes.Equal(in, given) {
			t.Fatal("the input was changed")
		}
		var text string
		isText := strings.HasPrefix(strings.TrimLeft(string(in), " \t\r\n"), `"`) && json.Unmarshal(in, &text) == nil
		if isText == s.IsJSON() || isText && string(s.Reveal()) != text {
			t.Fatalf("%q gave %q (JSON: %v), want %q", in, s.Reveal(), s.IsJSON(), text)
		}
		if !isText && json.Valid(in) {
			var compact bytes.Buffer
			if err := json.Compact(&compact, in); err != nil || !bytes.Equal(compact.Bytes(), s.Reveal()) {
				t.Fatalf("%q gave %q, want %q", in, s.Reveal(), compact.Bytes())
			}
		}
		var want bytes.Buffer
		enc := json.NewEncoder(&want)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(map[string]string{string(in): string(in)}); err != nil {
			t.Fatal(err)
		}
		got, err := backend.FieldsToJSON(map[string]backend.Secret{string(in): backend.NewSecret(in)})
		if err != nil || string(got)+"\n" != want.String() {
			t.Fatalf("%q gave %s, want %s", in, got, want.Bytes())
		}
	})
}

func TestJSONLeavesNoCopies(t *testing.T) { // not parallel, as it counts allocations
	in := []byte(`"` + strings.Repeat("a", 1000) + `"`)
	if n := testing.AllocsPerRun(100, func() { backend.SecretFromJSON(in) }); n > 5 {
		t.Errorf("%v allocations for a text without escapes", n)
	}
	fields := map[string]backend.Secret{"a": backend.NewSecretString(strings.Repeat("\x01\"\xffé ", 100_000)), "b": backend.NewJSONSecret([]byte(`[1]`))}
	out, err := backend.FieldsToJSON(fields)
	if err != nil || !json.Valid(out) {
		t.Errorf("%s, %v", out, err)
	}
	if n := testing.AllocsPerRun(5, func() { _, _ = backend.FieldsToJSON(fields) }); n > 10 {
		t.Errorf("%v allocations for an object, which has been grown", n)
	}
}
