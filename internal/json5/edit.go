package json5

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// Edit is a change of one value.
type Edit struct {
	// Path leads to the value: keys of objects, decimal indices of arrays. Indices are those of the document before any edit;
	// the index after an array's last appends.
	Path []string
	// Value is what stands there afterwards, anything that encoding/json takes. Objects that are missing on the way are made.
	// An object in the place of an object is merged into it: members that stay keep their place and the comments about them.
	Value any
	// Delete takes the value out, with its key and a comment behind it on its line. What is not there is no error.
	Delete bool
}

// Apply gives the text with edits done, one after another, and everything else as it was. New text looks like its
// neighbours: indentation, quotes, commas. The result was read again and says what the edits say and nothing else differently.
//
// It refuses a document in which an object has a key twice, a path that leads through a value without parts, and a new value in
// the place of a container that holds comments, which would be lost. Errors name paths, never values.
func (f *File) Apply(edits []Edit) ([]byte, error) {
	if len(edits) == 0 {
		return []byte(f.text), nil
	}
	if path := f.Twice(); path != nil {
		return nil, fmt.Errorf("%s is there twice; remove one of the two", Pointer(path))
	}
	wanted := f.root.clone()
	for _, e := range edits {
		for _, step := range e.Path {
			if !utf8.ValidString(step) {
				return nil, errors.New("a path is not UTF-8")
			}
		}
		var value *Node
		if !e.Delete {
			var err error
			if value, err = encode(e.Value); err != nil {
				return nil, fmt.Errorf("%s: %w", Pointer(e.Path), err)
			}
		}
		var err error
		if wanted, err = wanted.put(e.Path, value); err != nil {
			return nil, fmt.Errorf("%s: %w", Pointer(e.Path), err)
		}
	}
	wanted.compact()
	on := linesOf(f.text)
	w := &writer{text: f.text, on: on, look: f.style(on)}
	if err := w.diff(f.root, wanted, nil); err != nil {
		return nil, err
	}
	out := w.result()
	again, err := Parse(out)
	if err != nil || !same(again.root, wanted) {
		return nil, errors.New("the text cannot be changed without changing more than was asked; this is a mistake of credresolve, please report it")
	}
	return out, nil
}

// Pointer writes a path as a JSON Pointer, "/" for the document itself.
func Pointer(path []string) string {
	if len(path) == 0 {
		return "/"
	}
	var b strings.Builder
	for _, step := range path {
		b.WriteByte('/')
		b.WriteString(strings.NewReplacer("~", "~0", "/", "~1").Replace(step))
	}
	return b.String()
}

// encode makes a tree of a value.
func encode(v any) (*Node, error) {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, errors.New("the new value cannot be written as JSON")
	}
	defer clear(text.Bytes())
	f, err := Parse(text.Bytes())
	if err != nil {
		return nil, errors.New("the new value is too large")
	}
	return f.root, nil
}

// clone copies a tree; each node remembers whose copy it is.
func (n *Node) clone() *Node {
	c := *n
	c.was = n
	c.Members, c.Items = slices.Clone(n.Members), slices.Clone(n.Items)
	for i := range c.Members {
		c.Members[i].Value = c.Members[i].Value.clone()
	}
	for i := range c.Items {
		c.Items[i] = c.Items[i].clone()
	}
	return &c
}

// adopt lets a new value take the place of an old one, part by part where both have parts.
func (n *Node) adopt(old *Node) {
	n.was = old.was
	switch {
	case n.Kind == Object && old.Kind == Object:
		members := make([]Member, 0, len(n.Members))
		mine, before := n.byKey(), old.byKey()
		for _, m := range old.Members {
			if own := mine[m.Key]; own != nil {
				if m.Value != nil {
					own.adopt(m.Value)
				}
				members = append(members, Member{Key: m.Key, Value: own, comma: -1})
			}
		}
		for _, m := range n.Members {
			if _, there := before[m.Key]; !there {
				members = append(members, m)
			}
		}
		n.Members = members
	case n.Kind == Array && old.Kind == Array:
		at := 0
		for i, item := range old.Items {
			if item == nil {
				continue
			}
			if at < len(n.Items) {
				n.Items[at].adopt(old.Items[i])
			}
			at++
		}
	}
}

// put sets the value at path, or takes it out if value is nil, and gives the tree. What was taken out is nil until compact, so
// that indices stay what they were, and a key that comes back is in its old place.
func (n *Node) put(path []string, value *Node) (*Node, error) {
	if len(path) == 0 {
		if value == nil {
			return nil, errors.New("the document itself cannot be deleted")
		}
		value.adopt(n)
		return value, nil
	}
	step := path[0]
	switch n.Kind {
	case Object:
		m := n.member(step)
		switch {
		case (m == nil || m.Value == nil) && value == nil:
		case m == nil:
			n.Members = append(n.Members, Member{Key: step, Value: nested(path[1:], value), comma: -1})
		case m.Value == nil:
			m.Value = nested(path[1:], value)
		case value == nil && len(path) == 1:
			m.Value = nil
		default:
			next, err := m.Value.put(path[1:], value)
			if err != nil {
				return nil, err
			}
			m.Value = next
		}
		return n, nil
	case Array:
		i, ok := index(step)
		switch {
		case !ok || i > len(n.Items) || i == len(n.Items) && value == nil:
			if value == nil {
				return n, nil
			}
			return nil, errors.New("the array has no such index")
		case i == len(n.Items):
			n.Items = append(n.Items, nested(path[1:], value))
		case n.Items[i] == nil:
			if value != nil {
				return nil, errors.New("the item was deleted")
			}
		case value == nil && len(path) == 1:
			n.Items[i] = nil
		default:
			next, err := n.Items[i].put(path[1:], value)
			if err != nil {
				return nil, err
			}
			n.Items[i] = next
		}
		return n, nil
	}
	if value == nil {
		return n, nil
	}
	return nil, errors.New("a value on the way is neither an object nor an array")
}

// nested wraps value into the objects that path asks for.
func nested(path []string, value *Node) *Node {
	for _, step := range slices.Backward(path) {
		value = &Node{Kind: Object, Members: []Member{{Key: step, Value: value, comma: -1}}}
	}
	return value
}

// compact closes the gaps of what was taken out.
func (n *Node) compact() {
	n.Members = slices.DeleteFunc(n.Members, func(m Member) bool { return m.Value == nil })
	n.Items = slices.DeleteFunc(n.Items, func(item *Node) bool { return item == nil })
	for _, item := range n.Items {
		item.compact()
	}
	for i := range n.Members {
		n.Members[i].Value.compact()
	}
}

// same compares two trees, in their order.
func same(a, b *Node) bool {
	if a.Kind != b.Kind || len(a.Members) != len(b.Members) || len(a.Items) != len(b.Items) {
		return false
	}
	for i := range a.Members {
		if a.Members[i].Key != b.Members[i].Key || !same(a.Members[i].Value, b.Members[i].Value) {
			return false
		}
	}
	for i := range a.Items {
		if !same(a.Items[i], b.Items[i]) {
			return false
		}
	}
	return a.Kind == Array || a.Kind == Object || a.Text == b.Text || a.Kind == Number && sameNumber(a.Text, b.Text)
}

func sameNumber(a, b string) bool {
	x, y := float(a), float(b)
	return x == y || math.IsNaN(x) && math.IsNaN(y)
}

func float(text string) float64 {
	switch n := number(text).(type) {
	case json.Number:
		f, _ := n.Float64()
		return f
	case float64:
		return n
	}
	return 0
}
