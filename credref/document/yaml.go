package document

import (
	"strings"
	"unicode/utf8"
)

// yamlReader reads a YAML 1.2 stream into events. It reads what YAML 1.1 readers take too, and is lenient where a
// document's own reader will complain anyway: its task is to know for sure where a value begins and ends.
//
// It calls itself for each level of nesting; the finder bounds the levels. Each byte is looked at a bounded number of
// times.
type yamlReader struct {
	f *finder
	s string
	i int

	line   int  // where the line of i begins
	spaces int  // how many spaces that line begins with
	first  int  // where the line's first token begins, -1 when i is past it
	tabbed bool // tabs stand before first
	end    int  // where the last token ended

	ownTags bool // !! is redefined
}

func readYAML(f *finder) error {
	r := &yamlReader{f: f, s: f.src.text}
	r.i = len(r.s) - len(strings.TrimPrefix(r.s, bom))
	r.newLine()
	for {
		r.skip()
		if r.fresh() && strings.HasPrefix(r.s[r.i:], bom) { // a BOM may begin each document
			r.i += len(bom)
			r.newLine()
			continue
		}
		directive := false
		for r.fresh() && r.spaces == 0 && r.peek() == '%' {
			directive = true
			n := r.lineEnd(r.i)
			if words := strings.Fields(r.s[r.i:n]); len(words) > 1 && words[0] == "%TAG" && words[1] == "!!" {
				r.ownTags = true
			}
			r.i = n
			r.skip()
		}
		start := r.marker("---")
		switch {
		case directive && !start:
			return r.fail("--- is expected after a directive")
		case r.i == len(r.s):
			return nil
		case r.marker("..."):
			r.i += 3
			if r.skip(); r.i < len(r.s) && !r.fresh() {
				return r.fail("something follows ... on its line")
			}
			r.ownTags = false
			continue
		}
		f.document()
		if start {
			r.i += 3
			r.end = r.i
		}
		if err := r.node(-1, true, false, r.i); err != nil {
			return err
		}
		r.skip()
		switch {
		case r.i == len(r.s) || r.marker("---"):
		case r.marker("..."):
		case r.fresh() && r.tabbed:
			return r.fail("a tab in the indentation")
		default:
			return r.fail("this does not belong to the value before it: check indentation, quotes and colons")
		}
	}
}

func (r *yamlReader) fail(reason string) error { return &syntaxError{r.i, reason} }

func (r *yamlReader) peek() byte { return r.at(r.i) }

// at gives the byte at i, 0 at the end.
func (r *yamlReader) at(i int) byte {
	if i < len(r.s) {
		return r.s[i]
	}
	return 0
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }
func isBreak(c byte) bool { return c == '\n' || c == '\r' }
func isFlow(c byte) bool  { return c == ',' || c == '[' || c == ']' || c == '{' || c == '}' }

// blankAt reports whether white space, a line break or the end is at i.
func (r *yamlReader) blankAt(i int) bool {
	return i >= len(r.s) || isBlank(r.s[i]) || isBreak(r.s[i])
}

func (r *yamlReader) lineEnd(i int) int {
	for i < len(r.s) && !isBreak(r.s[i]) {
		i++
	}
	return i
}

// newLine takes i as the beginning of a line.
func (r *yamlReader) newLine() {
	r.line, r.spaces, r.tabbed = r.i, 0, false
	for r.at(r.line+r.spaces) == ' ' {
		r.spaces++
	}
	r.first = r.line + r.spaces
}

// breakAt gives the offset after the line break at i.
func (r *yamlReader) breakAt(i int) int {
	if r.s[i] == '\r' && r.at(i+1) == '\n' {
		return i + 2
	}
	return i + 1
}

// skip goes to the next token, over white space, line breaks and comments.
func (r *yamlReader) skip() {
	for r.i < len(r.s) {
		switch c := r.s[r.i]; {
		case isBlank(c):
			lead := r.i <= r.first
			for isBlank(r.peek()) {
				if lead && r.i >= r.first && r.s[r.i] == '\t' {
					r.tabbed = true
				}
				r.i++
			}
			if lead {
				r.first = r.i
			}
		case isBreak(c):
			r.i = r.breakAt(r.i)
			r.newLine()
		case c == '#' && (r.i == r.line || isBlank(r.s[r.i-1]) || r.fresh()):
			r.i = r.lineEnd(r.i)
		default:
			return
		}
	}
}

// fresh reports whether i is at the first token of its line.
func (r *yamlReader) fresh() bool { return r.i == r.first }

