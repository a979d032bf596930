package file

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/credresolve/credresolve/backend"
)

// document is one JSON value with an index of what is in it. The other formats are translated to JSON.
type document struct {
	text []byte // valid JSON; the document's own, zeroed by close
	root *node
}

// node is a value within a document's text.
type node struct {
	start, end int
	members    map[string]*node // of an object, never nil then
	items      []*node          // of an array
}

var byteOrderMark = []byte("\ufeff")

// parse reads content, which the document does not keep. Its error is a *syntaxError.
func parse(mode string, content []byte, limit int64) (*document, error) {
	content = bytes.TrimPrefix(content, byteOrderMark)
	if !utf8.Valid(content) {
		return nil, invalidText(content)
	}
	switch mode {
	case modeYAML:
		text, err := jsonFromYAML(content, limit)
		if err != nil {
			return nil, err
		}
		return index(text, "")
	case modeDotenv:
		text, err := jsonFromDotenv(content)
		if err != nil {
			return nil, err
		}
		return index(text, "")
	}
	var syntax *json.SyntaxError
	if err := json.Unmarshal(content, new(nothing)); errors.As(err, &syntax) {
		return nil, at(content, int(syntax.Offset)-1, "a mistake")
	}
	return index(bytes.Clone(content), "the same key twice")
}

// nothing takes any JSON value and keeps nothing of it.
type nothing struct{}

func (*nothing) UnmarshalJSON([]byte) error { return nil }

func invalidText(content []byte) error {
	for i := 0; i < len(content); {
		r, n := utf8.DecodeRune(content[i:])
		if r == utf8.RuneError && n == 1 {
			return at(content, i, "a byte that is not UTF-8")
		}
		i += n
	}
	return &syntaxError{reason: "not UTF-8"}
}

// at gives the place of offset in content.
func at(content []byte, offset int, reason string) *syntaxError {
	before := content[:max(0, min(offset, len(content)))]
	line := bytes.Count(before, []byte("\n"))
	column := utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:])
	return &syntaxError{line + 1, column + 1, reason}
}

// index takes text, which is valid JSON. A key that stands twice in an object is an error with the given reason.
func index(text []byte, twice string) (*document, error) {
	d := &document{text: text}
	ix := indexer{text: text}
	d.root = ix.value()
	if ix.twice > 0 {
		defer clear(text)
		return nil, at(text, ix.twice, twice)
	}
	return d, nil
}

// indexer walks text, which is valid JSON nested at most as deeply as encoding/json takes it.
type indexer struct {
	text  []byte
	i     int
	twice int    // the place of a key that stands twice
	room  []node // of which the next nodes are made
	made  int
}

func (ix *indexer) node() *node {
	if len(ix.room) == 0 {
		ix.room = make([]node, min(1+ix.made, 64))
	}
	n := &ix.room[0]
	ix.room = ix.room[1:]
	ix.made++
	n.start = ix.i
	return n
}

func (ix *indexer) space() {
	for ix.i < len(ix.text) && (ix.text[ix.i] == ' ' || ix.text[ix.i] == '\t' || ix.text[ix.i] == '\n' || ix.text[ix.i] == '\r') {
		ix.i++
	}
}

// next passes over white space and one byte, which it gives.
func (ix *indexer) next() byte {
	ix.space()
	c := ix.text[ix.i]
	ix.i++
	return c
}

func (ix *indexer) value() *node {
	ix.space()
	n := ix.node()
	switch ix.text[ix.i] {
	case '{':
		n.members = make(map[string]*node)
		ix.i++
		if ix.space(); ix.text[ix.i] == '}' {
			ix.i++
			break
		}
		for more := true; more; {
			ix.space()
			place := ix.i
			key := ix.key()
			ix.next() // the colon
			if _, exists := n.members[key]; exists && ix.twice == 0 {
				ix.twice = place
			}
			n.members[key] = ix.value()
			more = ix.next() == ','
		}
	case '[':
		ix.i++
		if ix.space(); ix.text[ix.i] == ']' {
			ix.i++
			break
		}
		for more := true; more; {
			n.items = append(n.items, ix.value())
			more = ix.next() == ','
		}
	case '"':
		ix.string()
	default:
		for ix.i < len(ix.text) && strings.IndexByte(",]} \t\r\n", ix.text[ix.i]) < 0 {
			ix.i++
		}
	}
	n.end = ix.i
	return n
}

// string passes over a string.
func (ix *indexer) string() {
	for ix.i++; ix.text[ix.i] != '"'; ix.i++ {
		if ix.text[ix.i] == '\\' {
			ix.i++
		}
	}
	ix.i++
}

func (ix *indexer) key() string {
	start := ix.i
	ix.string()
	quoted := ix.text[start:ix.i]
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1])
	}
	var key string
	_ = json.Unmarshal(quoted, &key) // it is valid
	return key
}

// find gives the value that id names: a pointer, or a key at the top.
func (d *document) find(id string) (*node, error) {
	pointer, ok := strings.CutPrefix(id, "/")
	if !ok {
		if n := d.root.members[id]; n != nil {
			return n, nil
		}
		if strings.Contains(id, "/") {
			return nil, errNested
		}
		return nil, errNoKey
	}
	n := d.root
	for step := range strings.SplitSeq(pointer, "/") {
		key := unescape(step)
		switch {
		case n.members != nil:
			n = n.members[key]
		case n.items != nil:
			n = element(n.items, key)
		default:
			n = nil
		}
		if n == nil {
			return nil, errNoKey
		}
	}
	return n, nil
}

// element takes an index as RFC 6901 writes it: no sign, no leading zero.
func element(items []*node, key string) *node {
	i, err := strconv.Atoi(key)
	if err != nil || i < 0 || i >= len(items) || strconv.Itoa(i) != key {
		return nil
	}
	return items[i]
}

// credential gives the value of n: of a text what it says, of anything else its JSON text.
func (d *document) credential(n *node) *backend.Credential {
	text := d.text[n.start:n.end]
	c := &backend.Credential{Secret: backend.SecretFromJSON(text)}
	if bytes.ContainsAny(text, `{\`) {
		_ = c.Secret.Use(func(b []byte) error {
			c.Fields, _ = backend.FieldsFromJSON(b)
			return nil
		})
	}
	return c
}

// ids gives the ids of the keys at the top, in order.
func (d *document) ids() []string {
	var ids []string
	for _, key := range slices.Sorted(maps.Keys(d.root.members)) {
		if key == "" || key == wholeFile || strings.HasPrefix(key, "/") {
			key = "/" + escape(key)
		}
		ids = append(ids, key)
	}
	return ids
}

func (d *document) close() { clear(d.text) }

func validPointer(id string) bool {
	for i := range len(id) {
		if id[i] == '~' && (i+1 == len(id) || id[i+1] != '0' && id[i+1] != '1') {
			return false
		}
	}
	return true
}

func unescape(step string) string {
	return strings.ReplaceAll(strings.ReplaceAll(step, "~1", "/"), "~0", "~")
}

func escape(key string) string {
	return strings.ReplaceAll(strings.ReplaceAll(key, "~", "~0"), "/", "~1")
}
