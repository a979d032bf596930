package document

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// finder takes the events of a parser and makes sites of them. It holds the open containers alone, not a tree: what a
// document of many small values costs is its text and its sites.
type finder struct {
	src    *source
	opts   *settings
	faults faults
	sites  []*Site
	room   []Site // of which the next sites are made
	stack  []frame
	nodes  int // keys and values so far

	// What the open containers hold, each frame its own from where it began: a container that is closed leaves its room to
	// the next.
	members []member
	keys    []string
	only    scalar // the last one in a frameOpaque
	text    []byte // for path

	anchors map[string]*anchor // of the YAML document under way
	tail    []*anchor          // the same in order, those within a site taken off

	documents int    // of the YAML stream
	notMap    bool   // a document is neither a map nor empty
	vars      *[]Var // what Env asks for; nil in Parse
	stop      error  // more refs or nodes than are allowed
	readAll   bool   // nothing stopped the reading; set by finish

	trace func(event, string, scalar) // what a test wants to see; nil otherwise
}

// event is what a parser tells, for trace.
type event uint8

const (
	eventDocument event = iota
	eventMap
	eventList
	eventEnd
	eventKey
	eventOpaqueKey
	eventScalar
	eventAlias
)

func (f *finder) tell(e event, name string, s scalar) {
	if t := f.top(); f.trace != nil && (t == nil || t.kind != frameOpaque) {
		f.trace(e, name, s)
	}
}

// frame is an open container.
type frame struct {
	kind  frameKind
	style boxStyle
	start int
	props props

	key      string // of the entry under way
	index    int    // of the entry under way, -1 before the first
	step     bool   // of framePath: the entry is an item, not a key
	merge    bool   // the key is YAML's <<
	firstKey int    // where its keys begin in finder.keys
	seen     map[string]struct{}
	entry    int // where the entry under way begins
	comma    int // the last comma, -1 for none
	lastFull *entry
	box      *box

	firstMember int      // where its members begin in finder.members; there are none once it cannot be a ref of either kind
	notRef      bool     // it holds a key of no CredentialRef
	notForeign  bool     // it holds a key of no foreign ref
	firstSite   int      // len(sites) when it was opened
	firstFault  int      // faults when it was opened
	ignored     tristate // whether the container itself is to be left alone
	anchor      *anchor

	values int // of frameOpaque: how many it holds, 2 standing for more; 1 is always a scalar, finder.only
}

// manyKeys is from how many on a map's keys are looked for in a Go map.
const manyKeys = 16

type frameKind uint8

const (
	frameMap frameKind = iota
	frameList
	frameOpaque // a key that is a container: holds no refs
	framePath   // a step of a TOML path: no container of its own
)

type tristate uint8

const (
	unknown tristate = iota
	no
	yes
)

// boxStyle is what a parser knows of a container's layout.
type boxStyle struct {
	layout layout
	pad    bool
}

// props are what may stand before a YAML value.
type props struct {
	after    int // where the indicator or the properties before the value end; -1 for formats other than YAML blocks
	anchor   string
	anchorAt int
	tag      span
	tagged   tagKind
}

type tagKind uint8

const (
	tagNone tagKind = iota
	tagText         // !!str and the non-specific !
	tagMap          // !!map
	tagSeq          // !!seq
	tagOther
)

// scalarKind is the type of a scalar value.
type scalarKind uint8

const (
	scalarText scalarKind = iota
	scalarNumber
	scalarBool
	scalarNull
	scalarOther // dates and what else has a tag
)

// scalar is a value without parts.
type scalar struct {
	kind  scalarKind
	text  string // decoded if scalarText, else as it is written
	value span
	props props
}

// member is an entry of a map that may be a ref.
type member struct {
	key      string
	kind     memberKind
	scalar   scalar
	at       int
	from, to int   // the sites it is or holds, as indices into sites
	refs     bool  // it is a ref, or a list of nothing but refs
	alias    *Site // the site to which it is an alias
}