func (r *yamlReader) column() int {
	if r.fresh() {
		return r.spaces
	}
	return r.i - r.line
}

// moveTo goes past a token that may span lines.
func (r *yamlReader) moveTo(i int) {
	for n := r.i; n < i; {
		if isBreak(r.s[n]) {
			n = r.breakAt(n)
			r.line, r.first = n, -1
			continue
		}
		n++
	}
	r.i, r.end = i, i
}

// marker reports whether --- or ... stands at i, at the beginning of a line.
func (r *yamlReader) marker(m string) bool {
	return r.i == r.line && r.markerAt(r.i, m)
}

func (r *yamlReader) markerAt(i int, m string) bool {
	return strings.HasPrefix(r.s[i:], m) && r.blankAt(i+3)
}

func (r *yamlReader) anyMarkerAt(i int) bool { return r.markerAt(i, "---") || r.markerAt(i, "...") }

// indicator reports whether c stands at i followed by white space.
func (r *yamlReader) indicator(c byte) bool { return r.peek() == c && r.blankAt(r.i+1) }

// node reads the value that belongs to an indicator which ends at after, in a collection of the given indentation.
// inline tells that a block collection may begin on the indicator's line; mapValue that a list may stand at the same
// indentation.
func (r *yamlReader) node(indent int, inline, mapValue bool, after int) error {
	p := props{after: after}
	for {
		r.skip()
		if r.fresh() {
			inline = true
			gone := r.spaces <= indent && !(mapValue && r.spaces == indent && r.indicator('-'))
			if gone || r.i == r.line && r.anyMarkerAt(r.i) {
				return r.empty(p)
			}
		}
		if r.i == len(r.s) {
			return r.empty(p)
		}
		if c := r.peek(); c != '&' && c != '!' {
			break
		}
		start := r.i
		q, err := r.props(false)
		if err != nil {
			return err
		}
		rest := r.peek()
		if r.i == len(r.s) || isBreak(rest) || rest == '#' && isBlank(r.s[r.i-1]) {
			if err := p.merge(q, start); err != nil {
				return err
			}
			continue
		}
		keyed := inline && r.keyAhead()
		if keyed {
			r.i = start
			break
		}
		if err := p.merge(q, start); err != nil {
			return err
		}
		inline = false
		break
	}
	column := r.column()
	collection := r.indicator('-') || r.indicator('?') || inline && (r.indicator(':') || r.keyAhead())
	if collection {
		switch {
		case !inline:
			return r.fail("a list or map must begin on a line of its own")
		case r.fresh() && r.tabbed:
			return r.fail("a tab in the indentation")
		case r.indicator('-'):
			return r.blockList(column, p, mapValue && column == indent)
		}
		return r.blockMap(column, p)
	}
	switch c := r.peek(); c {
	case '|', '>':
		return r.blockScalar(indent, p)
	case '[', '{':
		return r.flowCollection(c == '{', p)
	}
	a := atom{scalar: scalar{props: p}}
	if err := r.atom(&a, indent, false); err != nil {
		return err
	}
	return r.emit(&a)
}

// merge adds properties that stand on another line than those before.
func (p *props) merge(q props, at int) error {
	if p.anchor != "" && q.anchor != "" || p.tagged != tagNone && q.tagged != tagNone {
		return &syntaxError{at, "two anchors or two tags for one value"}
	}
	if q.anchor != "" {
		p.anchor, p.anchorAt = q.anchor, q.anchorAt
	}
	if q.tagged != tagNone {
		p.tagged, p.tag = q.tagged, q.tag
	}
	p.after = q.after
	return nil
}

// empty is a value of no characters.
func (r *yamlReader) empty(p props) error {
	kind := scalarNull
	if p.tagged == tagText {
		kind = scalarText
	} else if p.tagged != tagNone {
		kind = scalarOther
	}
	r.end = p.after
	return r.f.scalar(scalar{kind: kind, value: span{p.after, p.after}, props: p})
}

