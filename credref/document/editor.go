package document

import (
	"slices"
	"strings"
)

// editor gathers what is to change in a text and makes the new one.
type editor struct {
	text   string
	yaml   bool
	edits  []edit
	blocks [][]byte // of which room gives parts

	inserts []edit              // new lines: they go before what else begins at the same place
	lists   map[*place][][]byte // values of the arrays of tables under way
}

// place is where the value goes of a ref that is a TOML table, or the values of an array of such tables.
type place struct {
	span                 // replaced; empty for a new line
	before, after string // around the value
	gone          string // what stands in the span when the ref is removed
	keep          bool   // whether the lines of the span stay when the ref is removed
	lines         []span // the other lines of the ref, which go
	list          bool   // the values become an array
	last          int    // of a list: where its last ref begins
}

// edit puts text, which may hold a secret, in the place of a span, after a space if it must be set apart.
type edit struct {
	span
	text  []byte
	apart bool
}

const blockSize = 4 << 10

// room gives memory for a text of up to n bytes, which wipe zeroes.
func (e *editor) room(n int) []byte {
	last := len(e.blocks) - 1
	if last < 0 || cap(e.blocks[last])-len(e.blocks[last]) < n {
		e.blocks = append(e.blocks, make([]byte, 0, max(n, min(blockSize, 64+16*len(e.edits)))))
		last++
	}
	b := e.blocks[last]
	e.blocks[last] = b[:len(b)+n]
	return b[len(b) : len(b) : len(b)+n]
}

func (e *editor) delete(start, end int) {
	if start < end {
		e.edits = append(e.edits, edit{span: span{start, end}})
	}
}

// replace puts text in the place of the ref of s.
func (e *editor) replace(s *Site, text []byte, isJSON bool) {
	if s.tag.end > 0 && (s.isMap || isJSON) { // the tag is not that of the new value
		start := s.tag.start
		if start > 0 && isBlank(e.text[start-1]) {
			start--
		}
		e.delete(start, s.tag.end)
	}
	at := s.value
	joins := s.isMap && e.joins(s.join, at.start)
	if joins {
		at.start = s.join
	}
	apart := joins || e.yaml && s.flow && e.needsSpace(at.start)
	e.edits = append(e.edits, edit{at, text, apart})
}

// needsSpace reports whether a value at i must be set apart from the colon before it: {a:{}} is a map, {a:""} a string.
// So is {a":""}, whose key ends with a quote and does not begin with one.
func (e *editor) needsSpace(i int) bool {
	if i < 2 || e.text[i-1] != ':' {
		return false
	}
	switch c := e.text[i-2]; c {
	case ']', '}':
		return false
	case '"', '\'':
		before := strings.TrimRight(e.text[:max(strings.LastIndexByte(e.text[:i-2], c), 0)], " \t\r\n")
		return before == "" || strings.IndexByte("{[,?", before[len(before)-1]) < 0
	}
	return true
}

// joins reports whether nothing but a line break and white space is between an indicator and its block value.
func (e *editor) joins(indicator, value int) bool {
	if indicator < 0 {
		return false
	}
	between := e.text[indicator:value]
	return strings.ContainsAny(between, "\n\r") && strings.Trim(between, " \t\r\n") == ""
}

// replaceTable writes the value of a ref that is a TOML table as one of its parent's; nil removes it. The values of an
// array of tables come together with its last one.
func (e *editor) replaceTable(s *Site, value []byte) {
	p := s.table
	var values [][]byte
	if value != nil {
		values = append(values, value)
	}
	if p.list {
		if e.lists == nil {
			e.lists = map[*place][][]byte{}
		}
		values = append(e.lists[p], values...)
		e.lists[p] = values
		if s.value.start != p.last {
			return
		}
		delete(e.lists, p)
	}
	for _, one := range p.lines {
		e.deleteLines(one.start, one.end)
	}
	switch {
	case len(values) > 0 || p.list:
	case p.keep:
		e.edits = append(e.edits, edit{span: p.span, text: []byte(p.gone)})
		return
	case p.start < p.end:
		e.deleteLines(p.start, p.end)
		return
	default:
		return
	}
	size := len(p.before) + len(p.after)
	for _, one := range values {
		size += len(one) + len(", ")
	}
	text := append(e.room(size), p.before...)
	for i, one := range values {
		if i > 0 {
			text = append(text, ", "...)
		}
		text = append(text, one...)
		clear(one)
	}
	one := edit{span: p.span, text: append(text, p.after...)}
	if p.start < p.end {
		e.edits = append(e.edits, one)
	} else {
		e.inserts = append(e.inserts, one)
	}
}

// remove takes out the keys or items of sites, which are in the order of the document.
func (e *editor) remove(sites []*Site) {
	groups := make(map[*box][]*entry)
	var order []*box
	for _, s := range sites {
		b := s.entry.box
		if groups[b] == nil {
			order = append(order, b)
		}
		groups[b] = append(groups[b], s.entry)
	}
	for _, b := range order {
		entries := groups[b]
		switch b.layout {
		case layoutLines:
			for _, one := range entries {
				e.deleteLines(one.start, one.end)
			}
		case layoutPair:
			e.edits = append(e.edits, edit{span: entries[0].span, text: []byte("{}")})
		case layoutFlow:
			e.removeFlow(b, entries)
		case layoutBlock:
			e.removeBlock(b, entries)
		}
	}
}

