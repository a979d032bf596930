package resolver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/go-openapi/jsonpointer"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// FuzzSelect compares what a pointer selects from a text with what a library selects from the decoded document.
func FuzzSelect(f *testing.F) {
	for _, seed := range []struct{ doc, pointer, want string }{
		{`{"a":{"b":["x",1.50,{"c/d":null}]}}`, "/a/b/1", "1.50"},
		{`{"a":{"b":["x",1.50,{"c/d":null}]}}`, "/a/b/2/c~1d", "null"},
		{`{"a":"x"}`, "/a", "x"},
		{`{"":{"":"empty"}}`, "//", "empty"},
		{`[[["deep"]]]`, "/0/0/0", "deep"},
		{`{"~1":"tilde"}`, "/~01", "tilde"},
		{`{"k":"<é>\u0041"}`, "/k", "<é>A"},
		{`{"n":12345678901234567890}`, "/n", "12345678901234567890"},
	} {
		got, err := selectText(seed.doc, seed.pointer)
		if err != nil || got != seed.want {
			f.Fatalf("the seed %s of %s gives %q, %v", seed.pointer, seed.doc, got, err)
		}
		f.Add(seed.doc, seed.pointer)
	}
	f.Fuzz(func(t *testing.T, doc, pointer string) {
		ref := credref.Ref{Provider: "p", ID: "k", Field: pointer}
		if !strings.HasPrefix(pointer, "/") || ref.Validate() != nil || !json.Valid([]byte(doc)) {
			return
		}
		got, err := selectText(doc, pointer)
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("error %q", err)
		}
		dec := json.NewDecoder(strings.NewReader(doc))
		dec.UseNumber()
		var decoded any
		if dec.Decode(&decoded) != nil {
			return
		}
		p, parseErr := jsonpointer.New(pointer)
		if parseErr != nil {
			t.Fatalf("a valid field is no pointer: %v", parseErr)
		}
		want, _, wantErr := p.Get(decoded)
		if (err == nil) != (wantErr == nil) {
			if _, isList := decoded.([]any); isList || strings.ContainsAny(pointer, "0123456789+-") {
				return // the library takes indexes that RFC 6901 does not
			}
			t.Fatalf("%s of %s: %v, the library: %v", pointer, doc, err, wantErr)
		}
		if err != nil {
			return
		}
		if text, ok := want.(string); ok {
			if got != text {
				t.Fatalf("%s of %s: got %q, want %q", pointer, doc, got, text)
			}
			return
		}
		var again any
		redec := json.NewDecoder(strings.NewReader(got))
		redec.UseNumber()
		if err := redec.Decode(&again); err != nil {
			t.Fatalf("%s of %s: %q is no JSON", pointer, doc, got)
		}
		a, _ := json.Marshal(again)
		b, _ := json.Marshal(want)
		if !bytes.Equal(a, b) {
			t.Fatalf("%s of %s: got %s, want %s", pointer, doc, a, b)
		}
	})
}

func selectText(doc, pointer string) (string, error) {
	c := &backend.Credential{Secret: backend.NewSecretString(doc)}
	c.Fields, _ = backend.FieldsFromJSON([]byte(doc))
	s, err := selectSecret(c, pointer)
	return string(s.Reveal()), err
}

func TestNothingPrintsASecret(t *testing.T) {
	t.Parallel()
	const canary = "c4nary-91c2"
	store := &flaky{get: twoFields(canary)}
	r := open(t, Provider{Backend: store})
	v, err := r.Resolve(t.Context(), field("db", "password"))
	want(t, v, err, canary)
	all := r.ResolveAll(t.Context(), []credref.Ref{ref("db"), field("db", "password"), field("db", "passwrd"), field("db", "/password/x")})
	h := r.Handle(ref("db"))
	defer h.Close()
	hv, err := h.Get(t.Context())
	for _, x := range []any{v, *v, all, h, hv, err, r.Stats(), all[2].Err, all[3].Err, r.Source(ref("db"))} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
			if s := fmt.Sprintf(verb, x); strings.Contains(s, canary) || strings.Contains(s, fmt.Sprintf("%x", canary)) {
				t.Errorf("%s of a %T shows the secret", verb, x)
			}
		}
		if b, err := json.Marshal(x); err == nil && bytes.Contains(b, []byte(canary)) {
			t.Errorf("the JSON of a %T shows the secret", x)
		}
	}
}
