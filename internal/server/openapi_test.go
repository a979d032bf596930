package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/invopop/jsonschema"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/godoc"
	"github.com/credresolve/credresolve/resolver"
)

var update = flag.Bool("update", false, "write openapi.json anew")

// The document that is served is the one of the routes and the Go types, with their comments.
func TestOpenAPIIsOfTheTypes(t *testing.T) {
	t.Parallel()
	want, err := generateOpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("openapi.json", want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(openAPI, want) {
		t.Error("openapi.json is not of the routes and types any more; run: go generate ./internal/server")
	}
}

type object = map[string]any

// generateOpenAPI makes the OpenAPI 3.1 document of routes.
func generateOpenAPI() ([]byte, error) {
	comments := godoc.New("../..")
	reflector := &jsonschema.Reflector{
		Anonymous: true, DoNotReference: true, ExpandedStruct: true,
		LookupComment: func(t reflect.Type, field string) string {
			return strings.Join(strings.Fields(comments.Of(t, field)), " ")
		},
		Mapper: wireType,
	}
	schemas := object{}
	ref := func(v any) object {
		name := reflect.TypeOf(v).Name()
		if schemas[name] == nil {
			s := reflector.ReflectFromType(reflect.TypeOf(v))
			s.Version, s.ID = "", ""
			schemas[name] = s
		}
		return object{"$ref": "#/components/schemas/" + name}
	}
	media := func(kind string, v any) object {
		if v == nil {
			return object{kind: object{}}
		}
		return object{kind: object{"schema": ref(v)}}
	}
	paths := object{}
	for _, r := range routes() {
		op := object{"operationId": operationID(r), "summary": r.summary}
		var parameters []object
		for _, p := range r.query {
			parameters = append(parameters, object{"name": p.name, "in": "query", "required": p.name == "ref", "description": p.about, "schema": parameterSchema(r, p)})
		}
		if _, name, found := strings.Cut(r.path, "{"); found {
			parameters = append(parameters, object{"name": strings.TrimSuffix(name, "}"), "in": "path", "required": true, "schema": object{"type": "string"}})
		}
		if parameters != nil {
			op["parameters"] = parameters
		}
		if r.takes != nil {
			op["requestBody"] = object{"required": true, "content": media("application/json", r.takes)}
		}
		kind := "application/json"
		if r.contentType != "" {
			kind = r.contentType
		}
		responses := object{}
		switch {
		case r.path == "/v1/sessions" && r.method == "POST":
			responses["201"] = object{"description": "Created.", "content": media(kind, r.gives)}
		case r.method == "HEAD":
			responses["200"] = object{"description": "It is there."}
		case r.gives == nil && r.contentType == "":
			responses["204"] = object{"description": "Done."}
		default:
			responses["200"] = object{"description": "OK.", "content": media(kind, r.gives)}
		}
		if r.method == "GET" && r.path == "/v1/resolve" {
			responses["304"] = object{"description": "The revision is that of If-None-Match."}
		}
		if r.path == "/readyz" {
			responses["503"] = object{"description": "Not ready.", "content": media(kind, r.gives)}
		}
		for _, c := range append(slices.Clone(r.codes), backend.CodeUsage, backend.CodeAuthRequired, backend.CodeDenied, backend.CodeThrottled, backend.CodeUnavailable) {
			status := strconv.Itoa(c.HTTPStatus())
			if responses[status] == nil {
				responses[status] = object{"description": http.StatusText(c.HTTPStatus()) + ".", "content": media("application/json", client.ErrorAnswer{})}
			}
		}
		if r.takes != nil {
			for _, status := range []int{http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType} {
				responses[strconv.Itoa(status)] = object{"description": http.StatusText(status) + ".", "content": media("application/json", client.ErrorAnswer{})}
			}
		}
		if r.gives != nil && reflect.TypeOf(r.gives) == reflect.TypeFor[client.Result]() {
			// One ref's error is in its result; that of the request in an ErrorAnswer, which has the same key.
			for status, res := range responses {
				if status >= "400" {
					res.(object)["content"] = object{"application/json": object{"schema": object{"anyOf": []object{ref(client.Result{}), ref(client.ErrorAnswer{})}}}}
				}
			}
		}
		if r.method == "HEAD" {
			for _, res := range responses {
				delete(res.(object), "content")
			}
		}
		op["responses"] = responses
		if paths[r.path] == nil {
			paths[r.path] = object{}
		}
		paths[r.path].(object)[strings.ToLower(r.method)] = op
	}
	doc := object{
		"openapi": "3.1.0",
		"info": object{
			"title": "credresolve sidecar", "version": "1",
			"description": "Resolves references to credentials. On the Unix socket the peer of the connection is the caller; over TCP each request brings a bearer token and the header " + client.RequestHeader + ". Sessions' tokens hold at both.",
			"license":     object{"name": "Apache-2.0", "identifier": "Apache-2.0"},
		},
		"servers":    []object{{"url": "http://localhost", "description": "the Unix socket, whatever the host"}, {"url": "http://127.0.0.1:8270", "description": "TCP, where it is configured"}},
		"paths":      paths,
		"security":   []object{{}, {"token": []string{}}},
		"components": object{"schemas": schemas, "securitySchemes": object{"token": object{"type": "http", "scheme": "bearer"}}},
	}
	out, err := json.MarshalIndent(doc, "", "  ")
	return append(out, '\n'), errors.Join(err, comments.Err())
}

func operationID(r route) string {
	words := strings.FieldsFunc(strings.TrimSuffix(strings.TrimPrefix(r.path, "/v1"), ".json"), func(c rune) bool { return c == '/' || c == '{' || c == '}' })
	id := strings.ToLower(r.method)
	for _, w := range words {
		id += strings.ToUpper(w[:1]) + w[1:]
	}
	return id
}

func parameterSchema(r route, p parameter) object {
	switch {
	case p.name == "no_cache":
		return object{"type": "boolean"}
	case p.name == "ref" && r.path == "/v1/watch":
		return object{"type": "array", "items": object{"type": "string"}, "maxItems": maxWatched}
	}
	return object{"type": "string"}
}

// wireType gives the schemas of types whose form on the wire is their own.
func wireType(t reflect.Type) *jsonschema.Schema {
	switch t {
	case reflect.TypeFor[client.Text]():
		return &jsonschema.Schema{Type: "string"}
	case reflect.TypeFor[client.Bytes]():
		return &jsonschema.Schema{Type: "string", ContentEncoding: "base64"}
	case reflect.TypeFor[client.Duration]():
		return &jsonschema.Schema{Type: "string", Pattern: `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`}
	case reflect.TypeFor[time.Time]():
		return &jsonschema.Schema{Type: "string", Format: "date-time"}
	case reflect.TypeFor[backend.Type]():
		s := &jsonschema.Schema{Type: "string"}
		for _, known := range backend.Types() {
			s.Enum = append(s.Enum, string(known))
		}
		return s
	case reflect.TypeFor[backend.Code](), reflect.TypeFor[resolver.EventKind](), reflect.TypeFor[resolver.State](), reflect.TypeFor[backend.LoginStatus]():
		return &jsonschema.Schema{Type: "string"}
	case reflect.TypeFor[credref.Ref]():
		s := &jsonschema.Schema{Type: "object", Required: []string{"provider", "id"}, Properties: jsonschema.NewProperties(), AdditionalProperties: jsonschema.FalseSchema}
		for _, name := range []string{"provider", "id", "version", "field"} {
			s.Properties.Set(name, &jsonschema.Schema{Type: "string"})
		}
		return s
	}
	return nil
}
