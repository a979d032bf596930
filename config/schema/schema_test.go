package schema_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/credresolve/credresolve/adapters/memory"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config/schema"
)

func compile(t *testing.T) *jsonschema.Schema {
	t.Helper()
	src, err := schema.Generate(backend.NewRegistry(memory.Kind()), nil)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(src))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("credresolve.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("credresolve.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSchemaAgreesWithTheLoader(t *testing.T) {
	t.Parallel()
	s := compile(t)
	for _, tt := range []struct {
		name, content string
		valid         bool
	}{
		{"smallest", "version: 1", true},
		{"all", "version: 1\ncache: {entries: 5}\nlimits: {timeout: 5s, breaker: {failures: 0}}\nrefs: short\nignore: [/a]\nproviders:\n  m: {kind: memory, values: {a: b}, cache: {ttl: 0, max_stale: 1h30m}, scope: [end_user], types: {\"*\": token}}", true},
		{"no version", "providers: {}", false},
		{"version 2", "version: 2", false},
		{"unknown key", "version: 1\nfoo: 1", false},
		{"unknown kind", "version: 1\nproviders: {m: {kind: nope}}", false},
		{"no kind", "version: 1\nproviders: {m: {values: {a: b}}}", false},
		{"unknown setting", "version: 1\nproviders: {m: {kind: memory, vlaues: {}}}", false},
		{"name", "version: 1\nproviders: {M: {kind: memory}}", false},
		{"duration", "version: 1\nlimits: {timeout: soon}", false},
		{"scope", "version: 1\nproviders: {m: {kind: memory, scope: [user]}}", false},
	} {
		var doc any
		if err := yaml.Unmarshal([]byte(tt.content), &doc); err != nil {
			t.Fatal(err)
		}
		asJSON, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(instance); (err == nil) != tt.valid {
			t.Errorf("%s: valid %v, want %v: %v", tt.name, err == nil, tt.valid, err)
		}
	}
}
