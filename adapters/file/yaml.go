package file

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Limits of a YAML document. The parser is recursive, and takes time quadratic in the number of keys.
const (
	maxDepth   = 200
	maxKeys    = 10_000
	maxTags    = 10_000  // and anchors
	maxNodes   = 500_000 // after merging
	maxGrowth  = 2       // of what aliases make of it, as a multiple of the limit of the file's size
	tooDeep    = "nesting that is too deep"
	tooLarge   = "more than can be taken in"
	notAllowed = "a tag that is not supported"
)

// jsonFromYAML gives a document of one YAML value as JSON. Aliases and merge keys are resolved. A number that JSON writes
// alike stays one, another is a text of the same characters. Its error is a *syntaxError; the parser's own errors quote the
// file.
func jsonFromYAML(content []byte, limit int64) (text []byte, err error) {
	// The parser is not proof against every input.
	defer func() {
		if recover() != nil {
			text, err = nil, &syntaxError{reason: "a mistake"}
		}
	}()
	tokens := lexer.Tokenize(string(content))
	if err := bound(tokens); err != nil {
		return nil, err
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey()) // we look for them ourselves
	if err != nil {
		var e yaml.Error
		if errors.As(err, &e) {
			return nil, place(e.GetToken(), "a mistake")
		}
		return nil, &syntaxError{reason: "a mistake"}
	}
	var body ast.Node
	for _, doc := range file.Docs {
		switch doc.Body.(type) {
		case nil, *ast.CommentGroupNode, *ast.DirectiveNode:
			continue
		}
		if body != nil {
			return nil, place(doc.Body.GetToken(), "a second document")
		}
		body = doc.Body
	}
	if body == nil {
		return []byte("{}"), nil
	}
	r := yamlReader{anchors: make(map[string]*yamlNode)}
	root, err := r.read(body, 0)
	if err != nil {
		return nil, err
	}
	// Aliases of aliases would otherwise make it as long as they like.
	if root.length() > min(limit, maxSize/4)*maxGrowth {
		return nil, &syntaxError{reason: "aliases that make it " + tooLarge}
	}
	var w yamlWriter
	w.enc = json.NewEncoder(&w.out)
	w.enc.SetEscapeHTML(false)
	if err := w.write(root); err != nil {
		clear(w.out.Bytes())
		return nil, err
	}
	return w.out.Bytes(), nil
}

// bound looks at tokens, which the lexer makes without recursion, before the parser does.
func bound(tokens token.Tokens) error {
	var columns []int // of the block structures that are open
	flow, keys, tags := 0, 0, 0
	for i, t := range tokens {
		column := t.Position.Column
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow = max(0, flow-1)
		case token.TagType, token.AnchorType:
			tags++
		case token.MappingValueType:
			keys++
			if i > 0 {
				column = tokens[i-1].Position.Column
			}
			fallthrough
		case token.SequenceEntryType, token.MappingKeyType:
			if flow == 0 {
				for len(columns) > 0 && columns[len(columns)-1] >= column {
					columns = columns[:len(columns)-1]
				}
				columns = append(columns, column)
			}
		}
		switch {
		case flow+len(columns) > maxDepth:
			return place(t, tooDeep)
		case keys > maxKeys || tags > maxTags:
			return place(t, tooLarge)
		}
	}
	return nil
}

func place(t *token.Token, reason string) error {
	if t == nil || t.Position == nil {
		return &syntaxError{reason: reason}
	}
	return &syntaxError{t.Position.Line, t.Position.Column, reason}
}

// yamlNode is a value. Aliases share nodes.
type yamlNode struct {
	kind  yamlKind
	text  string // of a scalar
	keys  []string
	items []*yamlNode // of a sequence; of a mapping in the order of keys
	size  int64       // about the length of its JSON text
}

// add adds an item to a mapping or, without a key, to a sequence.
func (n *yamlNode) add(key string, item *yamlNode) {
	if n.kind == yamlMapping {
		n.keys = append(n.keys, key)
	}
	n.items = append(n.items, item)
	if n.size += int64(len(key)) + item.length() + 4; n.size < 0 || n.size > maxSize {
		n.size = maxSize // enough to be too much, and small enough to be added to
	}
}

func (n *yamlNode) length() int64 { return n.size + int64(len(n.text)) }

const maxSize = 1 << 60

type yamlKind int

const (
	yamlText    yamlKind = iota
	yamlLiteral          // a number, true, false or null in JSON's own spelling
	yamlSequence
	yamlMapping
)

type yamlReader struct {
	anchors map[string]*yamlNode
	nodes   int
}

