package file

import (
	"bytes"
	"encoding/json"
	"testing"
)

// Whatever a file holds, parsing ends with a document whose every id can be found, or with a *syntaxError.
func FuzzParse(f *testing.F) {
	for _, seed := range []struct{ mode, content string }{
		{modeJSON, `{"a": [1, {"b\n": "c"}, []], "d": {}, "/e~": null}`},
		{modeYAML, "a: &x [1, {b: c}]\nd:\n  <<: {e: 1}\n  f: *x\n"},
		{modeDotenv, "export A='x'\nB=\"y\\n\" # c\nC=z\n"},
	} {
		if _, err := parse(seed.mode, []byte(seed.content), 1<<16); err != nil {
			f.Fatalf("seed %s: %v", seed.mode, err)
		}
		f.Add(seed.mode, []byte(seed.content))
	}
	f.Fuzz(func(t *testing.T, mode string, content []byte) {
		if len(content) > 1<<12 {
			return
		}
		kept := bytes.Clone(content)
		doc, err := parse(mode, content, 1<<16)
		if !bytes.Equal(content, kept) {
			t.Error("the content was changed")
		}
		if err != nil {
			if _, ok := err.(*syntaxError); !ok {
				t.Errorf("the error is a %T", err)
			}
			return
		}
		if !json.Valid(doc.text) {
			t.Fatalf("the text is not JSON: %q", doc.text)
		}
		for _, id := range doc.ids() {
			n, err := doc.find(id)
			if err != nil {
				t.Fatalf("the id %q: %v", id, err)
			}
			if !json.Valid(doc.text[n.start:n.end]) {
				t.Errorf("the id %q is %q", id, doc.text[n.start:n.end])
			}
			if c := doc.credential(n); c.Secret.IsZero() {
				t.Errorf("the id %q has no secret", id)
			}
		}
	})
}