// props reads anchor and tag, and the white space after them.
func (r *yamlReader) props(flow bool) (p props, err error) {
	for {
		start := r.i
		switch r.peek() {
		case '&':
			if p.anchor != "" {
				return p, r.fail("two anchors for one value")
			}
			name, err := r.name()
			if err != nil {
				return p, err
			}
			p.anchor, p.anchorAt = name, start
		case '!':
			if p.tagged != tagNone {
				return p, r.fail("two tags for one value")
			}
			i := r.i + 1
			if r.at(i) == '<' {
				n := strings.IndexByte(r.s[i:r.lineEnd(i)], '>')
				if n < 0 {
					return p, r.fail("a tag without its end")
				}
				i += n + 1
			} else {
				for !r.blankAt(i) && !isFlow(r.s[i]) {
					i++
				}
			}
			r.i = i
			p.tag = span{start, i}
			p.tagged = r.tagKind(r.s[start:i])
		default:
			return p, nil
		}
		r.end, p.after = r.i, r.i
		if !r.blankAt(r.i) && !(flow && isFlow(r.peek())) {
			return p, r.fail("white space is expected after an anchor or a tag")
		}
		for isBlank(r.peek()) {
			r.i++
		}
	}
}

func (r *yamlReader) tagKind(tag string) tagKind {
	if !r.ownTags {
		if rest, ok := strings.CutPrefix(tag, "!!"); ok {
			tag = "!<tag:yaml.org,2002:" + rest + ">"
		}
	}
	switch tag {
	case "!", "!<tag:yaml.org,2002:str>":
		return tagText
	case "!<tag:yaml.org,2002:map>":
		return tagMap
	case "!<tag:yaml.org,2002:seq>":
		return tagSeq
	}
	return tagOther
}

// name reads the name of an anchor or alias, of which the indicator is at i.
func (r *yamlReader) name() (string, error) {
	i := r.i + 1
	for !r.blankAt(i) && !isFlow(r.s[i]) {
		i++
	}
	if i == r.i+1 {
		return "", r.fail("an anchor or alias without a name")
	}
	name := r.s[r.i+1 : i]
	r.i, r.end = i, i
	return name, nil
}

// keyAhead reports whether what is at i, within its line, is the key of a block map.
func (r *yamlReader) keyAhead() bool {
	i := r.i
	for r.at(i) == '&' || r.at(i) == '!' {
		for !r.blankAt(i) {
			i++
		}
		for isBlank(r.at(i)) {
			i++
		}
	}
	switch c := r.at(i); c {
	case '"', '\'':
		if i = r.quoteEnd(i, false); i < 0 {
			return false
		}
	case '[', '{':
		depth := 0
		for prev := byte(' '); ; i++ {
			c := r.at(i)
			if c == 0 || isBreak(c) {
				return false
			}
			switch {
			case (c == '"' || c == '\'') && (isBlank(prev) || isFlow(prev) || prev == ':'):
				if i = r.quoteEnd(i, false); i < 0 {
					return false
				}
				i--
			case c == '#' && isBlank(prev):
				return false
			case c == '[' || c == '{':
				depth++
			case c == ']' || c == '}':
				depth--
			}
			prev = c
			if depth == 0 {
				i++
				break
			}
		}
	case '*':
		for !r.blankAt(i) && !isFlow(r.s[i]) {
			i++
		}
	case '|', '>':
		return false
	case ':':
		if r.blankAt(i + 1) {
			return true
		}
		fallthrough
	default:
		if !r.plainStart(i, false) {
			return false
		}
		i = r.plainLine(i, false)
	}
	for isBlank(r.at(i)) {
		i++
	}
	return r.at(i) == ':' && r.blankAt(i+1)
}

// blockList reads - items at the given column.
func (r *yamlReader) blockList(column int, p props, pad bool) error {
	if err := r.f.open(frameList, r.i, boxStyle{layoutBlock, pad}, p); err != nil {
		return err
	}
	for {
		r.f.item(r.i)
		r.i++
		r.end = r.i
		if err := r.node(column, true, false, r.i); err != nil {
			return err
		}
		more, err := r.more(column)
		if err != nil {
			return err
		}
		if more && !r.indicator('-') {
			if !pad {
				return r.fail("- is expected, as at the items before")
			}
			more = false
		}
		if !more {
			r.f.close(r.end, span{})
			return nil
		}
	}
}

// more reports whether another entry of the block collection at column follows.
func (r *yamlReader) more(column int) (bool, error) {
	r.skip()
	switch {
	case r.i == len(r.s) || r.i == r.line && r.anyMarkerAt(r.i):
		return false, nil
	case !r.fresh():
		return false, r.fail("this does not belong to the value before it: check quotes and colons")
	case r.tabbed:
		return false, r.fail("a tab in the indentation")
	case r.spaces > column:
		return false, r.fail("the indentation fits no line before")
	}
	return r.spaces == column, nil
}

