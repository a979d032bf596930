package document

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// tomlReader turns what go-toml's parser says of each line into events. The library checks the grammar and decodes
// strings; where lists, inline tables and their commas begin and end, which it does not tell, is read again from the
// text.
type tomlReader struct {
	f    *finder
	s    string
	base int // of the library's offsets
	p    unstable.Parser

	root, table *tomlTable
	path        []tomlStep // of table
}

// tomlTable is a table that headers and dotted keys make up: it may not be a ref, since nothing can take its place.
type tomlTable struct {
	at       int
	keys     map[string]*tomlTable // nil for a value
	items    []*tomlTable          // of an array of tables
	header   bool
	provider string
	text     bool // of a value: it is a string
}

// tomlStep is a key, or an index into an array of tables.
type tomlStep struct {
	key   string
	index int // -1 for a key
}

func readTOML(f *finder) error {
	r := &tomlReader{f: f, s: f.src.text}
	r.base = len(r.s) - len(strings.TrimPrefix(r.s, bom))
	r.root = &tomlTable{keys: map[string]*tomlTable{}}
	r.table = r.root
	f.document()
	r.p.Reset([]byte(r.s[r.base:]))
	for r.p.NextExpression() {
		if err := r.expression(r.p.Expression()); err != nil {
			return err
		}
	}
	f.stack = f.stack[:0]
	if err := r.p.Error(); err != nil {
		at := r.base
		var where *unstable.ParserError
		if errors.As(err, &where) && len(where.Highlight) > 0 {
			at += int(r.p.Range(where.Highlight).Offset)
		}
		return &syntaxError{at, "not valid TOML"}
	}
	r.tableRefs(r.root, nil)
	f.stack = f.stack[:0]
	return nil
}

func (r *tomlReader) expression(e *unstable.Node) error {
	var keys []string
	at := -1
	for it := e.Key(); it.Next(); {
		if at < 0 {
			at = r.base + int(it.Node().Raw.Offset)
		}
		keys = append(keys, string(it.Node().Data))
	}
	if len(keys)+len(r.path) > r.f.opts.maxDepth {
		return &syntaxError{at, fmt.Sprintf("more than %d levels of nesting", r.f.opts.maxDepth)}
	}
	if e.Kind != unstable.KeyValue {
		return r.header(keys, at, e.Kind == unstable.ArrayTable)
	}
	table, steps := r.table, r.path
	for i, key := range keys {
		steps = append(steps[:len(steps):len(steps)], tomlStep{key, -1})
		if i == len(keys)-1 {
			break
		}
		next := table.keys[key]
		if next == nil {
			next = &tomlTable{at: at, keys: map[string]*tomlTable{}}
			table.keys[key] = next
		}
		if next.keys == nil {
			r.setPath(steps, at)
			r.f.faults.add(fault{offset: at, path: r.f.path(true), reason: "the key is there already, and is no table"})
			next.keys = map[string]*tomlTable{}
		}
		table = next
	}
	r.setPath(steps, at)
	last := keys[len(keys)-1]
	if table.keys[last] != nil {
		r.f.faults.add(fault{offset: at, path: r.f.path(true), reason: "the key is there twice"})
	}
	v := e.Value()
	leaf := &tomlTable{at: at, text: v.Kind == unstable.String}
	if last == "provider" && leaf.text {
		leaf.provider = string(v.Data)
	}
	table.keys[last] = leaf
	_, err := r.value(v, r.afterKey(e))
	return err
}

// afterKey gives the offset of the value of a key.
func (r *tomlReader) afterKey(e *unstable.Node) int {
	end := 0
	for it := e.Key(); it.Next(); {
		end = r.base + int(it.Node().Raw.Offset+it.Node().Raw.Length)
	}
	for strings.IndexByte(" \t=", r.s[end]) >= 0 {
		end++
	}
	return end
}

// setPath tells the finder where the value or table that follows stands.
func (r *tomlReader) setPath(steps []tomlStep, entry int) {
	r.f.stack = r.f.stack[:0]
	for _, s := range steps {
		r.f.stack = append(r.f.stack, frame{
			kind: framePath, key: s.key, index: max(s.index, 0), step: s.index >= 0,
			style: boxStyle{layout: layoutLines}, entry: entry, comma: -1,
		})
	}
}

