package resolver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/go-openapi/jsonpointer"

	"github.com/credresolve/credresolve/backend"
)

// selectSecret gives the part of c that a ref's field selects: a key, or an RFC 6901 pointer when it starts with "/". For
// an empty field that is the whole secret, else the only field, else the field "value".
func selectSecret(c *backend.Credential, field string) (backend.Secret, error) {
	switch {
	case field == "":
		return whole(c)
	case !strings.HasPrefix(field, "/"):
		return member(c, field)
	}
	pointer, err := jsonpointer.New(field)
	if err != nil {
		return backend.Secret{}, backend.Errorf(backend.CodeUsage, "the field is not a JSON Pointer")
	}
	tokens := pointer.DecodedTokens()
	if len(c.Fields) == 0 && !c.Secret.IsZero() {
		return walk(c.Secret, tokens)
	}
	s, err := member(c, tokens[0])
	if err != nil || len(tokens) == 1 {
		return s, err
	}
	return walk(s, tokens[1:])
}

func whole(c *backend.Credential) (backend.Secret, error) {
	if !c.Secret.IsZero() {
		return c.Secret, nil
	}
	switch len(c.Fields) {
	case 0:
		return backend.Secret{}, backend.Errorf(backend.CodeNotFound, "the secret is empty: it has neither a value nor fields")
	case 1:
		for _, s := range c.Fields {
			return s, nil
		}
	}
	if s, ok := c.Fields["value"]; ok {
		return s, nil
	}
	return backend.Secret{}, FieldRequired(c.Fields)
}

func member(c *backend.Credential, name string) (backend.Secret, error) {
	if s, ok := c.Fields[name]; ok {
		return s, nil
	}
	if len(c.Fields) == 0 {
		return backend.Secret{}, backend.Errorf(backend.CodeNotFound, "no field %q: the secret has no fields", name)
	}
	return backend.Secret{}, missing(name, c.Fields)
}

// missing is the error of a name that is not among those of in.
func missing[T any](name string, in map[string]T) error {
	e := backend.Errorf(backend.CodeNotFound, "no field %q; there are: %s", name, listNames(in))
	if near := backend.Nearest(name, slices.Collect(maps.Keys(in))); near != "" {
		e.Remedy = fmt.Sprintf("did you mean %q?", near)
	}
	return e
}

// listNames lists the names of fields, which are not secret, as far as a person reads.
func listNames[T any](in map[string]T) string {
	const most = 20
	names := slices.Sorted(maps.Keys(in))
	rest := len(names) - most
	names = names[:min(len(names), most)]
	for i, n := range names {
		if len(n) > 64 {
			n = strings.ToValidUTF8(n[:64], "") + "…"
		}
		if strings.ContainsFunc(n, func(c rune) bool { return c <= ' ' || c == ',' || c == 0x7f }) {
			n = strconv.Quote(n)
		}
		names[i] = n
	}
	list := strings.Join(names, ", ")
	switch {
	case list == "":
		return "none"
	case rest > 0:
		return fmt.Sprintf("%s and %d more", list, rest)
	}
	return list
}

// walk follows tokens into the JSON text of s. It never decodes what it selects, so that a nested value keeps its text.
func walk(s backend.Secret, tokens []string) (backend.Secret, error) {
	var out backend.Secret
	err := s.Use(func(b []byte) error {
		at, copied := bytes.TrimSpace(b), false
		for _, token := range tokens {
			next, err := step(at, token)
			if copied {
				clear(at)
			}
			if err != nil {
				return err
			}
			at, copied = next, true
		}
		out = backend.SecretFromJSON(at)
		if copied {
			clear(at)
		}
		return nil
	})
	return out, err
}

// step gives a copy of the JSON text of one member or element of the JSON text in; it leaves no other copy behind.
func step(in []byte, token string) ([]byte, error) {
	first := byte(0)
	if len(in) > 0 {
		first = in[0]
	}
	switch first {
	case '{':
		var members map[string]json.RawMessage
		if json.Unmarshal(in, &members) != nil {
			break
		}
		chosen, ok := members[token]
		delete(members, token)
		for _, m := range members {
			clear(m)
		}
		if !ok {
			return nil, missing(token, members)
		}
		return chosen, nil
	case '[':
		var elements []json.RawMessage
		if json.Unmarshal(in, &elements) != nil {
			break
		}
		i, err := strconv.Atoi(token)
		found := err == nil && i >= 0 && i < len(elements) && strconv.Itoa(i) == token
		var chosen []byte
		for j, e := range elements {
			if found && j == i {
				chosen = e
			} else {
				clear(e)
			}
		}
		if !found {
			return nil, backend.Errorf(backend.CodeNotFound, "no element %q in a list of %d", token, len(elements))
		}
		return chosen, nil
	}
	return nil, backend.Errorf(backend.CodeNotFound, "no field %q: what the pointer leads to is neither a JSON object nor a list", token)
}
