package json5

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// look is how a document is written.
type look struct {
	newline string
	unit    string // of indentation
	colon   string // between key and value
	pad     string // within the brackets of an object on one line
	quote   byte   // of strings
	keys    byte   // the quote of keys, 0 for none
	lines   bool   // containers stand on lines of their own
	inline  bool   // but for small objects
}

// lines finds the lines of a text without going over it: a document may be one line of megabytes.
type lines struct {
	text   string
	breaks []int32 // where a line ends; a CR LF is two. A File is smaller than these count
}

func linesOf(text string) lines {
	l := lines{text: text}
	for i := range len(text) {
		if isBreak(text[i]) {
			l.breaks = append(l.breaks, int32(i))
		}
	}
	return l
}

// start gives where the line of offset i begins.
func (l lines) start(i int) int {
	if before, _ := slices.BinarySearch(l.breaks, int32(i)); before > 0 {
		return int(l.breaks[before-1]) + 1
	}
	if i >= len(bom) && strings.HasPrefix(l.text, bom) {
		return len(bom)
	}
	return 0
}

// end gives where the line of offset i ends, in front of its break.
func (l lines) end(i int) int {
	if next, _ := slices.BinarySearch(l.breaks, int32(i)); next < len(l.breaks) {
		return int(l.breaks[next])
	}
	return len(l.text)
}

// several reports whether n is on more than one line.
func (l lines) several(n *Node) bool { return l.end(n.Start) < n.End }

// indentation gives the white space at the beginning of the line of offset i.
func (l lines) indentation(i int) string {
	start := l.start(i)
	end := start
	for end < len(l.text) && isBlank(l.text[end]) {
		end++
	}
	return l.text[start:end]
}

// own reports whether nothing stands before offset i on its line.
func (l lines) own(i int) bool {
	start := l.start(i)
	for i > start && isBlank(l.text[i-1]) {
		i--
	}
	return start > 0 && start == i
}

// style guesses from the whole document.
func (f *File) style(on lines) look {
	l := look{newline: "\n", unit: "  ", colon: ": ", quote: '"', keys: '"', lines: true}
	if i := strings.IndexByte(f.text, '\n'); i < 0 {
		l.lines = strings.Trim(f.text, bom+" \t") == "{}"
	} else if i > 0 && f.text[i-1] == '\r' {
		l.newline = "\r\n"
	}
	quotes, keys, colons := map[byte]int{}, map[byte]int{}, map[string]int{}
	unit := ""
	var walk func(n *Node)
	walk = func(n *Node) {
		if n.Kind == String {
			quotes[f.text[n.Start]]++
		}
		if n.Kind == Object && len(n.Members) > 0 && !on.several(n) {
			l.inline = l.inline || l.lines
			if isBlank(f.text[n.Start+1]) {
				l.pad = " "
			}
		}
		for _, e := range n.entries() {
			if unit == "" && on.own(e.start) {
				if more, deeper := strings.CutPrefix(on.indentation(e.start), on.indentation(n.Start)); deeper {
					unit = more
				}
			}
			walk(e.value)
		}
		for _, m := range n.Members {
			c := f.text[m.KeyStart]
			if c != '"' && c != '\'' {
				c = 0
			}
			keys[c]++
			if gap := f.text[m.KeyEnd:m.Value.Start]; gap == ":" || gap == ": " {
				colons[gap]++
			}
		}
	}
	walk(f.root)
	if unit != "" {
		l.unit = unit
	}
	if quotes['\''] > quotes['"'] {
		l.quote = '\''
	}
	if keys[0] > keys['"'] && keys[0] > keys['\''] {
		l.keys = 0
	} else if keys['\''] > keys['"'] {
		l.keys = '\''
	}
	if colons[":"] > colons[": "] {
		l.colon = ":"
	}
	return l
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }
func isBreak(c byte) bool { return c == '\n' || c == '\r' }

// splice replaces a part of the text.
type splice struct {
	start, end int
	text       string
}

