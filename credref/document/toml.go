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
	held        int        // how many steps of path are on the finder's stack already

	broken  bool             // a key or table is there twice: what is written where cannot be told
	headers []*tomlTable     // in their order
	top     int              // where new lines of the root go, plus 1; 0 when it is not known yet
	parts   map[int]tomlPart // the lines of table refs, by where their keys begin; empty in the first reading
}

// tomlTable is a table that headers and dotted keys make up, an array of such tables, or a value in one.
type tomlTable struct {
	at, end int // of a value: its key and it; of a table: at is its header's key, else where it is first named
	last    int // of a table with a header, and of the root: where the header or the last value under it ends; -1 for none
	parent  *tomlTable
	step    tomlStep              // from parent
	keys    map[string]*tomlTable // nil for a value
	items   []*tomlTable          // of an array of tables
	header  bool
	dotted  bool   // dotted keys name it
	text    bool   // of a value: it is a string
	value   string // of a string that may be part of a ref
}

// tomlStep is a key, or an index into an array of tables.
type tomlStep struct {
	key   string
	index int // -1 for a key
}

func readTOML(f *finder) error {
	r := &tomlReader{f: f, s: f.src.text}
	r.base = len(r.s) - len(strings.TrimPrefix(r.s, bom))
	if err := boundTOML(r.s[r.base:], f.opts); err != nil {
		err.offset += r.base
		return err
	}
	if err := r.read(); err != nil || f.stop != nil || r.broken {
		return err
	}
	return r.tableRefs()
}

// read reads the document, but for what belongs to the table refs that are known.
func (r *tomlReader) read() error {
	r.root = &tomlTable{keys: map[string]*tomlTable{}, last: -1}
	r.table, r.path, r.held, r.headers = r.root, r.path[:0], 0, nil
	r.f.document()
	r.p.Reset([]byte(r.s[r.base:]))
	for r.p.NextExpression() {
		if err := r.expression(r.p.Expression()); err != nil {
			return err
		}
	}
	if err := r.p.Error(); err != nil {
		at := r.base
		var where *unstable.ParserError
		if errors.As(err, &where) && len(where.Highlight) > 0 {
			at += int(r.p.Range(where.Highlight).Offset)
		}
		return &syntaxError{at, "not valid TOML"}
	}
	return r.f.stop
}

// boundTOML looks for more keys and values than are allowed before the library, which makes a tree of what is in one
// line, sees them. It counts what sets them apart, so that a number with a point counts as two.
func boundTOML(s string, o *settings) *syntaxError {
	if len(s) < o.maxNodes/2 { // a sign counts for two at most
		return nil
	}
	nodes, dots := 0, 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"', '\'':
			i = tomlStringEnd(s, i)
		case '#':
			n := strings.IndexByte(s[i:], '\n')
			if n < 0 {
				return nil
			}
			i += n
			dots = 0
		case '.':
			nodes++
			if dots++; dots > o.maxDepth {
				return &syntaxError{i, fmt.Sprintf("more than %d levels of nesting", o.maxDepth)}
			}
		case '=':
			nodes += 2
			dots = 0
		case ',', '[', '{':
			nodes++
			dots = 0
		case '\n':
			dots = 0
		}
		if nodes > o.maxNodes {
			return tooManyNodes(i, o.maxNodes)
		}
	}
	return nil
}

