package json5

import (
	"encoding/json"
	"fmt"
	"math"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits of what Parse takes.
const (
	MaxBytes = 16 << 20
	MaxDepth = 1000
	MaxNodes = 1_000_000 // keys and values
)

// File is a parsed JSON5 document. It is immutable.
type File struct {
	text string
	root *Node
}

// Node is a value and its place.
type Node struct {
	Kind       Kind
	Start, End int      // the bytes of the value, without comments around it
	Text       string   // of a String what it says; of a Number, Bool or Null as it is written
	Members    []Member // of an Object, in their order; a key may be there twice
	Items      []*Node  // of an Array

	commas []int // after the Items, -1 for none
	was    *Node // in a tree that is to be: the value whose place this one takes
}

// Member is a key of an object and its value.
type Member struct {
	Key              string
	KeyStart, KeyEnd int // with the quotes
	Value            *Node
	comma            int // the comma after it, -1 for none
}

// entry is a member or an item, to one that changes either.
type entry struct {
	start, end, comma int
	value             *Node
}

// entries gives what a container holds, in order.
func (n *Node) entries() []entry {
	out := make([]entry, 0, len(n.Members)+len(n.Items))
	for _, m := range n.Members {
		out = append(out, entry{m.KeyStart, m.Value.End, m.comma, m.Value})
	}
	for i, item := range n.Items {
		out = append(out, entry{item.Start, item.End, n.commas[i], item})
	}
	return out
}

// Parse reads src, which is JSON5 in UTF-8. Its errors begin with line and column, "3:14: ", and hold nothing of the content.
func Parse(src []byte) (*File, error) {
	if len(src) > MaxBytes {
		return nil, fmt.Errorf("the document has %d bytes, more than the limit of %d", len(src), MaxBytes)
	}
	f := &File{text: string(src)}
	if !utf8.ValidString(f.text) {
		at := 0
		for at < len(f.text) {
			char, size := utf8.DecodeRuneInString(f.text[at:])
			if char == utf8.RuneError && size == 1 {
				break
			}
			at += size
		}
		return nil, f.placed(&SyntaxError{at, "the document is not UTF-8"})
	}
	b := &builder{}
	if err := Read(f.text, JSON5, b); err != nil {
		return nil, f.placed(err)
	}
	f.root = b.root
	return f, nil
}

func (f *File) placed(err error) error {
	syntax, ok := err.(*SyntaxError)
	if !ok {
		return err
	}
	line, column := f.Place(syntax.Offset)
	return fmt.Errorf("%d:%d: %w", line, column, err)
}

// Root is the value that the document is.
func (f *File) Root() *Node { return f.root }

// Text is the document as it was read.
func (f *File) Text() string { return f.text }

// Place gives line and column, both from 1, of an offset; the column counts characters.
func (f *File) Place(offset int) (line, column int) {
	before := strings.TrimPrefix(f.text[:offset], bom)
	start := strings.LastIndexByte(before, '\n') + 1
	return 1 + strings.Count(before, "\n"), 1 + utf8.RuneCountInString(before[start:])
}

// builder makes the tree.
type builder struct {
	root  *Node
	stack []*Node
	nodes int
}

func (b *builder) add(n *Node) error {
	if len(b.stack) == 0 {
		b.root = n
		return b.count(n.Start)
	}
	if top := b.stack[len(b.stack)-1]; top.Kind == Object {
		top.Members[len(top.Members)-1].Value = n
	} else {
		top.Items = append(top.Items, n)
		top.commas = append(top.commas, -1)
	}
	return b.count(n.Start)
}

func (b *builder) count(at int) error {
	if b.nodes++; b.nodes > MaxNodes {
		return &SyntaxError{at, fmt.Sprintf("more than %d keys and values", MaxNodes)}
	}
	return nil
}

func (b *builder) Open(object bool, at int) error {
	if len(b.stack) >= MaxDepth {
		return &SyntaxError{at, fmt.Sprintf("more than %d levels of nesting", MaxDepth)}
	}
	n := &Node{Kind: Array, Start: at}
	if object {
		n.Kind = Object
	}
	err := b.add(n)
	b.stack = append(b.stack, n)
	return err
}

func (b *builder) Close(end int) {
	last := len(b.stack) - 1
	b.stack[last].End = end
	b.stack = b.stack[:last]
}

func (b *builder) Key(name string, start, end int) {
	top := b.stack[len(b.stack)-1]
	top.Members = append(top.Members, Member{Key: name, KeyStart: start, KeyEnd: end, comma: -1})
	b.nodes++
}

func (b *builder) Item(int) {}

func (b *builder) Comma(at int) {
	if top := b.stack[len(b.stack)-1]; top.Kind == Object {
		top.Members[len(top.Members)-1].comma = at
	} else {
		top.commas[len(top.commas)-1] = at
	}
}

func (b *builder) Scalar(kind Kind, text string, start, end int) error {
	return b.add(&Node{Kind: kind, Start: start, End: end, Text: text})
}

// Get gives the value at path: of objects keys, of arrays decimal indices. Of a key that is there twice the last counts. Nil
// when there is none.
func (n *Node) Get(path ...string) *Node {
	for _, step := range path {
		if n == nil {
			return nil
		}
		switch n.Kind {
		case Object:
			n = n.member(step).value()
		case Array:
			i, ok := index(step)
			if !ok || i >= len(n.Items) {
				return nil
			}
			n = n.Items[i]
		default:
			return nil
		}
	}
	return n
}

func (m *Member) value() *Node {
	if m == nil {
		return nil
	}
	return m.Value
}

// member gives the last member of a key, nil for none.
func (n *Node) member(key string) *Member {
	for i := len(n.Members) - 1; i >= 0; i-- {
		if n.Members[i].Key == key {
			return &n.Members[i]
		}
	}
	return nil
}

// index reads an index of an array: decimal digits without leading zeros.
func index(s string) (int, bool) {
	if s == "" || len(s) > 9 || s[0] == '0' && len(s) > 1 || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	i, err := strconv.Atoi(s)
	return i, err == nil
}

// Value decodes the value as encoding/json does into an any: map[string]any, []any, string, bool, nil; a number is a
// json.Number when JSON writes it so, else a float64 (0x10, +1, .5, NaN, Infinity). The caller may change what it gets.
func (n *Node) Value() any {
	if n == nil {
		return nil
	}
	switch n.Kind {
	case Bool:
		return n.Text == "true"
	case Number:
		return number(n.Text)
	case String:
		return n.Text
	case Array:
		items := make([]any, len(n.Items))
		for i, item := range n.Items {
			items[i] = item.Value()
		}
		return items
	case Object:
		members := make(map[string]any, len(n.Members))
		for i := range n.Members {
			members[n.Members[i].Key] = n.Members[i].Value.Value()
		}
		return members
	}
	return nil
}

func number(text string) any {
	if isJSONNumber(text) {
		return json.Number(text)
	}
	sign, rest := 1.0, strings.TrimLeft(text, "+-")
	if strings.HasPrefix(text, "-") {
		sign = -1
	}
	switch {
	case rest == "NaN":
		return math.NaN()
	case rest == "Infinity":
		return math.Inf(int(sign))
	case len(rest) > 1 && rest[1]|0x20 == 'x':
		n := 0.0
		for _, c := range rest[2:] {
			digit, _ := strconv.ParseUint(string(c), 16, 8)
			n = n*16 + float64(digit)
		}
		return sign * n
	}
	n, _ := strconv.ParseFloat(rest, 64) // out of range is what JavaScript makes of it: an infinity
	return sign * n
}

// Twice gives the path of an object's key that is there twice, nil when there is none.
func (f *File) Twice() []string { return twice(f.root, nil) }

func twice(n *Node, path []string) []string {
	if n.Kind == Object {
		keys := make([]string, len(n.Members))
		for i := range n.Members {
			keys[i] = n.Members[i].Key
		}
		sort.Strings(keys)
		for i := 1; i < len(keys); i++ {
			if keys[i] == keys[i-1] {
				return append(path[:len(path):len(path)], keys[i])
			}
		}
	}
	for i := range n.Members {
		if found := twice(n.Members[i].Value, append(path[:len(path):len(path)], n.Members[i].Key)); found != nil {
			return found
		}
	}
	for i, item := range n.Items {
		if found := twice(item, append(path[:len(path):len(path)], strconv.Itoa(i))); found != nil {
			return found
		}
	}
	return nil
}