type memberKind uint8

const (
	memberScalar memberKind = iota
	memberMap
	memberList
)

// anchor is a YAML anchor: what an alias to it stands for where that matters.
type anchor struct {
	at        int
	scalar    *scalar
	site      *Site
	swallowed bool // it stood within a ref, and goes with it
}

var refKeys = []string{"provider", "id", "version", "field", "optional", "default", "fallback"}

func newFinder(src *source, opts *settings) *finder {
	return &finder{src: src, opts: opts, anchors: map[string]*anchor{}}
}

// document begins a YAML document.
func (f *finder) document() {
	f.documents++
	f.tell(eventDocument, "", scalar{})
	clear(f.anchors)
	f.tail = f.tail[:0]
	f.stack = f.stack[:0]
	f.members, f.keys = f.members[:0], f.keys[:0]
}

// node counts a key or a value.
func (f *finder) node(at int) {
	if f.nodes++; f.nodes > f.opts.maxNodes && f.stop == nil {
		f.stop = tooManyNodes(at, f.opts.maxNodes)
	}
}

func tooManyNodes(at, most int) *syntaxError {
	return &syntaxError{at, fmt.Sprintf("more than %d keys and values", most)}
}

func (f *finder) top() *frame {
	if len(f.stack) == 0 {
		return nil
	}
	return &f.stack[len(f.stack)-1]
}

// open begins a container. Its error is a syntaxError: too many levels.
func (f *finder) open(kind frameKind, start int, style boxStyle, p props) error {
	if len(f.stack) >= f.opts.maxDepth {
		return &syntaxError{start, fmt.Sprintf("more than %d levels of nesting", f.opts.maxDepth)}
	}
	switch kind {
	case frameMap:
		f.tell(eventMap, "", scalar{props: p})
		f.node(start)
	case frameList:
		f.tell(eventList, "", scalar{props: p})
		f.node(start)
	}
	if t := f.top(); t != nil && t.kind == frameOpaque {
		kind = frameOpaque
		t.values = 2
	}
	f.stack = append(f.stack, frame{
		kind: kind, style: style, start: start, props: p, index: -1, comma: -1,
		firstSite: len(f.sites), firstFault: f.faults.len(), anchor: f.define(p, nil, nil),
		firstMember: len(f.members), firstKey: len(f.keys), notForeign: f.opts.foreign == nil,
	})
	return f.stop
}

// item begins an item of the list on top.
func (f *finder) item(start int) {
	f.begin(f.top(), start)
}

func (f *finder) begin(t *frame, start int) {
	t.index++
	t.entry = start
	if t.lastFull != nil {
		t.lastFull.next = start
		t.lastFull = nil
	}
}

// key begins an entry of the map on top; text is the decoded key, at where it stands. class keeps apart keys of equal
// text and different types.
func (f *finder) key(start int, text string, at int, class scalarKind) {
	t := f.top()
	f.begin(t, start)
	t.key = text
	f.node(at)
	f.tell(eventKey, text, scalar{})
	if t.kind != frameMap {
		return
	}
	t.merge = class == scalarOther && text == "<<"
	if !t.merge {
		id := text
		if class != scalarText {
			id = "\x00" + text
		}
		if f.twice(t, id, at) {
			f.faults.add(fault{offset: at, path: f.path(true), reason: "the key is there twice"})
		}
	}
	t.notRef = t.notRef || !slices.Contains(refKeys, text)
	t.notForeign = t.notForeign || !slices.Contains(f.opts.foreign.Keys, text)
	if t.isOthers() {
		f.members = f.members[:t.firstMember]
	}
}

// isOthers reports whether the keys of t, so far, make it a ref of neither kind.
func (t *frame) isOthers() bool { return t.notRef && t.notForeign }