// writer gathers the splices that make a document what it is to be.
type writer struct {
	text    string
	on      lines
	look    look
	splices []splice
}

func (w *writer) replace(start, end int, text string) {
	w.splices = append(w.splices, splice{start, end, text})
}

func (w *writer) result() []byte {
	slices.SortStableFunc(w.splices, func(a, b splice) int { return a.start - b.start })
	size := len(w.text)
	for _, s := range w.splices {
		size += len(s.text)
	}
	out := make([]byte, 0, size)
	at := 0
	for _, s := range w.splices {
		if s.start > at {
			out = append(out, w.text[at:s.start]...)
		}
		out = append(out, s.text...)
		at = max(at, s.end)
	}
	return append(out, w.text[at:]...)
}

// diff makes old, which is at path, what wanted says.
func (w *writer) diff(old, wanted *Node, path []string) error {
	switch {
	case old.Kind == Object && wanted.Kind == Object:
		var added []string
		indent := w.childIndent(old)
		was, stays := old.byKey(), wanted.byKey()
		for _, m := range wanted.Members {
			before := was[m.Key]
			if before == nil {
				added = append(added, w.key(m.Key)+w.look.colon+w.value(m.Value, indent))
			} else if err := w.diff(before, m.Value, append(path[:len(path):len(path)], m.Key)); err != nil {
				return err
			}
		}
		return w.reshape(old, added, indent, func(i int) bool { return stays[old.Members[i].Key] == nil })
	case old.Kind == Array && wanted.Kind == Array:
		var added []string
		indent := w.childIndent(old)
		kept := make(map[*Node]bool)
		for i, item := range wanted.Items {
			if item.was == nil {
				added = append(added, w.value(item, indent))
				continue
			}
			kept[item.was] = true
			if err := w.diff(item.was, item, append(path[:len(path):len(path)], strconv.Itoa(i))); err != nil {
				return err
			}
		}
		return w.reshape(old, added, indent, func(i int) bool { return !kept[old.Items[i]] })
	case same(old, wanted):
		return nil
	}
	if w.comments(old) {
		return fmt.Errorf("%s: a comment within the value would be lost; move or remove it first", Pointer(path))
	}
	w.replace(old.Start, old.End, w.value(wanted, w.on.indentation(old.Start)))
	return nil
}

// byKey gives the values of an object, whose keys are there once.
func (n *Node) byKey() map[string]*Node {
	values := make(map[string]*Node, len(n.Members))
	for _, m := range n.Members {
		values[m.Key] = m.Value
	}
	return values
}

// comments reports whether a container holds comments.
func (w *writer) comments(n *Node) bool {
	at := n.Start + 1
	gap := func(to int) bool { return strings.Contains(w.text[at:to], "/") }
	for i, e := range n.entries() {
		if gap(e.start) {
			return true
		}
		if n.Kind == Object {
			at = n.Members[i].KeyEnd
			if gap(e.value.Start) {
				return true
			}
		}
		if w.comments(e.value) {
			return true
		}
		at = e.end
	}
	return (n.Kind == Object || n.Kind == Array) && gap(n.End)
}

// childIndent gives the indentation of what container n holds.
func (w *writer) childIndent(n *Node) string {
	for _, e := range n.entries() {
		if w.on.own(e.start) {
			return w.on.indentation(e.start)
		}
	}
	return w.on.indentation(n.Start) + w.look.unit
}

// reshape takes the entries of container n out that gone names, and adds the texts of new ones at its end.
func (w *writer) reshape(n *Node, added []string, indent string, gone func(int) bool) error {
	entries := n.entries()
	var left, leave []int
	for i := range entries {
		if gone(i) {
			leave = append(leave, i)
		} else {
			left = append(left, i)
		}
	}
	if len(left) == 0 && len(entries) > 0 && len(added) > 0 {
		// The new ones take the place of the first.
		separator := ", "
		if w.on.own(entries[0].start) {
			separator = "," + w.look.newline + indent
		}
		w.replace(entries[0].start, entries[0].end, strings.Join(added, separator))
		added, left, leave = nil, leave[:1], leave[1:]
	}
	w.remove(n, entries, left, leave, len(added) > 0)
	switch {
	case len(added) == 0:
	case len(left) > 0:
		w.append(n, entries[left[len(left)-1]], entries[len(entries)-1].comma >= 0, added, indent)
	default:
		w.fill(n, added, indent)
	}
	return nil
}