// removeFlow takes entries out of [...] or {...}, with their commas.
func (e *editor) removeFlow(b *box, entries []*entry) {
	all := len(entries) == b.count
	if all && e.bare(b.inner, entries) {
		e.delete(b.inner.start, b.inner.end)
		return
	}
	// Entries at the end without a comma after them take the comma before them.
	tail := len(entries)
	for tail > 0 && entries[tail-1].index == b.count-(len(entries)-tail)-1 {
		tail--
	}
	if last := entries[len(entries)-1]; tail == len(entries) || last.commaAfter >= 0 || all {
		tail = len(entries)
	} else if comma := entries[tail].commaBefore; comma >= 0 {
		e.delete(comma, comma+1)
	}
	for i, one := range entries {
		end := one.end
		if comma := one.commaAfter; comma >= 0 {
			if strings.Trim(e.text[end:comma], " \t") == "" {
				end = comma + 1
			} else {
				e.delete(comma, comma+1)
			}
		}
		if e.aloneOnLines(one.start, end) {
			e.deleteLines(one.start, end)
			continue
		}
		start := one.start
		if i >= tail {
			for start > 0 && isBlank(e.text[start-1]) {
				start--
			}
		} else {
			for end < len(e.text) && isBlank(e.text[end]) {
				end++
			}
			if end < len(e.text) && e.text[end] == '#' && isBlank(e.text[end-1]) {
				end-- // without it this is no comment
			}
		}
		e.delete(start, end)
	}
}

// bare reports whether inner holds nothing beside entries, commas and white space.
func (e *editor) bare(inner span, entries []*entry) bool {
	at := inner.start
	for _, one := range entries {
		if strings.Trim(e.text[at:one.start], ", \t\r\n") != "" {
			return false
		}
		at = one.end
	}
	return strings.Trim(e.text[at:inner.end], ", \t\r\n") == ""
}

// aloneOnLines reports whether the lines from start to end hold no more than this and a comment after it.
func (e *editor) aloneOnLines(start, end int) bool {
	rest := strings.TrimSpace(e.text[end:e.lineEnd(end)])
	comment := strings.HasPrefix(rest, "//") || strings.HasPrefix(rest, "#") ||
		strings.HasPrefix(rest, "/*") && strings.Index(rest, "*/") == len(rest)-2
	begin := e.lineStart(start)
	return strings.Trim(e.text[begin:start], " \t") == "" && (rest == "" || comment) && (begin > 0 || e.lineEnd(end) < len(e.text))
}

// removeBlock takes entries out of a YAML block list or map.
func (e *editor) removeBlock(b *box, entries []*entry) {
	first := entries[0]
	inline := first.index == 0 && strings.Trim(e.text[e.lineStart(first.start):first.start], " \t"+bom) != ""
	if len(entries) == b.count {
		nothing := "[]"
		if b.isMap {
			nothing = "{}"
		}
		at := first.span
		if e.joins(b.join, at.start) {
			at.start = b.join
			nothing = " " + nothing
		} else if b.pad {
			nothing = " " + nothing // a flow list must be indented further than its key
		}
		e.edits = append(e.edits, edit{span: at, text: []byte(nothing)})
		entries = entries[1:]
	} else if inline {
		// The first entry shares its line with a dash, and the next one left takes its place there.
		run := 1
		for run < len(entries) && entries[run].index == run {
			run++
		}
		clean := true
		for _, one := range entries[:run] {
			clean = clean && strings.TrimSpace(e.text[e.lineEnd(one.end):max(one.next, e.lineEnd(one.end))]) == ""
		}
		if clean {
			e.delete(first.start, entries[run-1].next)
			entries = entries[run:]
		} else {
			start := first.start
			for isBlank(e.text[start-1]) {
				start--
			}
			e.delete(start, e.lineEnd(first.end))
			entries = entries[1:]
		}
	}
	for _, one := range entries {
		e.deleteLines(one.start, one.end)
	}
}

// deleteLines takes out the lines from that of start to that of end, with a comment at its end.
func (e *editor) deleteLines(start, end int) {
	start = e.lineStart(start)
	if start == 0 && strings.HasPrefix(e.text, bom) {
		start = len(bom)
	}
	end = e.lineEnd(end)
	if end < len(e.text) {
		if e.text[end] == '\r' && strings.HasPrefix(e.text[end+1:], "\n") {
			end++
		}
		end++
	}
	e.delete(start, end)
}

func (e *editor) lineStart(i int) int {
	for i > 0 && !isBreak(e.text[i-1]) {
		i--
	}
	return i
}

func (e *editor) lineEnd(i int) int {
	for i < len(e.text) && !isBreak(e.text[i]) {
		i++
	}
	return i
}

// apply gives the new text in memory of just its size, so that no copy of a secret stays behind.
func (e *editor) apply() []byte {
	if len(e.inserts) > 0 {
		e.edits, e.inserts = append(e.inserts, e.edits...), nil
	}
	inOrder := func(a, b edit) int { return a.start - b.start }
	if !slices.IsSortedFunc(e.edits, inOrder) {
		slices.SortStableFunc(e.edits, inOrder)
	}
	size := len(e.text)
	for _, one := range e.edits {
		size += len(one.text) + 1
	}
	out := make([]byte, 0, size)
	at := 0
	for _, one := range e.edits {
		if one.start > at {
			out = append(out, e.text[at:one.start]...)
		}
		if one.apart {
			out = append(out, ' ')
		}
		out = append(out, one.text...)
		at = max(at, one.end) // deletions may overlap
	}
	return append(out, e.text[at:]...)
}

// wipe zeroes the texts of the edits.
func (e *editor) wipe() {
	for _, one := range e.edits {
		clear(one.text)
	}
	for _, one := range e.inserts {
		clear(one.text)
	}
	for _, values := range e.lists {
		for _, one := range values {
			clear(one)
		}
	}
	for _, block := range e.blocks {
		clear(block[:cap(block)])
	}
}