// twice notes a key, which stands at at, of the map on top and reports whether it was there already.
func (f *finder) twice(t *frame, id string, at int) bool {
	if t.seen == nil {
		own := f.keys[t.firstKey:]
		if slices.Contains(own, id) {
			return true
		}
		if len(own) < manyKeys {
			f.keys = append(f.keys, id)
			return false
		}
		room := 4 * manyKeys
		if len(f.stack) == 1 && f.documents <= 1 { // all else in the document is probably more of the same
			room = min(manyKeys*(len(f.src.text)-t.start)/(at-t.start+1), 1<<14)
		}
		t.seen = make(map[string]struct{}, room)
		for _, key := range own {
			t.seen[key] = struct{}{}
		}
	}
	before := len(t.seen)
	t.seen[id] = struct{}{}
	return len(t.seen) == before
}

// others notes that t, which is on top, is no ref.
func (f *finder) others(t *frame) {
	t.notRef, t.notForeign = true, true
	f.members = f.members[:t.firstMember]
}

// opaqueKey begins an entry of the map on top whose key is no scalar.
func (f *finder) opaqueKey(start int) {
	t := f.top()
	f.begin(t, start)
	t.key = "?"
	f.node(start)
	f.tell(eventOpaqueKey, "", scalar{})
	f.others(t)
	t.merge = false
}

// comma tells of a comma in the container on top.
func (f *finder) comma(at int) {
	t := f.top()
	t.comma = at
	if t.lastFull != nil {
		t.lastFull.commaAfter = at
	}
}

// scalar is a value: that of the entry under way, or a whole document.
func (f *finder) scalar(s scalar) error {
	f.tell(eventScalar, "", s)
	if t := f.top(); t != nil && t.kind == frameOpaque {
		f.define(s.props, &s, nil)
		t.values++
		f.only = s
		return f.stop
	}
	f.node(s.value.start)
	from := len(f.sites)
	var site *Site
	if s.kind == scalarText && s.props.tagged <= tagText {
		site = f.textSite(&s)
	}
	f.define(s.props, &s, site)
	f.value(&member{kind: memberScalar, scalar: s, at: s.value.start, from: from, to: len(f.sites), refs: site != nil}, s.value.end, site)
	return f.stop
}

// textSite makes a site of a text; nil when it is no ref, or a wrong one.
func (f *finder) textSite(s *scalar) *Site {
	var (
		ref   credref.Ref
		other any
		ok    bool
	)
	switch foreign := f.opts.foreign; {
	case credref.IsShortForm(s.text):
		if f.ignoredHere() {
			return nil
		}
		ref, ok = f.parseShort(s.text, s.value.start)
	case foreign != nil && foreign.Text != nil:
		other, ok = foreign.Text(s.text)
		ok = ok && !f.ignoredHere()
	}
	if !ok {
		return nil
	}
	site := f.newSite(s.value, s.props)
	site.Ref, site.Foreign = ref, other
	f.addSite(site)
	return site
}

func (f *finder) addSite(s *Site) {
	f.sites = append(f.sites, s)
	if len(f.sites) > f.opts.maxRefs && f.stop == nil {
		f.stop = &syntaxError{s.value.start, fmt.Sprintf("more than %d refs", f.opts.maxRefs)}
	}
}

func (f *finder) parseShort(text string, at int) (credref.Ref, bool) {
	ref, err := credref.Parse(text)
	if err != nil {
		f.faults.add(fault{offset: at, path: f.path(true), reason: err.Error()})
		return ref, false
	}
	return ref, f.knownProvider(ref.Provider, at)
}

// knownProvider reports an unknown provider, by the known name that is nearest: what stands there may be anything.
func (f *finder) knownProvider(name string, at int) bool {
	if f.opts.providers == nil || slices.Contains(f.opts.providers, name) {
		return true
	}
	one := fault{offset: at, path: f.path(true), reason: "unknown provider"}
	if near := backend.Nearest(name, f.opts.providers); near != "" {
		one.remedy = fmt.Sprintf("did you mean %q?", near)
	} else if n := len(f.opts.providers); n > 0 && n <= 20 {
		one.remedy = "known providers: " + strings.Join(f.opts.providers, ", ")
	}
	f.faults.add(one)
	return false
}

