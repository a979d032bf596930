package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Limits of a configuration file. It is written by hand; what is larger is not one.
const (
	maxFileSize = 1 << 20
	maxDepth    = 64
	maxNodes    = 100_000
	maxBrackets = 1000
	maxTokens   = 150_000
	maxWork     = 20_000_000 // the square, by two, of the keys of a block map: 6,300 keys in one
)

// node is a value of the file with its place. Aliases and merge keys are replaced by what they stand for.
type node struct {
	line, column int
	kind         nodeKind
	text         string         // of a scalar
	pairs        []pair         // of a mapping
	items        []*node        // of a sequence
	at           map[string]int // of a mapping: where in pairs a key is
	size         int            // how many nodes it is with all below it, aliases written out
}

type nodeKind int

const (
	kindNull nodeKind = iota
	kindString
	kindNumber
	kindBool
	kindMapping
	kindSequence
)

func (k nodeKind) String() string {
	return [...]string{"nothing", "a text", "a number", "true or false", "a map", "a list"}[k]
}

type pair struct {
	key    *node
	value  *node
	merged bool // by a merge key, so that a key of the map itself goes before it
}

func (n *node) get(key string) *node {
	if i, ok := n.at[key]; ok {
		return n.pairs[i].value
	}
	return nil
}

func (n *node) add(p pair) {
	if n.at == nil {
		n.at = make(map[string]int)
	}
	n.at[p.key.text] = len(n.pairs)
	n.pairs = append(n.pairs, p)
}

// problems collects what is wrong with a file, each with its place.
type problems struct {
	file   string
	before int  // lines of the file before what is read
	other  bool // it is no configuration
	errs   []error
}

// maxProblems is how many problems are told at once.
const maxProblems = 20

// The longest text of one problem, and the longest key in it, in bytes.
const (
	maxProblem  = 1000
	maxShownKey = 64
)

func (p *problems) add(n *node, path, format string, args ...any) {
	if len(p.errs) == maxProblems {
		p.errs = append(p.errs, errors.New("and more"))
	}
	if len(p.errs) > maxProblems {
		return
	}
	place := p.file
	if n != nil && n.line > 0 {
		place = fmt.Sprintf("%s:%d:%d", p.file, n.line+p.before, n.column)
	}
	if path != "" {
		place += ": " + path
	}
	text := fmt.Sprintf(format, args...)
	if len(text) > maxProblem { // it lists what is known
		text = strings.ToValidUTF8(text[:maxProblem], "") + "…"
	}
	p.errs = append(p.errs, fmt.Errorf("%s: %s", place, text))
}

// shownKey is what a problem shows of a key. Where the colon or the space behind it was forgotten, the value, which may be a
// secret, is a part of it.
func shownKey(key string) string {
	for i, c := range key {
		plain := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("_-./*{}", c)
		if !plain || i >= maxShownKey {
			return key[:i] + "…"
		}
	}
	return key
}

func (p *problems) err() error {
	if len(p.errs) == 0 {
		return nil
	}
	return &invalid{p.errs}
}

// parse reads src as one YAML document. A parser's own text may quote the file, so only its place is told.
func parse(p *problems, src []byte) *node {
	if depth(src) > maxBrackets {
		p.add(nil, "", "it is nested too deeply")
		return nil
	}
	file, err := parseYAML(src)
	var over *overLimit
	if errors.As(err, &over) {
		at := &node{}
		at.line, at.column = place(over.at)
		p.add(at, "", "it is too large")
		return nil
	}
	if err != nil {
		at := &node{}
		var syntax yaml.Error
		if errors.As(err, &syntax) && syntax.GetToken() != nil {
			at.line, at.column = place(syntax.GetToken())
		}
		p.add(at, "", "it is not valid YAML%s", why(syntax))
		return nil
	}
	var bodies []ast.Node
	for _, d := range file.Docs {
		if d.Body != nil {
			bodies = append(bodies, d.Body)
		}
	}
	if len(bodies) == 0 {
		hint := "; write: version: 1"
		if p.other {
			hint = ""
		}
		p.add(nil, "", "it is empty, where one YAML document must be%s", hint)
		return nil
	}
	if len(bodies) != 1 {
		p.add(nil, "", "it must hold one YAML document, not %d", len(bodies))
		return nil
	}
	c := converter{problems: p, anchors: map[string]*node{}}
	return c.convert(bodies[0], 0)
}

// parseYAML makes an error of a panic of the library, of which there have been several on hostile input.
func parseYAML(src []byte) (file *ast.File, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("not valid YAML")
		}
	}()
	tokens := lexer.Tokenize(string(src))
	if t := tooMuch(tokens); t != nil {
		return nil, &overLimit{t}
	}
	return parser.Parse(tokens, 0, parser.AllowDuplicateMapKey()) // addPair tells of those, by name
}

// why is the parser's reason in our own words where that is known, since its own may quote the file.
func why(err yaml.Error) string {
	if err == nil {
		return ""
	}
	for _, known := range [...]struct{ theirs, ours string }{
		{"\t", "indentation takes spaces, no tabs"},
		{"tab character", "indentation takes spaces, no tabs"},
		{"',' or ']'", "a list in [ ] lacks a comma or its end"},
		{"']' not found", "a list in [ ] lacks its end"},
		{"',' or '}'", "a map in { } lacks a comma or its end"},
		{"token '}'", "a map in { } lacks its end"},
		{"could not find flow map", "a map in { } lacks its end"},
		{"mapping value is not allowed", "a second colon in a line; quote the text that holds it"},
		{"unexpected key name", "a colon after the key is missing"},
		{"non-map value", "a colon after the key is missing, or the indentation is wrong"},
		{"value is not allowed in this context", "the indentation does not fit the lines above"},
		{"end character of double-quoted", "a text in double quotes lacks its end"},
		{"end character of single-quoted", "a text in single quotes lacks its end"},
	} {
		if strings.Contains(err.GetMessage(), known.theirs) {
			return ": " + known.ours
		}
	}
	return ""
}

