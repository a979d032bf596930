package document

import (
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// tomlPart is a line that belongs to a ref that is a table.
type tomlPart struct {
	table *tomlTable // the ref whose site begins here; nil on its other lines
	place *place
}

// tomlRef is a table that is a ref, or an array of nothing but such tables.
type tomlRef struct {
	tables []*tomlTable
	place  *place
}

// tableRefs looks for tables that are refs. When there are any, the document is read again: what their lines hold is no
// value of its own then, and the refs come in their order among the others.
func (r *tomlReader) tableRefs() error {
	f := r.f
	first := f.faults
	f.faults, f.stack = faults{}, f.stack[:0]
	var refs []*tomlRef
	if r.isRef(r.root) {
		if r.isForeign(r.root) || f.knownProvider(r.root.keys["provider"].value, 0) {
			f.faults.add(fault{path: f.path(true), reason: "a TOML document is a table and cannot be a ref as a whole", remedy: remedyTOML})
		}
	} else {
		refs = r.findRefs(r.root, nil)
	}
	found := f.faults
	if len(refs) == 0 {
		f.faults = first
		f.faults.addAll(found)
		return f.stop
	}
	r.place(refs)
	f.faults, f.sites, f.nodes, f.documents = faults{}, nil, 0, 0
	if f.vars != nil {
		*f.vars = (*f.vars)[:0]
	}
	err := r.read()
	f.faults.addAll(found)
	return err
}

const remedyTOML = `write name = {provider = "…", id = "…"} or name = "cred://…"`

// isForeign reports whether a table is a ref of the foreign kind, wherever it stands.
func (r *tomlReader) isForeign(t *tomlTable) bool {
	foreign := r.f.opts.foreign
	if foreign == nil || len(t.keys) == 0 || len(t.keys) > len(foreign.Keys) {
		return false
	}
	texts, others := make(map[string]string, len(t.keys)), false
	for key, member := range t.keys {
		if !member.text || !slices.Contains(foreign.Keys, key) {
			return false
		}
		texts[key] = member.value
		others = others || !slices.Contains(refKeys, key)
	}
	if !others {
		return false
	}
	_, is := foreign.Map(texts)
	return is
}

// isRef reports whether the table to which the finder's stack leads is a ref.
func (r *tomlReader) isRef(t *tomlTable) bool {
	if r.isForeign(t) {
		return !r.f.ignoredHere()
	}
	provider, id := t.keys["provider"], t.keys["id"]
	if r.f.opts.style == RefsShort || len(t.keys) > len(refKeys) || provider == nil || !provider.text || id == nil || id.keys != nil || id.items != nil {
		return false
	}
	for key := range t.keys {
		if !slices.Contains(refKeys, key) {
			return false
		}
	}
	if r.f.ignoredHere() {
		return false
	}
	if !id.text && slices.Contains(r.f.opts.providers, provider.value) {
		r.f.faults.add(fault{offset: id.at, path: r.f.path(true) + ".id", reason: "the id must be a string", remedy: "write it in quotes"})
	}
	return id.text
}

// findRefs adds the refs in t, to which the finder's stack leads and which is none itself.
func (r *tomlReader) findRefs(t *tomlTable, refs []*tomlRef) []*tomlRef {
	within := func(t *tomlTable, do func()) {
		r.f.stack = append(r.f.stack, t.step.frame(t.at))
		do()
		r.f.stack = r.f.stack[:len(r.f.stack)-1]
	}
	if t.items != nil {
		var some []*tomlTable
		for _, item := range t.items {
			within(item, func() {
				if r.isRef(item) {
					some = append(some, item)
				} else {
					refs = r.findRefs(item, refs)
				}
			})
		}
		if len(some) == len(t.items) {
			return append(refs, &tomlRef{some, &place{list: true, last: some[len(some)-1].at}})
		}
		for _, item := range some {
			within(item, func() {
				if r.isForeign(item) || r.f.knownProvider(item.keys["provider"].value, item.at) {
					r.f.faults.add(fault{
						offset: item.at, path: r.f.path(true),
						reason: "a ref in an array of tables of which not all are refs: TOML has no place for its value",
						remedy: "write the array as name = [{…}, {…}]",
					})
				}
			})
		}
		return refs
	}
	for _, next := range t.keys {
		switch {
		case next.keys == nil && next.items == nil:
		case next.items == nil:
			within(next, func() {
				if r.isRef(next) {
					refs = append(refs, &tomlRef{[]*tomlTable{next}, &place{}})
				} else {
					refs = r.findRefs(next, refs)
				}
			})
		default:
			within(next, func() { refs = r.findRefs(next, refs) })
		}
	}
	return refs
}

// place finds where the values of refs go, which are all in the document. A ref that has a header takes the header's
// place if the lines before it are those of its parent, or if the parent has no header, which is written then; otherwise
// it becomes a new line after the last one of its parent. Dotted keys keep the first line.
func (r *tomlReader) place(refs []*tomlRef) {
	r.parts = make(map[int]tomlPart, 4*len(refs))
	leads := make(map[int]*tomlRef, len(refs))
	for _, ref := range refs {
		for _, t := range ref.tables {
			r.addParts(t, ref)
			r.parts[t.at] = tomlPart{t, ref.place}
		}
		lead := ref.tables[0]
		if lead.header {
			leads[lead.at] = ref
		} else {
			r.placeDotted(lead, ref.place)
		}
	}
	newline := "\n"
	if n := strings.IndexByte(r.s, '\n'); n > 0 && r.s[n-1] == '\r' {
		newline = "\r\n"
	}
	current := r.root // whose lines those before the header are
	for _, t := range r.headers {
		if ref := leads[t.at]; ref != nil {
			current = r.placeHeader(t, ref.place, current, newline)
		} else if _, ok := r.parts[t.at]; !ok {
			current = t
		}
	}
}

// addParts notes the lines of t, which is a ref or within one.
func (r *tomlReader) addParts(t *tomlTable, ref *tomlRef) {
	line := span{t.at, t.end}
	switch {
	case t.keys == nil && t.items == nil:
	case t.header:
		line.end = t.at
	default:
		line.start = -1
	}
	if line.start >= 0 {
		r.parts[line.start] = tomlPart{nil, ref.place}
		ref.place.lines = append(ref.place.lines, line)
	}
	for _, next := range t.keys {
		r.addParts(next, ref)
	}
	for _, item := range t.items {
		r.addParts(item, ref)
	}
}

// stays takes the line at an offset from those that go.
func (p *place) stays(at int) {
	p.lines = slices.DeleteFunc(p.lines, func(line span) bool { return line.start == at })
}

// placeDotted has the value take the place of the first of the dotted keys of t.
func (r *tomlReader) placeDotted(t *tomlTable, p *place) {
	var lead *tomlTable
	for _, next := range t.keys {
		if next.keys == nil && next.items == nil && (lead == nil || next.at < lead.at) {
			lead = next
		}
	}
	keys := r.keySpans(lead.at, lead.end)
	p.span = span{lead.at, lead.end}
	p.before = r.s[lead.at:keys[len(keys)-2].end] + " = "
	p.stays(lead.at)
}

// placeHeader finds the place for a value instead of the header of t, before which the lines are those of current. It
// gives the table whose lines those after are.
func (r *tomlReader) placeHeader(t *tomlTable, p *place, current *tomlTable, newline string) *tomlTable {
	open, end := t.at, len(r.s)
	if n := strings.IndexByte(r.s[t.at:], '\n'); n >= 0 {
		end = t.at + n
	}
	for isBlank(r.s[open-1]) {
		open--
	}
	brackets := 1
	if p.list {
		brackets = 2
	}
	open -= brackets
	keys := r.keySpans(open, end)
	last := keys[len(keys)-1]
	end = last.end
	for isBlank(r.s[end]) {
		end++
	}
	end += brackets

	parent, own := t.parent, 1 // own counts the keys to write in the parent
	if p.list {
		parent = parent.parent
	}
	for parent != r.root && !parent.header && parent.dotted {
		parent = parent.parent
		own++
	}
	first := len(keys) - own
	p.before = r.s[keys[first].start:last.end] + " = "
	if p.list {
		p.before += "["
		p.after = "]"
	}
	switch {
	case parent == current:
		p.span = span{open, end}
	case parent != r.root && !parent.header:
		p.span, p.keep = span{open, end}, true
		p.gone = "[" + r.s[keys[0].start:keys[first-1].end] + "]"
		p.before = p.gone + newline + p.before
		parent.header, parent.last = true, end
		current = parent
	default:
		at := r.newLine(parent)
		p.span = span{at, at}
		if at > 0 && r.s[at-1] != '\n' && at > r.base {
			p.before = newline + p.before
		} else {
			p.after += newline
		}
		return current
	}
	p.stays(t.at)
	return current
}

// newLine gives the offset for a new line of t: after the last one, or before the first header if the root has none.
func (r *tomlReader) newLine(t *tomlTable) int {
	if t.last >= 0 {
		if n := strings.IndexByte(r.s[t.last:], '\n'); n >= 0 {
			return t.last + n + 1
		}
		return len(r.s)
	}
	if r.top > 0 {
		return r.top - 1
	}
	at := strings.LastIndexByte(r.s[:r.headers[0].at], '\n') + 1
	for at > r.base { // the comment above a header is the header's
		before := strings.LastIndexByte(r.s[:at-1], '\n') + 1
		if !strings.HasPrefix(strings.TrimLeft(r.s[max(before, r.base):at], " \t"), "#") {
			break
		}
		at = before
	}
	r.top = max(at, r.base) + 1
	return r.top - 1
}

// line reads a key with its value, or a header, again.
func (r *tomlReader) line(start, end int) *unstable.Node {
	r.p.Reset([]byte(r.s[start:end]))
	r.p.NextExpression()
	return r.p.Expression()
}

// keySpans gives where the parts of the key stand in a line.
func (r *tomlReader) keySpans(start, end int) []span {
	var keys []span
	for it := r.line(start, end).Key(); it.Next(); {
		raw := it.Node().Raw
		keys = append(keys, span{start + int(raw.Offset), start + int(raw.Offset+raw.Length)})
	}
	return keys
}

// site tells the finder of the ref that begins here as if it were an inline table.
func (r *tomlReader) site(part tomlPart) error {
	if part.table == nil {
		return nil
	}
	if part.table.header {
		r.path, r.held = r.path[:0], 0
	}
	steps := r.path // of the table under whose header dotted keys are
	for t := part.table; t.parent != nil && (part.table.header || !t.header); t = t.parent {
		steps = append(steps, t.step)
	}
	slices.Reverse(steps[len(r.path):])
	r.setPath(steps, part.table.at)
	r.path, r.held = steps[:len(r.path)], len(r.path)
	before := len(r.f.sites)
	replay := tomlReader{f: r.f, s: r.s}
	if err := replay.again(part.table); err != nil {
		return err
	}
	if len(r.f.sites) > before {
		r.f.sites[before].table = part.place
	}
	return r.f.stop
}

// again tells the finder of a table, an array of tables or a value that was read before.
func (r *tomlReader) again(t *tomlTable) error {
	none, lines := props{after: -1}, boxStyle{layout: layoutLines}
	switch {
	case t.items != nil:
		if err := r.f.open(frameList, t.at, lines, none); err != nil {
			return err
		}
		for _, item := range t.items {
			r.f.item(item.at)
			if err := r.again(item); err != nil {
				return err
			}
		}
	case t.keys != nil:
		if err := r.f.open(frameMap, t.at, lines, none); err != nil {
			return err
		}
		entries := make([]*tomlTable, 0, len(t.keys))
		for _, next := range t.keys {
			entries = append(entries, next)
		}
		slices.SortFunc(entries, func(a, b *tomlTable) int { return a.at - b.at })
		for _, next := range entries {
			r.f.key(next.at, next.step.key, next.at, scalarText)
			if err := r.again(next); err != nil {
				return err
			}
		}
	default:
		r.base = t.at
		e := r.line(t.at, t.end)
		_, err := r.value(e.Value(), r.afterKey(e))
		return err
	}
	r.f.close(t.at, span{t.at, t.at})
	return r.f.stop
}
