package secretref

import (
	"strconv"
	"strings"

	"github.com/credresolve/credresolve/internal/execproto"
)

// node is a value of a JSON text. Its members are found when they are first asked for, so that many pointers into a file read
// each part of it once, and none of it is copied.
type node struct {
	text    []byte // without white space around it
	opened  bool
	members map[string]*node // of an object; of duplicate keys the last
	items   []*node          // of an array
}

func (n *node) open() {
	if n.opened {
		return
	}
	n.opened = true
	switch n.text[0] {
	case '{':
		n.members = make(map[string]*node)
		for key, value := range execproto.Members(n.text) {
			n.members[key] = &node{text: value}
		}
	case '[':
		for item := range execproto.Items(n.text) {
			n.items = append(n.items, &node{text: item})
		}
	}
}

var unescape = strings.NewReplacer("~1", "/", "~0", "~")

// find follows a JSON pointer. Where it leads nowhere, missing is OpenClaw's sentence about the segment that does.
func (n *node) find(pointer string, c Compat) (found *node, missing string) {
	path, absolute := strings.CutPrefix(pointer, "/")
	if !absolute {
		return nil, `File-backed secret ids must be absolute JSON pointers (for example: "/providers/openai/apiKey").`
	}
	for segment := range strings.SplitSeq(path, "/") {
		segment = unescape.Replace(segment)
		n.open()
		if n.text[0] == '[' {
			index := arrayIndex(segment, c)
			if index < 0 || index >= len(n.items) {
				return nil, `JSON pointer segment "` + visible(segment) + `" is out of bounds.`
			}
			n = n.items[index]
			continue
		}
		next, ok := n.members[segment]
		if !ok {
			return nil, `JSON pointer segment "` + visible(segment) + `" does not exist.`
		}
		n = next
	}
	return n, ""
}

// greatestIndex is the last item of an array that a pointer reaches.
const greatestIndex = 100000

// arrayIndex reads an index, -1 where segment is none. Release 2026.3.2 took whatever starts with a number.
func arrayIndex(segment string, c Compat) int {
	if c == V2026_3_2 {
		segment = strings.TrimLeftFunc(segment, isSpace)
		sign := strings.IndexFunc(segment, func(r rune) bool { return r != '+' && r != '-' }) // at most one counts: Atoi takes no two
		digits := strings.TrimLeft(segment[max(sign, 0):], "0123456789")
		segment = strings.TrimSuffix(segment, digits)
	} else if segment != "0" && (segment == "" || segment[0] == '0' || strings.Trim(segment, "0123456789") != "") {
		return -1
	}
	index, err := strconv.Atoi(segment)
	if err != nil || index < 0 || c == Newest && index > greatestIndex {
		return -1
	}
	return index
}