func (r *yamlReader) read(from ast.Node, depth int) (*yamlNode, error) {
	if from == nil {
		return &yamlNode{kind: yamlLiteral, text: "null"}, nil
	}
	r.nodes++
	switch {
	case depth > maxDepth:
		return nil, place(from.GetToken(), tooDeep)
	case r.nodes > maxNodes:
		return nil, place(from.GetToken(), tooLarge)
	}
	switch from := from.(type) {
	case *ast.StringNode:
		return &yamlNode{text: from.Value}, nil
	case *ast.LiteralNode:
		return &yamlNode{text: from.Value.Value}, nil
	case *ast.NullNode:
		return &yamlNode{kind: yamlLiteral, text: "null"}, nil
	case *ast.BoolNode:
		if from.Value {
			return &yamlNode{kind: yamlLiteral, text: "true"}, nil
		}
		return &yamlNode{kind: yamlLiteral, text: "false"}, nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		n := &yamlNode{text: from.GetToken().Value}
		if json.Valid([]byte(n.text)) {
			n.kind = yamlLiteral
		}
		return n, nil
	case *ast.TagNode:
		return r.tagged(from, depth)
	case *ast.AnchorNode:
		n, err := r.read(from.Value, depth+1)
		if err == nil {
			r.anchors[from.Name.GetToken().Value] = n
		}
		return n, err
	case *ast.AliasNode:
		n, ok := r.anchors[from.Value.GetToken().Value]
		if !ok {
			return nil, place(from.GetToken(), "an alias without an anchor before it")
		}
		return n, nil
	case *ast.SequenceNode:
		n := &yamlNode{kind: yamlSequence}
		for _, item := range from.Values {
			v, err := r.read(item, depth+1)
			if err != nil {
				return nil, err
			}
			n.add("", v)
		}
		return n, nil
	case *ast.MappingNode:
		return r.mapping(from.Values, depth)
	case *ast.MappingValueNode:
		return r.mapping([]*ast.MappingValueNode{from}, depth)
	}
	return nil, place(from.GetToken(), "a kind of value that is not supported")
}

// tagged reads a value with a tag of YAML's own, which must agree with the value, but for !!str, which makes a text of any
// scalar.
func (r *yamlReader) tagged(from *ast.TagNode, depth int) (*yamlNode, error) {
	n, err := r.read(from.Value, depth+1)
	if err != nil {
		return nil, err
	}
	switch tag := from.Start.Value; {
	case tag == "!!str" && n.kind <= yamlLiteral:
		text := n.text
		if scalar, ok := from.Value.(ast.ScalarNode); ok && n.kind == yamlLiteral {
			text = scalar.GetToken().Value
		}
		return &yamlNode{text: text}, nil
	case slices.Contains([]string{"!!int", "!!float", "!!bool", "!!null"}, tag) && n.kind <= yamlLiteral && !isText(from.Value),
		tag == "!!map" && n.kind == yamlMapping, tag == "!!seq" && n.kind == yamlSequence:
		return n, nil
	}
	return nil, place(from.Start, notAllowed)
}

func isText(n ast.Node) bool {
	switch n.(type) {
	case *ast.StringNode, *ast.LiteralNode:
		return true
	}
	return false
}

func (r *yamlReader) mapping(pairs []*ast.MappingValueNode, depth int) (*yamlNode, error) {
	n := &yamlNode{kind: yamlMapping}
	own := make(map[string]bool, len(pairs))
	var merged []*yamlNode
	for _, pair := range pairs {
		v, err := r.read(pair.Value, depth+1)
		if err != nil {
			return nil, err
		}
		if _, ok := pair.Key.(*ast.MergeKeyNode); ok {
			from := []*yamlNode{v}
			if v.kind == yamlSequence {
				from = v.items
			}
			for _, m := range from {
				if m.kind != yamlMapping {
					return nil, place(pair.Key.GetToken(), "a merge of what is no mapping")
				}
			}
			merged = append(merged, from...)
			continue
		}
		var node ast.Node = pair.Key
		if k, ok := node.(*ast.MappingKeyNode); ok {
			node = k.Value
		}
		key, err := r.read(node, depth+1)
		if err != nil {
			return nil, err
		}
		if key.kind > yamlLiteral {
			return nil, place(pair.Key.GetToken(), "a key that is no text")
		}
		if own[key.text] {
			return nil, place(pair.Key.GetToken(), "the same key twice")
		}
		own[key.text] = true
		n.add(key.text, v)
	}
	// What stands in the mapping itself wins, then what was merged first.
	for _, m := range merged {
		if r.nodes += len(m.keys); r.nodes > maxNodes {
			return nil, &syntaxError{reason: tooLarge}
		}
		for i, key := range m.keys {
			if !own[key] {
				own[key] = true
				n.add(key, m.items[i])
			}
		}
	}
	return n, nil
}

// yamlWriter writes JSON.
type yamlWriter struct {
	out bytes.Buffer
	enc *json.Encoder
}

func (w *yamlWriter) write(n *yamlNode) error {
	switch n.kind {
	case yamlText:
		return w.string(n.text)
	case yamlLiteral:
		w.out.WriteString(n.text)
		return nil
	}
	open, end := byte('['), byte(']')
	if n.kind == yamlMapping {
		open, end = '{', '}'
	}
	w.out.WriteByte(open)
	for i, item := range n.items {
		if i > 0 {
			w.out.WriteByte(',')
		}
		if n.kind == yamlMapping {
			if err := w.string(n.keys[i]); err != nil {
				return err
			}
			w.out.WriteByte(':')
		}
		if err := w.write(item); err != nil {
			return err
		}
	}
	w.out.WriteByte(end)
	return nil
}

func (w *yamlWriter) string(text string) error {
	if err := w.enc.Encode(text); err != nil {
		return &syntaxError{reason: "a text that cannot be taken in"}
	}
	w.out.Truncate(w.out.Len() - 1) // the newline that an Encoder appends
	return nil
}