// overLimit is a file that would take the parser too long.
type overLimit struct{ at *token.Token }

func (*overLimit) Error() string { return "too large" }

// tooMuch gives the token at which the file becomes too large to be parsed, nil when it never does. The lexer's time is
// linear; the parser looks at all keys of a block map before it at every further one.
func tooMuch(tokens token.Tokens) *token.Token {
	type block struct{ column, keys int }
	var open []block
	flow, work := 0, 0
	for i, t := range tokens {
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow = max(0, flow-1)
		case token.MappingValueType, token.MappingKeyType:
			if flow > 0 {
				break
			}
			column := t.Position.Column // of the question mark before a key
			if t.Type == token.MappingValueType && i > 0 {
				column = tokens[i-1].Position.Column
			}
			for len(open) > 0 && open[len(open)-1].column > column {
				open = open[:len(open)-1]
			}
			if len(open) == 0 || open[len(open)-1].column < column {
				open = append(open, block{column: column})
			}
			open[len(open)-1].keys++
			work += open[len(open)-1].keys
		}
		if i > maxTokens || work > maxWork {
			return t
		}
	}
	return nil
}

// depth is an upper bound of how deep src is nested by what costs one byte a level, found before a recursive parser sees
// it: open brackets, also those in texts and comments, and dashes that begin a line. Indentation costs more.
func depth(src []byte) int {
	deepest, open := 0, 0
	for line := range strings.Lines(string(src)) {
		trimmed := strings.TrimLeft(line, " \t-?")
		dashes := strings.Count(line[:len(line)-len(trimmed)], "-")
		for _, c := range []byte(trimmed) {
			switch c {
			case '[', '{':
				open++
				deepest = max(deepest, open)
			case ']', '}':
				open = max(open-1, 0)
			}
		}
		deepest = max(deepest, dashes)
	}
	return deepest
}

type converter struct {
	problems *problems
	anchors  map[string]*node
	nodes    int
	full     bool
}

func place(t *token.Token) (line, column int) {
	if t == nil || t.Position == nil {
		return 0, 0
	}
	return t.Position.Line, t.Position.Column
}

func (c *converter) convert(from ast.Node, level int) *node {
	n := &node{}
	if from == nil {
		return n
	}
	n.line, n.column = place(from.GetToken())
	c.nodes++
	before := c.nodes
	defer func() { n.size = c.nodes - before + 1 }()
	if c.beyond(level, n) {
		return n
	}
	switch from := from.(type) {
	case *ast.NullNode:
	case *ast.StringNode:
		n.kind, n.text = kindString, from.Value
	case *ast.LiteralNode:
		n.kind, n.text = kindString, from.Value.Value
	case *ast.IntegerNode, *ast.FloatNode:
		n.kind, n.text = kindNumber, from.GetToken().Value
	case *ast.BoolNode:
		n.kind, n.text = kindBool, "false"
		if from.Value {
			n.text = "true"
		}
	case *ast.AnchorNode:
		value := c.convert(from.Value, level)
		c.anchors[from.Name.GetToken().Value] = value
		return value
	case *ast.AliasNode:
		value, ok := c.anchors[from.Value.GetToken().Value]
		if !ok {
			c.problems.add(n, "", "the alias has no anchor before it")
			return n
		}
		c.nodes += value.size // it is read as often as it is named
		if c.beyond(level, n) {
			return n
		}
		return value
	case *ast.TagNode:
		c.problems.add(n, "", "tags are not supported here")
	case *ast.SequenceNode:
		n.kind = kindSequence
		for _, v := range from.Values {
			n.items = append(n.items, c.convert(v, level+1))
		}
	case *ast.MappingNode:
		n.kind = kindMapping
		for _, v := range from.Values {
			c.addPair(n, v, level)
		}
	case *ast.MappingValueNode:
		n.kind = kindMapping
		n.line, n.column = place(from.Key.GetToken())
		c.addPair(n, from, level)
	default:
		c.problems.add(n, "", "this kind of YAML value is not supported here")
	}
	if n.kind == kindMapping && len(n.pairs) > 0 {
		n.line, n.column = n.pairs[0].key.line, n.pairs[0].key.column
	}
	return n
}

// beyond reports whether n is more than can be taken in, and tells so once.
func (c *converter) beyond(level int, n *node) bool {
	if level <= maxDepth && c.nodes <= maxNodes {
		return false
	}
	if !c.full {
		c.problems.add(n, "", "it is nested too deeply or is too large")
	}
	c.full = true
	return true
}

func (c *converter) addPair(n *node, from *ast.MappingValueNode, level int) {
	value := c.convert(from.Value, level+1)
	if c.full {
		return
	}
	if _, merge := from.Key.(*ast.MergeKeyNode); merge {
		if value.kind != kindMapping {
			c.problems.add(value, "", "what << merges must be a map")
			return
		}
		for _, p := range value.pairs {
			if n.get(p.key.text) == nil {
				n.add(pair{p.key, p.value, true})
			}
		}
		return
	}
	key := c.convert(from.Key, level+1)
	if c.full {
		return
	}
	if key.kind == kindMapping || key.kind == kindSequence || key.kind == kindNull {
		c.problems.add(key, "", "a key must be a text")
		return
	}
	if i, exists := n.at[key.text]; exists {
		if !n.pairs[i].merged {
			c.problems.add(key, "", "the key %q stands twice", shownKey(key.text))
		}
		n.pairs[i] = pair{key: key, value: value}
		return
	}
	n.add(pair{key: key, value: value})
}
