package redact

// trie collects patterns.
type trie struct{ nodes []node }

// node is a state: the text on the way to it from the root, which is node 0. Children are a linked list, since nearly
// all nodes have one.
type node struct {
	child, sibling int32 // 0: none
	fail           int32 // the longest proper suffix of this text that is a state
	depth          int32 // length of this text
	match          int32 // length of the longest pattern that is a suffix of this text; 0: none
	shortest       int32 // length of the shortest pattern that starts with this text
	b              byte
}

func (t *trie) add(pattern string) {
	if len(pattern) < MinLen {
		return
	}
	if t.nodes == nil {
		t.nodes = make([]node, 1)
	}
	n := int32(0)
	for i := range len(pattern) {
		next := find(t.nodes, n, pattern[i])
		if next == 0 {
			next = int32(len(t.nodes))
			t.nodes = append(t.nodes, node{sibling: t.nodes[n].child, depth: int32(i + 1), b: pattern[i]})
			t.nodes[n].child = next
		}
		n = next
		if s := &t.nodes[n].shortest; *s == 0 || int(*s) > len(pattern) {
			*s = int32(len(pattern))
		}
	}
	t.nodes[n].match = int32(len(pattern))
}

func find(nodes []node, n int32, b byte) int32 {
	for c := nodes[n].child; c != 0; c = nodes[c].sibling {
		if nodes[c].b == b {
			return c
		}
	}
	return 0
}

// automaton finds patterns in a stream in one pass, in time that does not depend on their number (Aho and Corasick,
// "Efficient string matching", 1975).
type automaton struct {
	nodes []node
	root  [256]int32 // children of the root, where most bytes of a stream lead
}

func (t *trie) compile() automaton {
	a := automaton{nodes: t.nodes}
	if a.nodes == nil {
		a.nodes = make([]node, 1)
	}
	queue := make([]int32, 0, len(a.nodes))
	for c := a.nodes[0].child; c != 0; c = a.nodes[c].sibling {
		a.root[a.nodes[c].b] = c
		queue = append(queue, c)
	}
	for len(queue) > 0 { // by depth, so that a failure link is complete before it is used
		n := queue[0]
		queue = queue[1:]
		for c := a.nodes[n].child; c != 0; c = a.nodes[c].sibling {
			fail := a.step(a.nodes[n].fail, a.nodes[c].b)
			a.nodes[c].fail = fail
			if a.nodes[c].match == 0 {
				a.nodes[c].match = a.nodes[fail].match
			}
			queue = append(queue, c)
		}
	}
	return a
}

// step gives the state after b.
func (a *automaton) step(n int32, b byte) int32 {
	for n != 0 {
		if c := find(a.nodes, n, b); c != 0 {
			return c
		}
		n = a.nodes[n].fail
	}
	return a.root[b]
}