// fill writes the first entries of an empty container.
func (w *writer) fill(n *Node, added []string, indent string) {
	inner := w.text[n.Start+1 : n.End-1]
	outer := w.on.indentation(n.Start)
	onLines := w.look.lines
	switch {
	case strings.TrimSpace(inner) == "" && onLines:
		w.replace(n.Start+1, n.End-1, w.look.newline+indent+strings.Join(added, ","+w.look.newline+indent)+w.look.newline+outer)
	case strings.TrimSpace(inner) == "":
		w.replace(n.Start+1, n.End-1, w.look.pad+strings.Join(added, w.comma())+w.look.pad)
	case w.on.own(n.End - 1):
		at := w.on.start(n.End - 1)
		w.replace(at, at, indent+strings.Join(added, ","+w.look.newline+indent)+w.look.newline)
	default:
		w.replace(n.End-1, n.End-1, " "+strings.Join(added, ", ")+" ")
	}
}

func (w *writer) comma() string {
	if w.look.colon == ":" {
		return ","
	}
	return ", "
}

// append writes entries behind last, the last one of n that stays; trailing says that a comma is to follow the last one.
func (w *writer) append(n *Node, last entry, trailing bool, added []string, indent string) {
	at := last.end
	if last.comma >= 0 {
		at = last.comma + 1
	} else {
		w.replace(last.end, last.end, ",")
	}
	if end, breaks := w.tail(at); breaks && end < n.End && w.on.own(last.start) {
		text := ""
		for i, one := range added {
			text += w.look.newline + indent + one
			if i < len(added)-1 || trailing {
				text += ","
			}
		}
		w.replace(end, end, text)
		return
	}
	space := strings.TrimPrefix(w.comma(), ",")
	text := space + strings.Join(added, w.comma())
	if trailing {
		text += ","
	}
	w.replace(at, at, text)
}

// tail goes over blanks and comments from offset i on and gives where the line ends, if nothing else comes before.
func (w *writer) tail(i int) (end int, breaks bool) {
	for i < len(w.text) {
		switch rest := w.text[i:]; {
		case isBreak(rest[0]):
			return i, true
		case isBlank(rest[0]):
			i++
		case strings.HasPrefix(rest, "//"):
			return w.on.end(i), true
		case strings.HasPrefix(rest, "/*"):
			n := strings.Index(rest[2:], "*/")
			if n < 0 {
				return i, false
			}
			i += n + 4
		default:
			return i, false
		}
	}
	return i, false
}

// remove takes entries out, with their commas. more says that others will follow the last that is left.
func (w *writer) remove(n *Node, entries []entry, left, leave []int, more bool) {
	if len(leave) == 0 {
		return
	}
	if len(left) == 0 && w.bare(n, entries) {
		w.replace(n.Start+1, n.End-1, "")
		return
	}
	// Without entries at its end a container has a comma there only if it had one before.
	count := len(entries)
	tail := leave[0]
	if len(left) > 0 {
		tail = left[len(left)-1] + 1
	}
	if comma := tail - 1; len(left) > 0 && !more && tail < count && entries[count-1].comma < 0 && entries[comma].comma >= 0 {
		w.replace(entries[comma].comma, entries[comma].comma+1, "")
	}
	for _, i := range leave {
		e := entries[i]
		end := e.end
		if e.comma >= 0 {
			if strings.Trim(w.text[end:e.comma], " \t") == "" {
				end = e.comma + 1
			} else {
				w.replace(e.comma, e.comma+1, "")
			}
		}
		if w.aloneOnLines(e.start, end) {
			w.deleteLines(e.start, end)
			continue
		}
		start := e.start
		if i >= tail {
			for isBlank(w.text[start-1]) {
				start--
			}
		} else {
			for isBlank(w.text[end]) {
				end++
			}
		}
		w.replace(start, end, "")
	}
}