// blockMap reads key: value lines at the given column.
func (r *yamlReader) blockMap(column int, p props) error {
	if err := r.f.open(frameMap, r.i, boxStyle{layout: layoutBlock}, p); err != nil {
		return err
	}
	for {
		var err error
		if r.indicator('?') {
			err = r.explicitEntry(column)
		} else {
			err = r.implicitEntry(column)
		}
		if err != nil {
			return err
		}
		more, err := r.more(column)
		if err != nil {
			return err
		}
		if !more {
			r.f.close(r.end, span{})
			return nil
		}
		if r.indicator('-') {
			return r.fail("a list item among the keys of a map")
		}
		if !r.indicator('?') && !r.keyAhead() {
			return r.fail("a key followed by a colon is expected")
		}
	}
}

// explicitEntry reads ? key, and : value if it follows.
func (r *yamlReader) explicitEntry(column int) error {
	start := r.i
	if err := r.f.open(frameOpaque, start, boxStyle{}, props{}); err != nil {
		return err
	}
	r.i++
	r.end = r.i
	if err := r.node(column, true, true, r.i); err != nil {
		return err
	}
	r.f.closeKey(start)
	r.skip()
	if r.fresh() && r.spaces == column && r.indicator(':') {
		r.i++
		r.end = r.i
		return r.node(column, true, true, r.i)
	}
	return r.empty(props{after: r.end})
}

func (r *yamlReader) implicitEntry(column int) error {
	start := r.i
	p, err := r.props(false)
	if err != nil {
		return err
	}
	switch c := r.peek(); {
	case c == '[' || c == '{':
		if err := r.f.open(frameOpaque, start, boxStyle{}, props{}); err != nil {
			return err
		}
		if err := r.flowCollection(c == '{', p); err != nil {
			return err
		}
		r.f.closeKey(start)
	case r.indicator(':'):
		r.f.key(start, "", start, scalarNull)
	default:
		a := atom{scalar: scalar{props: p}}
		if err := r.atom(&a, -2, false); err != nil {
			return err
		}
		if err := r.emitKey(start, &a); err != nil {
			return err
		}
	}
	for isBlank(r.peek()) {
		r.i++
	}
	if !r.indicator(':') {
		return r.fail("a colon is expected after a key")
	}
	r.i++
	r.end = r.i
	return r.node(column, false, true, r.i)
}

// atom is a value without parts: a scalar, an alias, or a flow collection that has been told to the finder already.
type atom struct {
	scalar scalar
	alias  string
	told   bool
}

// atom reads into a, which has its properties, an alias or a scalar; below indent a plain scalar ends, -2 keeps it to its
// line.
func (r *yamlReader) atom(a *atom, indent int, flow bool) error {
	start := r.i
	s := &a.scalar
	p := &s.props
	switch c := r.peek(); {
	case c == '*':
		if p.anchor != "" || p.tagged != tagNone {
			return r.fail("an alias with an anchor or a tag of its own")
		}
		name, err := r.name()
		*a = atom{alias: name, scalar: scalar{value: span{start, r.i}}}
		return err
	case c == '"' || c == '\'':
		end := r.quoteEnd(start, true)
		if end < 0 {
			return r.fail("a string without its end")
		}
		body := r.s[start+1 : end-1]
		var err error
		if c == '"' {
			s.text, err = unescapeYAML(body, start+1)
		} else {
			s.text = unfoldSingle(body)
		}
		if err != nil {
			return err
		}
		r.moveTo(end)
	case !r.plainStart(start, flow):
		return r.fail("no value can begin with this character: put it in quotes")
	default:
		end := r.plainLine(start, flow)
		s.text = r.s[start:end]
		r.moveTo(end)
		if indent > -2 {
			text, err := r.plainRest(s.text, indent, flow)
			if err != nil {
				return err
			}
			s.text = text
		}
		s.kind = plainKind(s.text)
	}
	s.value = span{start, r.i}
	switch p.tagged {
	case tagText:
		s.kind = scalarText
	case tagOther, tagMap, tagSeq:
		s.kind = scalarOther
	}
	return nil
}

// emit tells the finder of a value.
func (r *yamlReader) emit(a *atom) error {
	switch {
	case a.told:
		return nil
	case a.alias != "":
		return r.f.alias(a.alias, a.scalar.value)
	}
	return r.f.scalar(a.scalar)
}

// emitKey tells the finder of a key.
func (r *yamlReader) emitKey(start int, a *atom) error {
	if a.alias != "" {
		return r.f.aliasKey(start, a.alias, a.scalar.value)
	}
	r.f.define(a.scalar.props, &a.scalar, nil)
	r.f.key(start, a.scalar.text, a.scalar.value.start, keyClass(a.scalar))
	return nil
}

