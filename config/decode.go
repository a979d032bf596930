package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

var (
	sourceType   = reflect.TypeFor[backend.Source]()
	refType      = reflect.TypeFor[credref.Ref]()
	durationType = reflect.TypeFor[time.Duration]()

	rawProviderType = reflect.TypeFor[rawProvider]()
)

// decoder fills Go values from nodes. It knows structs with yaml tags, maps by text, slices, pointers, texts, numbers,
// truth values, durations, credref.Ref and backend.Source.
type decoder struct {
	problems *problems
	// source makes the Source of a setting that is a ref or a literal.
	source func(n *node, path string, ref *credref.Ref) backend.Source
	entry  string // the key whose value is decoded, where the keys of a map are the user's own
}

func (d *decoder) decode(n *node, path string, into reflect.Value) {
	t := into.Type()
	switch {
	case t == rawProviderType: // decoded when its kind is known
	case t == sourceType:
		d.decodeSource(n, path, into)
	case t == refType:
		if ref, ok := d.decodeRef(n, path); ok && ref == nil {
			d.problems.add(n, path, "expected a ref: {provider, id}, or a cred:// text")
		} else if ok {
			into.Set(reflect.ValueOf(*ref))
		}
	case t == durationType:
		d.decodeDuration(n, path, into)
	case t.Kind() == reflect.Pointer:
		into.Set(reflect.New(t.Elem()))
		d.decode(n, path, into.Elem())
	case t.Kind() == reflect.Struct:
		d.decodeStruct(n, path, into)
	case t.Kind() == reflect.Map:
		if !d.want(n, path, kindMapping) {
			return
		}
		into.Set(reflect.MakeMapWithSize(t, len(n.pairs)))
		for _, p := range n.pairs {
			v := reflect.New(t.Elem()).Elem()
			d.entry = p.key.text
			d.decode(p.value, join(path, p.key.text), v)
			d.entry = ""
			into.SetMapIndex(reflect.ValueOf(p.key.text).Convert(t.Key()), v)
		}
	case t.Kind() == reflect.Slice:
		if !d.want(n, path, kindSequence) {
			return
		}
		into.Set(reflect.MakeSlice(t, len(n.items), len(n.items)))
		for i, item := range n.items {
			d.decode(item, fmt.Sprintf("%s[%d]", path, i), into.Index(i))
		}
	case t.Kind() == reflect.Bool:
		if d.want(n, path, kindBool) {
			into.SetBool(n.text == "true")
		}
	case t.Kind() == reflect.String:
		// An unquoted 12 is a number to YAML and a text to whoever wrote it as a name.
		if n.kind == kindNumber || d.want(n, path, kindString) {
			into.SetString(n.text)
		}
	case into.CanInt():
		v, err := strconv.ParseInt(n.text, 10, t.Bits())
		if n.kind != kindNumber || err != nil {
			d.problems.add(n, path, "expected a whole number")
			return
		}
		into.SetInt(v)
	case into.CanFloat():
		v, err := strconv.ParseFloat(n.text, t.Bits())
		if n.kind != kindNumber || err != nil {
			d.problems.add(n, path, "expected a number")
			return
		}
		into.SetFloat(v)
	default:
		panic("config: a setting of type " + t.String())
	}
}

func (d *decoder) want(n *node, path string, kind nodeKind) bool {
	if n.kind == kind {
		return true
	}
	d.problems.add(n, path, "expected %s, found %s", kind, n.kind)
	return false
}

// decodeStruct fills the fields of into. A field tagged `yaml:",inline"` has its own fields at the same level.
func (d *decoder) decodeStruct(n *node, path string, into reflect.Value) {
	if !d.want(n, path, kindMapping) {
		return
	}
	fields := settings(into)
	for _, p := range n.pairs {
		field, known := fields[p.key.text]
		if !known {
			d.unknownKey(p.key, path, fields)
			continue
		}
		if p.value.kind != kindNull { // a key without a value is a setting that was not made
			d.decode(p.value, join(path, p.key.text), field)
		}
	}
}

func (d *decoder) unknownKey(key *node, path string, fields map[string]reflect.Value) {
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	slices.Sort(names)
	hint := "known keys: " + strings.Join(names, ", ")
	near := backend.Nearest(key.text, names)
	switch i := strings.IndexAny(key.text, ": \t="); {
	case i > 0 && slices.Contains(names, key.text[:i]):
		hint = "a colon and a space must stand behind a key"
	case near != "":
		hint = fmt.Sprintf("did you mean %q?", near)
	}
	d.problems.add(key, join(path, key.text), "unknown key; %s", hint)
}

// settings gives the fields of a struct by their names in the file.
func settings(v reflect.Value) map[string]reflect.Value {
	fields := make(map[string]reflect.Value)
	for i := range v.NumField() {
		name, options, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		switch {
		case options == "inline":
			for name, f := range settings(v.Field(i)) {
				fields[name] = f
			}
		case name != "" && name != "-":
			fields[name] = v.Field(i)
		}
	}
	return fields
}

func (d *decoder) decodeDuration(n *node, path string, into reflect.Value) {
	v, err := time.ParseDuration(n.text)
	if n.kind == kindNumber && n.text == "0" {
		v, err = 0, nil
	} else if n.kind != kindString || err != nil || v < 0 {
		d.problems.add(n, path, `expected a duration such as "5s", "10m" or "1h30m"`)
		return
	}
	into.SetInt(int64(v))
}

func (d *decoder) decodeSource(n *node, path string, into reflect.Value) {
	if ref, ok := d.decodeRef(n, path); ok {
		into.Set(reflect.ValueOf(d.source(n, path, ref)))
	}
}

// decodeRef reads a ref, a map or its short form; it is nil for another text. It reports false when there is a problem.
func (d *decoder) decodeRef(n *node, path string) (*credref.Ref, bool) {
	switch {
	case n.kind == kindMapping:
		var parts struct {
			Provider string `yaml:"provider"`
			ID       string `yaml:"id"`
			Version  string `yaml:"version"`
			Field    string `yaml:"field"`
		}
		before := len(d.problems.errs)
		d.decodeStruct(n, path, reflect.ValueOf(&parts).Elem())
		if len(d.problems.errs) > before {
			return nil, false
		}
		ref := credref.Ref{Provider: parts.Provider, ID: parts.ID, Version: parts.Version, Field: parts.Field}
		if err := ref.Validate(); err != nil {
			d.problems.add(n, path, "%v", err)
			return nil, false
		}
		return &ref, true
	case n.kind == kindString && credref.IsShortForm(n.text):
		r, err := credref.Parse(n.text)
		if err != nil {
			d.problems.add(n, path, "%v", err)
			return nil, false
		}
		return &r, true
	case n.kind != kindString && n.kind != kindNumber:
		d.problems.add(n, path, "expected a text, or a ref: {provider, id}; found %s", n.kind)
		return nil, false
	}
	return nil, true
}

func join(path, key string) string {
	if path == "" {
		return shownKey(key)
	}
	return path + "." + shownKey(key)
}