// header reads [a.b] or [[a.b]].
func (r *tomlReader) header(keys []string, at int, array bool) error {
	table := r.root
	r.path = r.path[:0:0]
	for i, key := range keys {
		last := i == len(keys)-1
		next := table.keys[key]
		r.path = append(r.path, tomlStep{key, -1})
		if next == nil {
			next = &tomlTable{at: at}
			if !last || !array {
				next.keys = map[string]*tomlTable{}
			}
			table.keys[key] = next
		} else if last && !array && next.header || next.keys == nil && next.items == nil || last && array && next.items == nil || last && !array && next.items != nil {
			r.setPath(r.path, at)
			r.f.faults.add(fault{offset: at, path: r.f.path(true), reason: "the table is there twice, or its name is that of a value"})
			next.keys = map[string]*tomlTable{}
		}
		if last && array {
			next.items = append(next.items, &tomlTable{at: at, keys: map[string]*tomlTable{}})
		}
		table = next
		if n := len(next.items); n > 0 {
			table = next.items[n-1]
			r.path = append(r.path, tomlStep{"", n - 1})
		}
		if last {
			table.header, table.at = true, at
		}
	}
	r.table = table
	return nil
}

// value reads a value that begins at offset at, and gives its end.
func (r *tomlReader) value(v *unstable.Node, at int) (int, error) {
	none := props{after: -1}
	if v.Kind != unstable.Array && v.Kind != unstable.InlineTable {
		s := scalar{props: none, value: span{r.base + int(v.Raw.Offset), r.base + int(v.Raw.Offset+v.Raw.Length)}}
		s.text = r.s[s.value.start:s.value.end]
		switch v.Kind {
		case unstable.String:
			s.text = string(v.Data)
		case unstable.Bool:
			s.kind = scalarBool
		case unstable.Integer, unstable.Float:
			s.kind = scalarNumber
		default:
			s.kind = scalarOther
		}
		return s.value.end, r.f.scalar(s)
	}
	kind := frameList
	if v.Kind == unstable.InlineTable {
		kind = frameMap
	}
	if err := r.f.open(kind, at, boxStyle{layout: layoutFlow}, none); err != nil {
		return 0, err
	}
	i := r.gap(at + 1)
	for it := v.Children(); it.Next(); {
		child := it.Node()
		if kind == frameMap {
			r.inlineKey(child, i)
			i, child = r.afterKey(child), child.Value()
		} else {
			r.f.item(i)
		}
		end, err := r.value(child, i)
		if err != nil {
			return 0, err
		}
		i = r.gap(end)
	}
	r.f.close(i+1, span{at + 1, i})
	return i + 1, nil
}

// inlineKey begins an entry of an inline table. A dotted key counts as one that belongs to no ref.
func (r *tomlReader) inlineKey(e *unstable.Node, at int) {
	var parts []string
	for it := e.Key(); it.Next(); {
		parts = append(parts, string(it.Node().Data))
	}
	class := scalarText
	if len(parts) > 1 {
		class = scalarOther
	}
	r.f.key(at, strings.Join(parts, "."), at, class)
}

// gap skips white space, comments and commas.
func (r *tomlReader) gap(i int) int {
	for {
		switch r.s[i] {
		case ' ', '\t', '\n', '\r':
			i++
		case ',':
			r.f.comma(i)
			i++
		case '#':
			i += strings.IndexByte(r.s[i:], '\n')
		default:
			return i
		}
	}
}

// tableRefs reports tables that would be refs.
func (r *tomlReader) tableRefs(t *tomlTable, path []tomlStep) {
	for n, item := range t.items {
		r.tableRefs(item, append(path, tomlStep{"", n}))
	}
	foreign := false
	for key, next := range t.keys {
		foreign = foreign || !slices.Contains(refKeys, key)
		if next.keys != nil || next.items != nil {
			r.tableRefs(next, append(path, tomlStep{key, -1}))
		}
	}
	provider, id := t.keys["provider"], t.keys["id"]
	if foreign || r.f.opts.style == RefsShort || provider == nil || !provider.text || id == nil || !id.text {
		return
	}
	r.setPath(path, t.at)
	if r.f.ignoredHere() || !r.f.knownProvider(provider.provider, t.at) {
		return
	}
	r.f.faults.add(fault{
		offset: t.at, path: r.f.path(true),
		reason: "a ref in TOML must be an inline table or a string, this one is a table of its own or made of dotted keys",
		remedy: `write name = {provider = "…", id = "…"} or name = "cred://…"`,
	})
}