// keyClass tells << apart from "<<".
func keyClass(s scalar) scalarKind {
	if s.text == "<<" && s.kind == scalarText && s.value.end-s.value.start == 2 {
		return scalarOther
	}
	return s.kind
}

// flowCollection reads [...] or {...}.
func (r *yamlReader) flowCollection(isMap bool, p props) error {
	kind, end := frameList, byte(']')
	if isMap {
		kind, end = frameMap, '}'
	}
	start := r.i
	if err := r.f.open(kind, start, boxStyle{layout: layoutFlow}, p); err != nil {
		return err
	}
	r.i++
	for {
		if err := r.skipFlow(); err != nil {
			return err
		}
		if r.peek() == end {
			r.i++
			r.end = r.i
			r.f.close(r.i, span{start + 1, r.i - 1})
			return nil
		}
		var err error
		if isMap {
			err = r.flowEntry()
		} else {
			err = r.flowItem()
		}
		if err != nil {
			return err
		}
		if err := r.skipFlow(); err != nil {
			return err
		}
		switch {
		case r.peek() == ',':
			r.f.comma(r.i)
			r.i++
			r.end = r.i
		case r.i == len(r.s):
			return &syntaxError{start, "a { or [ without its end"}
		case r.peek() != end:
			return r.fail("a comma or the end of the list or map is expected")
		}
	}
}

// skipFlow is skip within a flow collection.
func (r *yamlReader) skipFlow() error {
	r.skip()
	if r.i == r.line && r.anyMarkerAt(r.i) {
		return r.fail("a { or [ before here is without its end")
	}
	return nil
}

// flowEntry reads one entry of {...}.
func (r *yamlReader) flowEntry() error {
	start := r.i
	if r.indicator('?') {
		r.i++
		r.end = r.i
		if err := r.skipFlow(); err != nil {
			return err
		}
	}
	// Only a collection, which may have properties before it, tells the finder of anything.
	opaque := strings.IndexByte("[{&!", r.peek()) >= 0
	if opaque {
		if err := r.f.open(frameOpaque, start, boxStyle{}, props{}); err != nil {
			return err
		}
	}
	var a atom
	if err := r.flowAtom(&a); err != nil {
		return err
	}
	if opaque {
		r.f.close(r.i, span{})
	}
	if a.told {
		r.f.opaqueKey(start)
	} else if err := r.emitKey(start, &a); err != nil {
		return err
	}
	return r.flowPairValue()
}

// flowPairValue reads : and a value if they follow.
func (r *yamlReader) flowPairValue() error {
	end := r.end
	if err := r.skipFlow(); err != nil {
		return err
	}
	if r.peek() != ':' {
		return r.f.scalar(scalar{kind: scalarNull, value: span{end, end}, props: props{after: -1}})
	}
	r.i++
	r.end = r.i
	var a atom
	if err := r.flowAtom(&a); err != nil {
		return err
	}
	return r.emit(&a)
}

// flowItem reads one item of [...], which may be a single pair.
func (r *yamlReader) flowItem() error {
	start := r.i
	r.f.item(start)
	from := len(r.f.sites)
	if explicit := r.indicator('?'); explicit {
		if err := r.f.open(frameMap, start, boxStyle{layout: layoutPair}, props{after: -1}); err != nil {
			return err
		}
		if err := r.flowEntry(); err != nil {
			return err
		}
		r.f.close(r.end, span{})
		return nil
	}
	var a atom
	if err := r.flowAtom(&a); err != nil {
		return err
	}
	if r.peek() == ',' && r.i == start {
		return r.fail("a comma without a value before it")
	}
	// Whether a value follows decides if what was read was a key.
	if err := r.skipFlow(); err != nil {
		return err
	}
	if r.peek() != ':' {
		return r.emit(&a)
	}
	if a.told {
		r.f.retract(from)
	}
	if err := r.f.open(frameMap, start, boxStyle{layout: layoutPair}, props{after: -1}); err != nil {
		return err
	}
	if a.told {
		r.f.opaqueKey(start)
	} else if err := r.emitKey(start, &a); err != nil {
		return err
	}
	if err := r.flowPairValue(); err != nil {
		return err
	}
	r.f.close(r.end, span{})
	return nil
}

