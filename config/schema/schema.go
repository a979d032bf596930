// Package schema writes the JSON Schema of configuration files, for editors and for checks in other languages.
package schema

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/invopop/jsonschema"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
)

// Comments gives the text of a field's or type's documentation; field is empty for the type itself.
type Comments func(t reflect.Type, field string) string

// Generate gives the JSON Schema (draft 2020-12) of a configuration whose providers are of kinds.
func Generate(kinds *backend.Registry, comments Comments) ([]byte, error) {
	reflector := &jsonschema.Reflector{
		Anonymous: true, DoNotReference: true, ExpandedStruct: true, FieldNameTag: "yaml", RequiredFromJSONSchemaTags: true,
		Mapper: mapType,
	}
	if comments != nil {
		reflector.LookupComment = func(t reflect.Type, field string) string {
			return strings.Join(strings.Fields(comments(t, field)), " ")
		}
	}
	file, common := config.Types()
	root := reflector.ReflectFromType(file)
	root.Version, root.ID, root.Title = jsonschema.Version, "", "credresolve.yaml"
	root.Required = []string{"version"}
	if v, ok := root.Properties.Get("version"); ok {
		v.Const = 1
	}
	root.Definitions = jsonschema.Definitions{"ref": refSchema()}
	provider := &jsonschema.Schema{Type: "object", Required: []string{"kind"}, Properties: jsonschema.NewProperties()}
	names := make([]any, 0, len(kinds.Names()))
	for _, name := range kinds.Names() {
		kind, err := kinds.Lookup(name)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
		root.Definitions[name] = kindSchema(reflector, kind, common)
		is := jsonschema.NewProperties()
		is.Set("kind", &jsonschema.Schema{Const: name})
		provider.AllOf = append(provider.AllOf, &jsonschema.Schema{
			If:   &jsonschema.Schema{Properties: is, Required: []string{"kind"}},
			Then: &jsonschema.Schema{Ref: "#/$defs/" + name},
		})
	}
	provider.Properties.Set("kind", &jsonschema.Schema{Enum: names})
	if v, ok := root.Properties.Get("providers"); ok {
		v.AdditionalProperties = provider
		v.PropertyNames = &jsonschema.Schema{Pattern: "^[a-z][a-z0-9_-]{0,63}$"}
	}
	out, err := json.MarshalIndent(root, "", "  ")
	return append(out, '\n'), err
}

func kindSchema(reflector *jsonschema.Reflector, kind backend.Kind, common reflect.Type) *jsonschema.Schema {
	s := reflector.ReflectFromType(common)
	s.Version, s.ID, s.Description = "", "", kind.Summary
	if k, ok := s.Properties.Get("kind"); ok {
		k.Const, k.Type = kind.Name, ""
	}
	own := reflector.ReflectFromType(reflect.TypeOf(kind.NewConfig()).Elem())
	for p := own.Properties.Oldest(); p != nil; p = p.Next() {
		s.Properties.Set(p.Key, p.Value)
	}
	s.Required = append([]string{"kind"}, own.Required...)
	slices.Sort(s.Required)
	return s
}

func mapType(t reflect.Type) *jsonschema.Schema {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{
			{Type: "string", Pattern: `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`},
			{Const: 0},
		}}
	case reflect.TypeFor[backend.Source]():
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Ref: "#/$defs/ref"}, {Type: "string"}}}
	case reflect.TypeFor[credref.Ref]():
		return &jsonschema.Schema{Ref: "#/$defs/ref"}
	}
	return nil
}

func refSchema() *jsonschema.Schema {
	text := func(pattern string) *jsonschema.Schema {
		return &jsonschema.Schema{Type: "string", Pattern: pattern}
	}
	object := &jsonschema.Schema{Type: "object", Required: []string{"provider", "id"}, Properties: jsonschema.NewProperties(), AdditionalProperties: jsonschema.FalseSchema}
	object.Properties.Set("provider", text("^[a-z][a-z0-9_-]{0,63}$"))
	object.Properties.Set("id", &jsonschema.Schema{Type: "string"})
	object.Properties.Set("version", &jsonschema.Schema{Type: "string"})
	object.Properties.Set("field", &jsonschema.Schema{Type: "string"})
	return &jsonschema.Schema{
		Description: "A secret in another provider, never the secret itself.",
		AnyOf:       []*jsonschema.Schema{object, text("^cred://")},
	}
}
