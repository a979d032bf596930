package policy

import (
	"errors"
	"math/bits"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/credresolve/credresolve/credref"
)

// pattern is a pattern of ids.
type pattern struct {
	text    string
	literal bool    // it matches text alone
	prefix  string  // what stands before the first wildcard
	tokens  []token // from the first wildcard on
}

// token is a character, or one of the wildcards.
type token rune

const (
	oneInSegment token = -1 - iota // ?
	anyInSegment                   // *
	anyAtAll                       // **
)

// compile reads a pattern. Its errors do not repeat it.
func compile(text string) (pattern, error) {
	switch {
	case text == "":
		return pattern{}, errors.New("the pattern is empty; ** stands for any id")
	case len(text) > credref.MaxID:
		return pattern{}, errors.New("the pattern is longer than an id can be")
	case !utf8.ValidString(text):
		return pattern{}, errors.New("the pattern is not valid UTF-8")
	}
	first := strings.IndexAny(text, "*?")
	if first < 0 {
		return literally(text), nil
	}
	p := pattern{text: text, prefix: text[:first]}
	for rest := text[first:]; rest != ""; {
		stars := len(rest) - len(strings.TrimLeft(rest, "*"))
		switch {
		case stars > 1:
			p.tokens = append(p.tokens, anyAtAll)
			rest = rest[stars:]
		case stars == 1:
			p.tokens = append(p.tokens, anyInSegment)
			rest = rest[1:]
		case rest[0] == '?':
			p.tokens = append(p.tokens, oneInSegment)
			rest = rest[1:]
		default:
			c, n := utf8.DecodeRuneInString(rest)
			p.tokens = append(p.tokens, token(c))
			rest = rest[n:]
		}
	}
	return p, nil
}

func literally(text string) pattern { return pattern{text: text, literal: true} }

// matches reports whether p allows id. ambiguous is what isAmbiguous says of id.
func (p *pattern) matches(id string, ambiguous bool) bool {
	if p.literal {
		return id == p.text
	}
	if ambiguous || !p.glob(id) {
		return false
	}
	// Where the pattern has the slash it is meant; elsewhere a wildcard took it for nothing.
	short := id
	if !strings.HasPrefix(p.text, "/") {
		short = strings.TrimPrefix(short, "/")
	}
	if !strings.HasSuffix(p.text, "/") {
		short = strings.TrimSuffix(short, "/")
	}
	return short == id || p.glob(short)
}

// states is a set of places between the tokens of a pattern.
type states [(credref.MaxID + 64) / 64]uint64

// glob matches id by following all ways through the pattern at once, so that its time grows with the lengths of both and
// never with the number of ways.
func (p *pattern) glob(id string) bool {
	rest, ok := strings.CutPrefix(id, p.prefix)
	if !ok {
		return false
	}
	if len(p.tokens) == 1 && p.tokens[0] == anyAtAll {
		return true
	}
	end := len(p.tokens)
	words := end/64 + 1
	var now states
	p.enter(&now, 0)
	for _, c := range rest {
		var next states
		alive := false
		for w := range words {
			for set := now[w]; set != 0; set &= set - 1 {
				i := w*64 + bits.TrailingZeros64(set)
				if i == end {
					continue
				}
				switch t := p.tokens[i]; {
				case t == anyAtAll, t == anyInSegment && c != '/':
					p.enter(&next, i)
				case t == oneInSegment && c != '/', t == token(c):
					p.enter(&next, i+1)
				default:
					continue
				}
				alive = true
			}
		}
		if !alive {
			return false
		}
		now = next
	}
	return now[end/64]&(1<<(end%64)) != 0
}

// enter adds the place i to set, and those that follow it without a character.
func (p *pattern) enter(set *states, i int) {
	for set[i/64]&(1<<(i%64)) == 0 {
		set[i/64] |= 1 << (i % 64)
		if i == len(p.tokens) || p.tokens[i] != anyInSegment && p.tokens[i] != anyAtAll {
			return
		}
		i++
	}
}

// isAmbiguous reports whether a store might take id for another one: it has a segment . or .., an empty segment between two
// others, a backslash, or a percent-escape.
func isAmbiguous(id string) bool {
	if strings.Contains(id, "//") || strings.ContainsRune(id, '\\') {
		return true
	}
	for segment := range strings.SplitSeq(id, "/") {
		if segment == "." || segment == ".." {
			return true
		}
	}
	for rest := id; ; {
		_, after, found := strings.Cut(rest, "%")
		if !found {
			return false
		}
		if len(after) >= 2 && isHex(after[0]) && isHex(after[1]) {
			return true
		}
		rest = after
	}
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'
}

// fieldPath gives the path of a field: a key is a path of one, a pointer of RFC 6901 one of its parts, unescaped.
func fieldPath(field string) []string {
	if !strings.HasPrefix(field, "/") {
		return []string{field}
	}
	parts := strings.Split(field[1:], "/")
	for i, part := range parts {
		parts[i] = unescape.Replace(part)
	}
	return parts
}

// within reports whether the field at path is the one at of, or lies below it.
func within(path, of []string) bool {
	return len(path) >= len(of) && slices.Equal(path[:len(of)], of)
}

// Refs gives what tells whether a ref is named by one of patterns, each PROVIDER/ID with both as in a rule; none: all are.
func Refs(patterns []string) (func(credref.Ref) bool, error) {
	type one struct {
		provider string
		id       pattern
	}
	var all []one
	for _, text := range patterns {
		provider, id, _ := strings.Cut(text, "/")
		compiled, err := compile(id)
		if _, bad := path.Match(provider, ""); err == nil && (bad != nil || provider == "") {
			err = errors.New("the pattern of the provider is empty or malformed")
		}
		if err != nil {
			return nil, err
		}
		all = append(all, one{provider, compiled})
	}
	return func(ref credref.Ref) bool {
		for i := range all {
			if is, _ := path.Match(all[i].provider, ref.Provider); is && all[i].id.matches(ref.ID, false) {
				return true
			}
		}
		return len(all) == 0
	}, nil
}
