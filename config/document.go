package config

import (
	"fmt"
	"reflect"
)

// Node is a value in a YAML or JSON document other than a configuration that is read as strictly as one: within the same
// limits, and with file, line and column in each problem. Problems are collected, for Err.
type Node struct {
	n        *node
	path     string
	problems *problems
}

// ParseDocument reads src, one document that begins at that line of file, from 1. It gives nil when src is no YAML or JSON;
// the error tells why.
func ParseDocument(file string, line int, src []byte) (*Node, error) {
	p := &problems{file: file, before: line - 1, other: true}
	n := parse(p, src)
	if err := p.err(); n == nil || err != nil {
		return nil, err
	}
	return &Node{n, "", p}, nil
}

// Err gives what is wrong with the whole document, as far as it was looked at.
func (n *Node) Err() error { return n.problems.err() }

// Fail says what is wrong with n; text holds no value of the document.
func (n *Node) Fail(format string, args ...any) { n.problems.add(n.n, n.path, format, args...) }

// FailKey says what is wrong with a key of a map.
func (n *Node) FailKey(key, format string, args ...any) {
	at := n.n
	if i, ok := n.n.at[key]; ok {
		at = n.n.pairs[i].key
	}
	n.problems.add(at, join(n.path, key), format, args...)
}

// Place is the line and the column of n in the file, from 1.
func (n *Node) Place() (line, column int) { return n.n.line + n.problems.before, n.n.column }

// IsMap and IsList report what n is.
func (n *Node) IsMap() bool  { return n.n.kind == kindMapping }
func (n *Node) IsList() bool { return n.n.kind == kindSequence }

// Text gives n where it is a text.
func (n *Node) Text() (string, bool) { return n.n.text, n.n.kind == kindString }

// Get gives the value of a key of a map; nil when there is none, or nothing stands there.
func (n *Node) Get(key string) *Node {
	v := n.n.get(key)
	if v == nil || v.kind == kindNull {
		return nil
	}
	return n.below(v, join(n.path, key))
}

// Keys gives the keys of a map, in their order.
func (n *Node) Keys() []string {
	keys := make([]string, len(n.n.pairs))
	for i, p := range n.n.pairs {
		keys[i] = p.key.text
	}
	return keys
}

// Items gives the items of a list.
func (n *Node) Items() []*Node {
	items := make([]*Node, len(n.n.items))
	for i, item := range n.n.items {
		items[i] = n.below(item, fmt.Sprintf("%s[%d]", n.path, i))
	}
	return items
}

func (n *Node) below(v *node, path string) *Node { return &Node{v, path, n.problems} }

// Decode fills into, a pointer to a struct with yaml tags, from a map; a key that is none of its fields is a problem that
// names the nearest. It reports whether there was no problem.
func (n *Node) Decode(into any) bool {
	before := len(n.problems.errs)
	d := decoder{problems: n.problems}
	d.decode(n.n, n.path, reflect.ValueOf(into).Elem())
	return len(n.problems.errs) == before
}