// alias is a YAML alias as a value.
func (f *finder) alias(name string, at span) error {
	f.tell(eventAlias, name, scalar{})
	a := f.anchors[name]
	if a == nil {
		return &syntaxError{at.start, "an alias without its anchor"}
	}
	f.useAnchor(a, at)
	if t := f.top(); t != nil && t.kind == frameOpaque {
		t.values = 2
		return f.stop
	}
	f.node(at.start)
	f.noMerge(a, at)
	m := member{kind: memberMap, at: at.start, alias: a.site}
	if a.scalar != nil {
		m.kind, m.scalar = memberScalar, *a.scalar
		m.scalar.value = at
	}
	f.value(&m, at.end, nil)
	return f.stop
}

// aliasKey begins an entry of the map on top whose key is an alias.
func (f *finder) aliasKey(start int, name string, at span) error {
	a := f.anchors[name]
	if a == nil {
		return &syntaxError{at.start, "an alias without its anchor"}
	}
	f.useAnchor(a, at)
	f.opaqueKey(start)
	return nil
}

func (f *finder) useAnchor(a *anchor, at span) {
	if a.swallowed {
		f.faults.add(fault{
			offset: at.start, path: f.path(true),
			reason: "the alias names a part of a ref, which is gone once the ref is replaced",
			remedy: "write the value again instead of the alias",
		})
	}
	if a.site != nil {
		a.site.aliased = true
	}
}

// noMerge reports a merge of what becomes a string: <<: *a, or <<: [*a, *b].
func (f *finder) noMerge(a *anchor, at span) {
	if a.site != nil && f.merging() {
		f.faults.add(fault{
			offset: at.start, path: f.path(true),
			reason: "<< merges a ref, which is no map once it is replaced",
			remedy: "write the ref out, or merge a map that is no ref itself",
		})
	}
}

// merging reports whether the entry under way is merged into a map by YAML's <<.
func (f *finder) merging() bool {
	n := len(f.stack)
	if n > 1 && f.stack[n-1].kind == frameList {
		n--
	}
	return n > 0 && f.stack[n-1].kind == frameMap && f.stack[n-1].merge
}

// closeKey ends the opaque container on top, which held the key of an entry that begins at start.
func (f *finder) closeKey(start int) {
	values := f.top().values
	f.pop()
	if values == 1 {
		f.key(start, f.only.text, f.only.value.start, keyClass(f.only))
		return
	}
	f.opaqueKey(start)
}

// pop takes the container off the stack that is on top.
func (f *finder) pop() {
	t := f.top()
	f.members, f.keys = f.members[:t.firstMember], f.keys[:t.firstKey]
	f.stack = f.stack[:len(f.stack)-1]
}

// retract takes back the sites from the given one on: what held them turned out to be a key.
func (f *finder) retract(from int) {
	f.sites = f.sites[:min(from, len(f.sites))]
	f.top().lastFull = nil
}

// define remembers an anchor; nil when p has none.
func (f *finder) define(p props, s *scalar, site *Site) *anchor {
	if p.anchor == "" {
		return nil
	}
	a := &anchor{at: p.anchorAt, site: site}
	if s != nil {
		c := *s
		a.scalar = &c
	}
	f.anchors[p.anchor] = a
	f.tail = append(f.tail, a)
	return a
}