// bare reports whether n holds nothing beside entries, commas and white space.
func (w *writer) bare(n *Node, entries []entry) bool {
	at := n.Start + 1
	for _, e := range entries {
		if strings.Trim(w.text[at:e.start], ", \t\r\n") != "" {
			return false
		}
		at = e.end
	}
	return strings.Trim(w.text[at:n.End-1], ", \t\r\n") == ""
}

// aloneOnLines reports whether the lines from start to end hold no more than this and a comment after it.
func (w *writer) aloneOnLines(start, end int) bool {
	rest := strings.TrimSpace(w.text[end:w.on.end(end)])
	comment := strings.HasPrefix(rest, "//") || strings.HasPrefix(rest, "/*") && strings.Index(rest, "*/") == len(rest)-2
	return w.on.own(start) && (rest == "" || comment)
}

// deleteLines takes out the lines from that of start to that of end.
func (w *writer) deleteLines(start, end int) {
	end = w.on.end(end)
	if strings.HasPrefix(w.text[end:], "\r\n") {
		end++
	}
	w.replace(w.on.start(start), min(end+1, len(w.text)), "")
}

func (w *writer) key(name string) string {
	quote := w.look.keys
	if quote == 0 {
		if isIdentifier(name) {
			return name
		}
		quote = w.look.quote
	}
	return quoted(name, quote)
}

func isIdentifier(s string) bool {
	for i := range len(s) {
		if c := s[i]; c != '_' && c != '$' && !('a' <= c|0x20 && c|0x20 <= 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// quoted writes a string. What JSON must escape is escaped as JSON does, so that a quote is the only difference.
func quoted(s string, quote byte) string {
	if quote == '"' {
		text, _ := json.Marshal(s)
		if strings.ContainsAny(s, "<>&") {
			var b strings.Builder
			enc := json.NewEncoder(&b)
			enc.SetEscapeHTML(false)
			_ = enc.Encode(s)
			return strings.TrimSuffix(b.String(), "\n")
		}
		return string(text)
	}
	inner := quoted(s, '"')
	inner = inner[1 : len(inner)-1]
	return "'" + strings.ReplaceAll(strings.ReplaceAll(inner, `\"`, `"`), "'", `\'`) + "'"
}

// maxInline is how many characters an object on one line may have.
const maxInline = 100

// value writes a value whose line is indented by indent.
func (w *writer) value(n *Node, indent string) string {
	switch n.Kind {
	case String:
		return quoted(n.Text, w.look.quote)
	case Object, Array:
	default:
		return n.Text
	}
	left, right := "[", "]"
	if n.Kind == Object {
		left, right = "{", "}"
	}
	count := len(n.Members) + len(n.Items)
	if count == 0 {
		return left + right
	}
	write := func(indent string) (parts []string) {
		for _, m := range n.Members {
			parts = append(parts, w.key(m.Key)+w.look.colon+w.value(m.Value, indent))
		}
		for _, item := range n.Items {
			parts = append(parts, w.value(item, indent))
		}
		return parts
	}
	pad := w.look.pad
	if n.Kind == Array {
		pad = ""
	}
	if flat := !slices.ContainsFunc(n.Members, func(m Member) bool { return m.Value.Kind >= Array }) && n.Kind == Object; !w.look.lines || w.look.inline && flat {
		line := left + pad + strings.Join(write(indent), w.comma()) + pad + right
		if !w.look.lines || utf8.RuneCountInString(line) <= maxInline {
			return line
		}
	}
	inner := indent + w.look.unit
	return left + w.look.newline + inner + strings.Join(write(inner), ","+w.look.newline+inner) + w.look.newline + indent + right
}