// flowAtom reads into a, which is zero, a value within a flow collection, which may be empty.
func (r *yamlReader) flowAtom(a *atom) error {
	p := &a.scalar.props
	p.after = -1
	after := r.end
	for {
		if err := r.skipFlow(); err != nil {
			return err
		}
		if c := r.peek(); c != '&' && c != '!' {
			break
		}
		start := r.i
		q, err := r.props(true)
		if err != nil {
			return err
		}
		after = q.after
		if err := p.merge(q, start); err != nil {
			return err
		}
		p.after = -1
	}
	switch c := r.peek(); {
	case r.i == len(r.s):
		return r.fail("a { or [ without its end")
	case c == ',' || c == ']' || c == '}' || c == ':' && (r.blankAt(r.i+1) || isFlow(r.at(r.i+1))):
		a.scalar.kind, a.scalar.value = scalarNull, span{after, after}
		if p.tagged == tagText {
			a.scalar.kind = scalarText
		}
		return nil
	case c == '[' || c == '{':
		a.told = true
		return r.flowCollection(c == '{', *p)
	}
	return r.atom(a, -1, true)
}

// plainStart reports whether a plain scalar can begin at i.
func (r *yamlReader) plainStart(i int, flow bool) bool {
	c := r.at(i)
	if c == '-' || c == '?' || c == ':' {
		return !r.blankAt(i+1) && !(flow && isFlow(r.at(i+1)))
	}
	return i < len(r.s) && strings.IndexByte(",[]{}#&*!|>'\"%@`", c) < 0
}

// plainLine gives the end of the part of a plain scalar that is on the line of i.
func (r *yamlReader) plainLine(i int, flow bool) int {
	end := i
	for ; i < len(r.s) && !isBreak(r.s[i]); i++ {
		c := r.s[i]
		if isBlank(c) {
			continue
		}
		if c == ':' && (r.blankAt(i+1) || flow && isFlow(r.at(i+1))) ||
			c == '#' && i > 0 && isBlank(r.s[i-1]) || flow && isFlow(c) {
			break
		}
		end = i + 1
	}
	return end
}

// plainRest reads the further lines of a plain scalar and gives all of it, folded.
func (r *yamlReader) plainRest(text string, indent int, flow bool) (string, error) {
	var b *strings.Builder
	for {
		i := r.i
		for isBlank(r.at(i)) {
			i++
		}
		if r.at(i) == ':' && !flow && r.blankAt(i+1) {
			r.i = i
			return "", r.fail("a colon within a value: put the value in quotes, or the key on a line of its own")
		}
		breaks := 0
		begin := i
		for i < len(r.s) && isBreak(r.s[i]) {
			i = r.breakAt(i)
			begin = i
			breaks++
			for r.at(i) == ' ' {
				i++
			}
			if spaces := i - begin; spaces <= indent && r.at(i) == '\t' {
				break // no more than a tab: not indented
			}
			for isBlank(r.at(i)) {
				i++
			}
		}
		spaces := 0
		for r.at(begin+spaces) == ' ' {
			spaces++
		}
		c := r.at(i)
		if breaks == 0 || i >= len(r.s) || isBlank(c) || c == '#' || !flow && spaces <= indent || r.anyMarkerAt(begin) && begin == i ||
			flow && (isFlow(c) || c == ':' && (r.blankAt(i+1) || isFlow(r.at(i+1)))) {
			if b == nil {
				return text, nil
			}
			return b.String(), nil
		}
		end := r.plainLine(i, flow)
		if end == i {
			r.moveTo(i)
			return "", r.fail("a colon within a value: put the value in quotes")
		}
		if b == nil {
			b = new(strings.Builder)
			b.WriteString(text)
		}
		fold(b, breaks)
		b.WriteString(r.s[i:end])
		r.moveTo(end)
	}
}

// fold writes what n line breaks between two lines of text stand for.
func fold(b *strings.Builder, n int) {
	if n == 1 {
		b.WriteByte(' ')
	}
	for ; n > 1; n-- {
		b.WriteByte('\n')
	}
}

// quoteEnd gives the offset after the quoted scalar at i, -1 when it has no end, or none on its line unless lines.
func (r *yamlReader) quoteEnd(i int, lines bool) int {
	quote := r.s[i]
	for i++; i < len(r.s); i++ {
		switch c := r.s[i]; {
		case isBreak(c):
			if !lines {
				return -1
			}
			if n := r.breakAt(i); n < len(r.s) && r.anyMarkerAt(n) {
				return -1
			}
		case c == '\\' && quote == '"':
			i++
			if i < len(r.s) && isBreak(r.s[i]) {
				i--
			}
		case c == quote:
			if quote == '\'' && r.at(i+1) == '\'' {
				i++
				continue
			}
			return i + 1
		}
	}
	return -1
}