// close ends the container on top, of which the last byte is before end. inner is what is between its brackets.
func (f *finder) close(end int, inner span) {
	t := f.top()
	f.tell(eventEnd, "", scalar{})
	if t.kind == frameOpaque || t.kind == framePath {
		f.pop()
		return
	}
	if t.box != nil {
		t.box.count, t.box.inner = t.index+1, inner
	}
	m := member{kind: memberList, at: t.start, from: t.firstSite}
	if t.kind == frameMap {
		m.kind = memberMap
	} else {
		m.refs = t.index >= 0 && len(f.sites)-t.firstSite == t.index+1
		for _, s := range f.sites[t.firstSite:] {
			m.refs = m.refs && s.depth == len(f.stack)
		}
	}
	done := *t
	f.stack = f.stack[:len(f.stack)-1]
	var site *Site
	if done.kind == frameMap && !done.isOthers() && f.opts.style != RefsShort && !f.merging() &&
		(done.props.tagged == tagNone || done.props.tagged == tagMap) {
		if done.notRef {
			site = f.foreignMap(&done, end)
		} else {
			site = f.refMap(&done, end)
		}
		m.refs = site != nil
	}
	m.to = len(f.sites)
	if done.anchor != nil {
		done.anchor.site = site
	}
	f.members, f.keys = f.members[:done.firstMember], f.keys[:done.firstKey]
	f.value(&m, end, site)
}

// value ends the entry under way.
func (f *finder) value(m *member, end int, site *Site) {
	t := f.top()
	if t == nil {
		empty := m.kind == memberScalar && m.scalar.kind == scalarNull
		f.notMap = f.notMap || site != nil || m.kind != memberMap && !empty
		return
	}
	if site != nil && site.Optional {
		f.addEntry(t, end, site)
	}
	switch t.kind {
	case frameMap:
		if !t.isOthers() {
			m.key = t.key
			f.members = append(f.members, *m)
		}
		if f.vars != nil && len(f.stack) == 1 {
			f.addVar(t.key, m, site)
		}
	case framePath:
		if f.vars != nil {
			f.addVar(f.stack[0].key, m, site)
		}
	}
}

func (f *finder) addEntry(t *frame, end int, site *Site) {
	if t.kind == framePath {
		t.box = &box{layout: layoutLines}
	}
	if t.box == nil {
		t.box = &box{layout: t.style.layout, pad: t.style.pad, isMap: t.kind == frameMap, join: t.props.after}
	}
	site.entry = &entry{span: span{t.entry, end}, box: t.box, index: t.index, next: -1, commaBefore: t.comma, commaAfter: -1}
	t.lastFull = site.entry
}

// isText reports whether m is there and a string.
func (m *member) isText() bool {
	return m != nil && m.kind == memberScalar && m.scalar.kind == scalarText && m.scalar.props.tagged <= tagText
}

// foreignMap makes a site of a map with no keys but those of a foreign ref; nil when it is none.
func (f *finder) foreignMap(t *frame, end int) *Site {
	members := f.members[t.firstMember:]
	texts := make(map[string]string, len(members))
	for i := range members {
		if !members[i].isText() {
			return nil
		}
		texts[members[i].key] = members[i].scalar.text
	}
	if f.ignoredHere() {
		return nil
	}
	foreign, ok := f.opts.foreign.Map(texts)
	if !ok {
		return nil
	}
	site := f.newSite(span{t.start, end}, t.props)
	site.isMap, site.Foreign = true, foreign
	f.sites = f.sites[:t.firstSite]
	f.addSite(site)
	f.swallow(t)
	return site
}

// swallow notes that the anchors in t, which is a ref, go with it.
func (f *finder) swallow(t *frame) {
	for len(f.tail) > 0 && f.tail[len(f.tail)-1].at >= t.start {
		f.tail[len(f.tail)-1].swallowed = true
		f.tail = f.tail[:len(f.tail)-1]
	}
}

