package conformance

import (
	"github.com/credresolve/credresolve/backend"
)

func fieldCases() []Case {
	return []Case{
		{
			Name: "fields/values", Capability: "fields", Rule: "a structured secret has the fields that were stored, and no others", Needs: []string{"get/value"},
			run: func(t *trial) {
				b := t.structured()
				want := map[string][]byte{"user": t.canary(), "Pass word": t.canary(), "empty": {}}
				if t.h.Limits.NoEmpty {
					delete(want, "empty")
				}
				id := t.id("fields")
				t.putFields(id, want)
				t.wantFields(t.mustGet(b, request(id)), want)
			},
		},
		{
			Name: "fields/types", Capability: "fields", Rule: "a field that is a JSON number, boolean, object or array keeps its text, and says that it is JSON",
			Needs: []string{"fields/values"},
			run: func(t *trial) {
				b := t.structured()
				id := t.id("fields")
				want := map[string]string{"number": "12345678901234567890.10", "flag": "true", "list": `[1,"a"]`, "object": `{"k":{"n":1}}`}
				if t.h.Limits.Floats {
					want["number"] = "1234.5"
				}
				fields := map[string]backend.Secret{"text": backend.NewSecretString("12")}
				for name, v := range want {
					fields[name] = backend.NewJSONSecret([]byte(v))
				}
				t.putValue(id, backend.Value{Fields: fields})
				c := t.mustGet(b, request(id))
				for name, v := range want {
					t.wantSecret("the field "+name, c.Fields[name], []byte(v))
					if !c.Fields[name].IsJSON() {
						t.Errorf("the field %s: expected it to say that it is JSON, saw a text", name)
					}
				}
				t.wantSecret("the field text", c.Fields["text"], []byte("12"))
				if c.Fields["text"].IsJSON() {
					t.Errorf("the field text: expected a text, saw JSON")
				}
			},
		},
		{
			Name: "fields/json-text", Capability: "fields", Rule: "a plain secret whose text is a JSON object has its members as fields, and its text unchanged",
			Needs: []string{"get/value"},
			run: func(t *trial) {
				b := t.structured()
				id := t.id("json")
				text := []byte(`{ "user":"u",  "port":5432 }`)
				t.putValue(id, plainValue(text))
				c := t.mustGet(b, request(id))
				if c.Secret.IsZero() {
					t.Skipf("needs a store that holds plain secrets: this one gives fields only")
				}
				t.wantSecret("the secret", c.Secret, text)
				t.wantFields(c, map[string][]byte{"user": []byte("u"), "port": []byte("5432")})
			},
		},
	}
}

// structured opens a backend that has fields, or skips the case.
func (t *trial) structured() backend.Backend {
	b := t.open()
	t.need(backend.Describe(b).Fields, "the capability fields", "set Description.Fields where credentials may have fields")
	return b
}

func (t *trial) putFields(id string, fields map[string][]byte) {
	v := backend.Value{Fields: make(map[string]backend.Secret, len(fields))}
	for name, f := range fields {
		v.Fields[name] = backend.NewSecret(f)
	}
	t.putValue(id, v)
}

func (t *trial) wantFields(c *backend.Credential, want map[string][]byte) {
	for name, v := range want {
		f, ok := c.Fields[name]
		if !ok {
			t.Errorf("the field %q: expected it, saw a credential without it", name)
			continue
		}
		t.wantSecret("the field "+name, f, v)
	}
	if len(c.Fields) > len(want) {
		t.Errorf("the fields: expected %d, saw %d", len(want), len(c.Fields))
	}
}