// unfoldSingle gives the text of a single-quoted scalar.
func unfoldSingle(s string) string {
	if !strings.ContainsAny(s, "'\n\r") {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c == '\'':
			b.WriteByte(c)
			i += 2
		case isBlank(c) || isBreak(c):
			i = foldSpace(&b, s, i)
		default:
			b.WriteByte(c)
			i++
		}
	}
	return b.String()
}

// foldSpace writes what the white space of a quoted scalar at i stands for, and gives its end.
func foldSpace(b *strings.Builder, s string, i int) int {
	start, breaks := i, 0
	for i < len(s) && (isBlank(s[i]) || isBreak(s[i])) {
		if s[i] == '\n' || s[i] == '\r' && !strings.HasPrefix(s[i+1:], "\n") {
			breaks++
		}
		i++
	}
	if breaks == 0 {
		b.WriteString(s[start:i])
	} else {
		fold(b, breaks)
	}
	return i
}

// unescapeYAML gives the text of a double-quoted scalar of which the inside begins at offset at.
func unescapeYAML(s string, at int) (string, error) {
	if !strings.ContainsAny(s, "\\\n\r") {
		return s, nil
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); {
		c := s[i]
		if isBlank(c) || isBreak(c) {
			i = foldSpace(&b, s, i)
			continue
		}
		if c != '\\' {
			b.WriteByte(c)
			i++
			continue
		}
		if i+1 == len(s) {
			return "", &syntaxError{at + i, "an unknown escape"}
		}
		const names, values = "0abt\tnvfre \"/\\", "\x00\a\b\t\t\n\v\f\r\x1b \"/\\"
		e := s[i+1]
		size := 0
		switch {
		case strings.IndexByte(names, e) >= 0:
			b.WriteByte(values[strings.IndexByte(names, e)])
			i += 2
			continue
		case e == 'N':
			b.WriteRune(0x85)
			i += 2
			continue
		case e == '_':
			b.WriteRune(0xa0)
			i += 2
			continue
		case e == 'L':
			b.WriteRune(0x2028)
			i += 2
			continue
		case e == 'P':
			b.WriteRune(0x2029)
			i += 2
			continue
		case isBreak(e): // the line goes on without a space; empty lines after it count
			i += 2
			if e == '\r' && i < len(s) && s[i] == '\n' {
				i++
			}
			for i < len(s) && (isBlank(s[i]) || isBreak(s[i])) {
				if s[i] == '\n' || s[i] == '\r' && !strings.HasPrefix(s[i+1:], "\n") {
					b.WriteByte('\n')
				}
				i++
			}
			continue
		case e == 'x':
			size = 2
		case e == 'u':
			size = 4
		case e == 'U':
			size = 8
		}
		char, ok := hexadecimal(s, i+2, size)
		if size == 0 || !ok {
			return "", &syntaxError{at + i, "an unknown escape"}
		}
		i += 2 + size
		if 0xd800 <= char && char < 0xdc00 && strings.HasPrefix(s[i:], `\u`) { // as JSON writes it
			if low, ok := hexadecimal(s, i+2, 4); ok && 0xdc00 <= low && low < 0xe000 {
				char = (char-0xd800)<<10 + (low - 0xdc00) + 0x10000
				i += 6
			}
		}
		if !utf8.ValidRune(char) {
			char = utf8.RuneError
		}
		b.WriteRune(char)
	}
	return b.String(), nil
}

// blockScalar reads | or > and its lines.
func (r *yamlReader) blockScalar(indent int, p props) error {
	start := r.i
	folded := r.s[r.i] == '>'
	chomp, explicit := byte(0), 0
	for r.i++; !r.blankAt(r.i); r.i++ {
		switch c := r.s[r.i]; {
		case (c == '+' || c == '-') && chomp == 0:
			chomp = c
		case '1' <= c && c <= '9' && explicit == 0:
			explicit = int(c - '0')
		default:
			return r.fail("a wrong indicator after | or >")
		}
	}
	r.end = r.i
	for isBlank(r.peek()) {
		r.i++
	}
	if r.peek() == '#' && isBlank(r.s[r.i-1]) {
		r.i = r.lineEnd(r.i)
	}
	if r.i < len(r.s) && !isBreak(r.s[r.i]) {
		return r.fail("something follows | or > on its line")
	}
	if r.i < len(r.s) {
		r.i = r.breakAt(r.i)
	}
	width := max(indent, 0) + explicit
	if explicit == 0 {
		width = r.blockWidth(indent)
	}
	text := blockText{folded: folded}
	for r.i < len(r.s) {
		n := 0
		for n < width && r.at(r.i+n) == ' ' {
			n++
		}
		end := r.lineEnd(r.i + n)
		blank := r.i+n == end
		if n < width && !blank || width == 0 && r.anyMarkerAt(r.i) {
			break
		}
		text.add(r.s[r.i+n : end])
		if !blank {
			r.end = end
		}
		if end == len(r.s) {
			r.i = end
			if !blank {
				chomp = '-' // there is no line break to keep
			}
			break
		}
		r.i = r.breakAt(end)
	}
	end := r.end
	r.newLine()
	if r.i == len(r.s) {
		r.first = -1
	}
	s := scalar{kind: scalarText, text: text.finish(chomp), value: span{start, end}, props: p}
	if p.tagged != tagNone && p.tagged != tagText {
		s.kind = scalarOther
	}
	return r.f.scalar(s)
}