// refMap makes a site of a map with no keys but those of a ref; nil when it is none, or a wrong one.
func (f *finder) refMap(t *frame, end int) *Site {
	members := f.members[t.firstMember:]
	get := func(key string) *member {
		for i := range members {
			if members[i].key == key {
				return &members[i]
			}
		}
		return nil
	}
	text := (*member).isText
	provider, id := get("provider"), get("id")
	if !text(provider) || id == nil || f.ignoredHere() {
		return nil
	}
	before := f.faults.len()
	fail := func(m *member, reason, remedy string) {
		path := f.path(true)
		if path == "." {
			path = ""
		} else {
			path += "."
		}
		f.faults.add(fault{offset: m.at, path: path + m.key, reason: reason, remedy: remedy})
	}
	if !text(id) {
		if f.opts.providers != nil && slices.Contains(f.opts.providers, provider.scalar.text) {
			fail(id, "the id must be a string", "write it in quotes")
		}
		return nil
	}
	site := f.newSite(span{t.start, end}, t.props)
	site.isMap = true
	site.Ref = credref.Ref{Provider: provider.scalar.text, ID: id.scalar.text}
	known := f.knownProvider(site.Ref.Provider, t.start)
	if m := get("version"); m != nil {
		switch {
		case text(m) && m.scalar.text != "", m.kind == memberScalar && m.scalar.kind == scalarNumber && isDigits(m.scalar.text):
			site.Ref.Version = m.scalar.text
		default:
			fail(m, "the version must be a string that is not empty, or a whole number", "")
		}
	}
	if m := get("field"); m != nil {
		if text(m) && m.scalar.text != "" {
			site.Ref.Field = m.scalar.text
		} else {
			fail(m, "the field must be a string that is not empty", "write it in quotes")
		}
	}
	if m := get("optional"); m != nil {
		if m.kind == memberScalar && m.scalar.kind == scalarBool {
			site.Optional = strings.EqualFold(m.scalar.text, "true")
		} else {
			fail(m, "optional must be true or false", "")
		}
	}
	if m := get("default"); m != nil {
		ok := m.kind == memberScalar && m.from == m.to
		if ok {
			site.Default, ok = literal(m.scalar)
		}
		if !ok {
			fail(m, "the default must be a string, or a number, true, false or null as JSON writes it", "a ref belongs into fallback")
		}
	}
	if m := get("fallback"); m != nil {
		for _, s := range f.sites[m.from:m.to] {
			if s.Optional || len(s.Fallback) > 0 || !s.Default.IsZero() {
				f.faults.add(fault{offset: s.value.start, path: s.Path, reason: "a fallback has no optional, default or fallback of its own"})
			}
			if s.Foreign != nil {
				f.faults.add(fault{offset: s.value.start, path: s.Path, reason: "a fallback must be a ref of the same kind, {provider, id} or a cred:// text"})
			}
			site.Fallback = append(site.Fallback, s.Ref)
		}
		if !m.refs && f.faults.len() == t.firstFault {
			fail(m, "fallback must be a ref or a list of refs", "write them out, aliases are not followed here")
		}
	}
	if err := site.Ref.Validate(); err != nil && known {
		f.faults.add(fault{offset: t.start, path: f.path(true), reason: err.Error()})
	}
	f.sites = f.sites[:t.firstSite]
	if f.faults.len() > before {
		return nil
	}
	f.addSite(site)
	f.swallow(t)
	return site
}

func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// literal gives a scalar of the document as a secret.
func literal(s scalar) (backend.Secret, bool) {
	switch s.kind {
	case scalarText:
		return backend.NewSecretString(s.text), s.props.tagged <= tagText
	case scalarNull:
		return backend.NewJSONSecret([]byte("null")), true
	case scalarBool:
		return backend.NewJSONSecret([]byte(strings.ToLower(s.text))), true
	case scalarNumber:
		if json.Valid([]byte(s.text)) {
			return backend.NewJSONSecret([]byte(s.text)), true
		}
	}
	return backend.Secret{}, false
}

