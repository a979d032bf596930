package document

import (
	"path"
	"strings"

	"github.com/credresolve/credresolve/backend"
)

// glob is a pattern over the keys and indices that lead to a value.
type glob []string

// parseGlob reads /metadata/** and the like: the segments of a JSON Pointer, in each of which *, ? and [a-z] match as in
// package path; ** as a segment of its own matches any number of segments, also none.
func parseGlob(pattern string) (glob, error) {
	if !strings.HasPrefix(pattern, "/") {
		return nil, backend.Errorf(backend.CodeUsage, "ignore pattern %q: it must start with /", pattern)
	}
	g := glob(strings.Split(pattern[1:], "/"))
	for i, segment := range g {
		if _, err := path.Match(segment, ""); err != nil {
			return nil, backend.Errorf(backend.CodeUsage, "ignore pattern %q: segment %d is malformed", pattern, i+1)
		}
	}
	return g, nil
}

// match reports whether g matches all of segments, which are escaped as in a JSON Pointer.
func (g glob) match(segments []string) bool {
	// The usual matching with one point to return to: only the last ** needs to be tried again.
	var gi, si int
	star, from := -1, 0
	for si < len(segments) {
		if gi < len(g) && g[gi] == "**" {
			star, from = gi, si
			gi++
			continue
		}
		if gi < len(g) {
			if ok, _ := path.Match(g[gi], segments[si]); ok {
				gi++
				si++
				continue
			}
		}
		if star < 0 {
			return false
		}
		from++
		gi, si = star+1, from
	}
	for gi < len(g) && g[gi] == "**" {
		gi++
	}
	return gi == len(g)
}

// escapeSegment writes a key as a segment of a JSON Pointer.
func escapeSegment(key string) string {
	if !strings.ContainsAny(key, "~/") {
		return key
	}
	return strings.ReplaceAll(strings.ReplaceAll(key, "~", "~0"), "/", "~1")
}