// blockWidth gives the indentation of the first line of a block scalar that is not blank.
func (r *yamlReader) blockWidth(indent int) int {
	most := indent + 1
	for i := r.i; i < len(r.s); {
		begin := i
		for r.at(i) == ' ' {
			i++
		}
		if i < len(r.s) && !isBreak(r.s[i]) {
			if i-begin <= indent {
				break
			}
			return i - begin
		}
		most = max(most, i-begin)
		if i < len(r.s) {
			i = r.breakAt(i)
		}
	}
	return most
}

// blockText joins the lines of a block scalar.
type blockText struct {
	b      strings.Builder
	folded bool
	any    bool // a line that is not empty was there
	spaced bool // the last such line begins with white space
	blank  int  // empty lines since
}

func (t *blockText) add(line string) {
	if line == "" {
		t.blank++
		return
	}
	spaced := isBlank(line[0])
	switch {
	case !t.any:
		t.breaks(t.blank)
	case !t.folded || spaced || t.spaced: // a line that is indented further keeps its line breaks
		t.breaks(t.blank + 1)
	default:
		fold(&t.b, t.blank+1)
	}
	t.b.WriteString(line)
	t.any, t.spaced, t.blank = true, spaced, 0
}

func (t *blockText) breaks(n int) {
	for range n {
		t.b.WriteByte('\n')
	}
}

// finish gives the text; chomp is +, - or 0.
func (t *blockText) finish(chomp byte) string {
	switch {
	case chomp == '+' && t.any:
		t.breaks(t.blank + 1)
	case chomp == '+':
		t.breaks(t.blank)
	case chomp == 0 && t.any:
		t.breaks(1)
	}
	return t.b.String()
}

// plainKind gives the type of a plain scalar, as the core schema of YAML 1.2 has it.
func plainKind(s string) scalarKind {
	if s != "" && strings.IndexByte("~nNtTfF+-.0123456789", s[0]) < 0 {
		return scalarText
	}
	switch s {
	case "", "~", "null", "Null", "NULL":
		return scalarNull
	case "true", "True", "TRUE", "false", "False", "FALSE":
		return scalarBool
	}
	t := strings.TrimLeft(s[:1], "+-") + s[1:]
	switch t {
	case ".inf", ".Inf", ".INF", ".nan", ".NaN", ".NAN":
		return scalarNumber
	}
	if len(s) > 2 && (s[:2] == "0x" && strings.Trim(s[2:], "0123456789abcdefABCDEF") == "" ||
		s[:2] == "0o" && strings.Trim(s[2:], "01234567") == "") {
		return scalarNumber
	}
	mantissa, exponent, hasExponent := strings.Cut(strings.ToLower(t), "e")
	whole, fraction, hasPoint := strings.Cut(mantissa, ".")
	if whole == "" && fraction == "" || whole != "" && !isDigits(whole) || fraction != "" && !isDigits(fraction) || whole == "" && !hasPoint {
		return scalarText
	}
	if hasExponent && !isDigits(strings.TrimLeft(exponent[:min(1, len(exponent))], "+-")+exponent[min(1, len(exponent)):]) {
		return scalarText
	}
	return scalarNumber
}

// hexadecimal reads n digits of s from i on.
func hexadecimal(s string, i, n int) (rune, bool) {
	if i+n > len(s) {
		return 0, false
	}
	var char rune
	for _, c := range []byte(s[i : i+n]) {
		switch {
		case '0' <= c && c <= '9':
			char = char<<4 | rune(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			char = char<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	return char, true
}