func (f *finder) newSite(value span, p props) *Site {
	line, column := f.src.place(value.start)
	if len(f.room) == 0 {
		f.room = make([]Site, min(1+len(f.sites), 64))
	}
	s := &f.room[0]
	f.room = f.room[1:]
	*s = Site{
		File: f.src.name, Line: line, Column: column, Path: f.path(false),
		value: value, join: -1, tag: p.tag, depth: len(f.stack),
	}
	t := f.top()
	if t != nil && t.style.layout == layoutBlock {
		s.join = p.after
	}
	for i := range f.stack {
		s.flow = s.flow || f.stack[i].style.layout == layoutFlow
	}
	return s
}

// path is where the entry under way stands, for people. In an error a long key is cut.
func (f *finder) path(short bool) string {
	b := f.text[:0]
	for i := range f.stack {
		t := &f.stack[i]
		switch {
		case t.index < 0:
		case t.isList():
			b = append(b, '[')
			b = strconv.AppendInt(b, int64(t.index), 10)
			b = append(b, ']')
		case isWord(t.key):
			if len(b) > 0 {
				b = append(b, '.')
			}
			b = append(b, t.key...)
		default:
			key := t.key
			if runes := []rune(key); short && len(runes) > 64 {
				key = string(runes[:64]) + "…"
			}
			b = append(b, '[')
			b = strconv.AppendQuote(b, key)
			b = append(b, ']')
		}
		if short && len(b) > 512 {
			b = append(b, "…"...)
			break
		}
	}
	f.text = b
	if len(b) == 0 {
		return "."
	}
	return string(b)
}

func isWord(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '_' && (c|0x20 < 'a' || c|0x20 > 'z') && (i == 0 || c != '-' && (c < '0' || c > '9')) {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// ignoredHere reports whether the entry under way lies in a part that is to be left alone.
func (f *finder) ignoredHere() bool {
	if len(f.opts.ignore) == 0 {
		return false
	}
	segments := make([]string, 0, len(f.stack))
	for i := range f.stack {
		t := &f.stack[i]
		if t.ignored == unknown {
			t.ignored = no
			if f.matchIgnore(segments) {
				t.ignored = yes
			}
		}
		if t.ignored == yes {
			return true
		}
		if t.isList() {
			segments = append(segments, strconv.Itoa(t.index))
		} else {
			segments = append(segments, escapeSegment(t.key))
		}
	}
	return f.matchIgnore(segments)
}

// isList tells whether the entry under way has an index instead of a key. A step of a TOML path into a list has no key.
func (t *frame) isList() bool {
	return t.kind == frameList || t.kind == framePath && t.step
}

func (f *finder) matchIgnore(segments []string) bool {
	for _, g := range f.opts.ignore {
		if g.match(segments) {
			return true
		}
	}
	return false
}

const notFlat = "an environment variable must be a scalar or a ref, not a map or a list"

// addVar takes an entry of a flat map as a variable.
func (f *finder) addVar(name string, m *member, site *Site) {
	if site == nil {
		site = m.alias
	}
	v := Var{Name: name, Site: site}
	switch {
	case len(f.stack) > 1:
		f.faults.add(fault{offset: m.at, path: f.path(true), reason: notFlat})
	case name == "" || strings.ContainsAny(name, "=\x00"):
		f.faults.add(fault{offset: m.at, path: f.path(true), reason: "the key cannot name an environment variable"})
	case site != nil:
	case m.kind != memberScalar:
		f.faults.add(fault{offset: m.at, path: f.path(true), reason: notFlat})
	case m.scalar.kind == scalarNull:
		return // null: not set
	case strings.ContainsRune(m.scalar.text, 0):
		f.faults.add(fault{offset: m.at, path: f.path(true), reason: "an environment variable cannot hold a NUL"})
	default:
		v.Value = m.scalar.text
	}
	*f.vars = append(*f.vars, v)
}

// finish gives what is wrong with the document, stopped by err if that is not nil.
func (f *finder) finish(err error) error {
	var stop *syntaxError
	if errors.As(err, &stop) {
		f.faults.add(fault{offset: stop.offset, reason: stop.reason})
	}
	f.readAll = err == nil
	return f.faults.err(f.src)
}