// tomlStringEnd gives the offset of the last byte of the string at i.
func tomlStringEnd(s string, i int) int {
	quote := s[i : i+1]
	long := strings.HasPrefix(s[i:], quote+quote+quote)
	if long {
		i += 2
	}
	for i++; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && quote == `"`:
			i++
		case c == '\n' && !long:
			return i - 1
		case c == quote[0] && !long:
			return i
		case c == quote[0] && strings.HasPrefix(s[i:], quote+quote+quote):
			i += 2
			for n := 0; n < 2 && strings.HasPrefix(s[i+1:], quote); n++ { // the text may end with quotes
				i++
			}
			return i
		}
	}
	return len(s) - 1
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
	if part, ok := r.parts[at]; ok {
		return r.site(part)
	}
	if e.Kind != unstable.KeyValue {
		r.path, r.held = r.path[:0], 0
	}
	if len(keys)+len(r.path) > r.f.opts.maxDepth {
		return &syntaxError{at, fmt.Sprintf("more than %d levels of nesting", r.f.opts.maxDepth)}
	}
	if e.Kind != unstable.KeyValue {
		r.header(keys, at, e.Kind == unstable.ArrayTable)
		return r.f.stop
	}
	table, steps := r.table, r.path // what is appended to steps is overwritten by the next line
	for i, key := range keys {
		r.f.node(at)
		steps = append(steps, tomlStep{key, -1})
		if i == len(keys)-1 {
			break
		}
		next := table.keys[key]
		if next == nil {
			next = &tomlTable{at: at, keys: map[string]*tomlTable{}, parent: table, step: tomlStep{key, -1}}
			table.keys[key] = next
		}
		next.dotted = true
		if next.keys == nil {
			r.setPath(steps, at)
			r.broken = true
			r.f.faults.add(fault{offset: at, path: r.f.path(true), reason: "the key is there already, and is no table"})
			next.keys = map[string]*tomlTable{}
		}
		table = next
	}
	r.setPath(steps, at)
	r.path, r.held = steps[:len(r.path)], len(r.path)
	last := keys[len(keys)-1]
	if table.keys[last] != nil {
		r.broken = true
		r.f.faults.add(fault{offset: at, path: r.f.path(true), reason: "the key is there twice"})
	}
	v := e.Value()
	leaf := &tomlTable{at: at, parent: table, step: tomlStep{last, -1}, text: v.Kind == unstable.String}
	if leaf.text && (last == "provider" || r.f.opts.foreign != nil && slices.Contains(r.f.opts.foreign.Keys, last)) {
		leaf.value = string(v.Data)
	}
	table.keys[last] = leaf
	end, err := r.value(v, r.afterKey(e))
	leaf.end, r.table.last = end, end
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

// setPath tells the finder where the value or table that follows stands. steps begin with those of r.path that are held.
func (r *tomlReader) setPath(steps []tomlStep, entry int) {
	r.f.stack = r.f.stack[:r.held]
	for _, s := range steps[r.held:] {
		r.f.stack = append(r.f.stack, s.frame(entry))
	}
}

func (s tomlStep) frame(entry int) frame {
	return frame{
		kind: framePath, key: s.key, index: max(s.index, 0), step: s.index >= 0,
		style: boxStyle{layout: layoutLines}, entry: entry, comma: -1,
	}
}

// header reads [a.b] or [[a.b]].
func (r *tomlReader) header(keys []string, at int, array bool) {
	table := r.root
	for i, key := range keys {
		r.f.node(at)
		last := i == len(keys)-1
		next := table.keys[key]
		r.path = append(r.path, tomlStep{key, -1})
		if next == nil {
			next = &tomlTable{at: at, parent: table, step: tomlStep{key, -1}}
			if !last || !array {
				next.keys = map[string]*tomlTable{}
			}
			table.keys[key] = next
		} else if last && !array && next.header || next.keys == nil && next.items == nil || last && array && next.items == nil || last && !array && next.items != nil {
			r.setPath(r.path, at)
			r.broken = true
			r.f.faults.add(fault{offset: at, path: r.f.path(true), reason: "the table is there twice, or its name is that of a value"})
			next.keys = map[string]*tomlTable{}
		}
		if last && array {
			next.items = append(next.items, &tomlTable{at: at, keys: map[string]*tomlTable{}, parent: next, step: tomlStep{"", len(next.items)}})
		}
		table = next
		if n := len(next.items); n > 0 {
			table = next.items[n-1]
			r.path = append(r.path, tomlStep{"", n - 1})
		}
		if last {
			table.header, table.at, table.last = true, at, at
			r.headers = append(r.headers, table)
		}
	}
	r.table = table
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
