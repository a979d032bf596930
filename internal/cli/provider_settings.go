package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
)

// field is a setting of a kind.
type field struct {
	path string
	t    reflect.Type
}

// fieldsOf lists the settings of a kind, beside those that all have, by their names in the configuration.
func fieldsOf(k backend.Kind) []field {
	_, common := config.Types()
	all := append(fieldsIn(reflect.TypeOf(k.NewConfig()), ""), fieldsIn(common, "")...)
	return slices.DeleteFunc(all, func(f field) bool { return f.path == "kind" })
}

func fieldsIn(t reflect.Type, path string) (all []field) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || isText(t) {
		return []field{{path, t}}
	}
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case options == "inline":
			all = append(all, fieldsIn(f.Type, path)...)
		case name != "" && name != "-":
			all = append(all, fieldsIn(f.Type, strings.TrimPrefix(path+"."+name, "."))...)
		}
	}
	return all
}

// isText reports whether a setting of type t is written as a text.
func isText(t reflect.Type) bool {
	return t.Kind() == reflect.String || slices.Contains([]reflect.Type{reflect.TypeFor[backend.Source](), reflect.TypeFor[credref.Ref](), reflect.TypeFor[time.Duration]()}, t)
}

// word says what f takes.
func (f field) word() string {
	switch {
	case f.t == reflect.TypeFor[backend.Source]():
		return "a secret, as cred://PROVIDER/ID"
	case f.t == reflect.TypeFor[credref.Ref]():
		return "a reference, cred://PROVIDER/ID"
	case f.t == reflect.TypeFor[time.Duration]():
		return "a duration, such as 10m"
	case f.t.Kind() == reflect.String:
		return "a text"
	case f.t.Kind() == reflect.Bool:
		return "true or false"
	case f.t.Kind() == reflect.Slice:
		return "a list"
	case f.t.Kind() == reflect.Map:
		return "a map: --set " + f.path + ".KEY=value"
	}
	return "a number"
}

// typeOf is the type of the setting at path; of one that there is not, a text's: reading the configuration tells of it.
func typeOf(k backend.Kind, path string) reflect.Type {
	for _, f := range fieldsOf(k) {
		if f.path == path {
			return f.t
		}
		if rest, is := strings.CutPrefix(path, f.path+"."); is && f.t.Kind() == reflect.Map && !strings.Contains(rest, ".") {
			return f.t.Elem()
		}
	}
	return reflect.TypeFor[string]()
}

// written writes the values that a setting of type t was given.
func written(t reflect.Type, key string, values []string) (string, error) {
	v := values[0]
	many := t.Kind() == reflect.Slice || t.Kind() == reflect.Map || t.Kind() == reflect.Struct && !isText(t)
	switch {
	case len(values) > 1 && t.Kind() != reflect.Slice:
		return "", backend.Errorf(backend.CodeUsage, "--set %s: it is no list, and takes one value", key)
	case many && len(values) == 1 && (strings.HasPrefix(v, "[") || strings.HasPrefix(v, "{")):
		n, err := config.ParseDocument("--set "+key, 1, []byte(v))
		if err != nil || n == nil || !n.IsList() && !n.IsMap() {
			return "", backend.Errorf(backend.CodeUsage, "--set %s: its value is no list or map in YAML or JSON", key)
		}
		return v, nil
	case t.Kind() == reflect.Slice:
		items := make([]string, 0, len(values))
		for _, one := range values {
			items = append(items, scalar(t.Elem(), one))
		}
		return "[" + strings.Join(items, ", ") + "]", nil
	case many:
		return "", backend.Errorf(backend.CodeUsage, "--set %s: it takes a map: --set %s.KEY=value, or {KEY: value}", key, key)
	}
	return scalar(t, v), nil
}

// scalar writes v: as it is where a number or truth value is wanted and may stand there, else in quotes.
func scalar(t reflect.Type, v string) string {
	plain := v != "" && !strings.ContainsFunc(v, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && r != '.' && r != '-' && r != '+'
	})
	if plain && !isText(t) {
		return v
	}
	return quoted(v)
}

func quoted(v string) string {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // a text always can be
	return strings.TrimSuffix(out.String(), "\n")
}

// entry is a line of a provider's settings, with those below it.
type entry struct {
	key, value string
	below      []*entry
}

// parseSettings reads lines as block writes them.
func parseSettings(text string) []*entry {
	root := &entry{}
	at := []*entry{root}
	for line := range strings.Lines(text) {
		body := strings.TrimLeft(line, " ")
		level := (len(line) - len(body)) / 2
		key, value, _ := strings.Cut(strings.TrimRight(body, "\n"), ":")
		s := &entry{key: key, value: strings.TrimSpace(value)}
		at[level].below = append(at[level].below, s)
		at = append(at[:level+1], s)
	}
	return root.below
}

// put sets the setting at path. It fails where one is both whole and by its parts.
func put(all []*entry, path []string, value string) ([]*entry, error) {
	key := path[0]
	if strings.ContainsFunc(key, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') && (r < '0' || r > '9') }) || key == "" || key[0] < 'a' {
		key = quoted(key)
	}
	i := slices.IndexFunc(all, func(s *entry) bool { return s.key == key })
	if i < 0 {
		i, all = len(all), append(all, &entry{key: key})
	} else if (all[i].below == nil) != (len(path) == 1) {
		return all, errors.New("whole, and by its parts")
	}
	if len(path) == 1 {
		all[i].value = value
		return all, nil
	}
	var err error
	all[i].below, err = put(all[i].below, path[1:], value)
	return all, err
}

// block writes settings on lines of their own, and flow on one line.
func block(all []*entry, indent string) string {
	var out strings.Builder
	for _, s := range all {
		out.WriteString(strings.TrimRight(indent+s.key+": "+s.value, " ") + "\n" + block(s.below, indent+"  "))
	}
	return out.String()
}

func flow(all []*entry) string {
	parts := make([]string, 0, len(all))
	for _, s := range all {
		value := s.value
		switch {
		case s.below != nil:
			value = flow(s.below)
		case strings.Contains(value, ":") && !strings.ContainsAny(value[:1], `"[{`): // a URL
			value = quoted(value)
		}
		parts = append(parts, s.key+": "+value)
	}
	return "{" + strings.Join(parts, ", ") + "}"
}
