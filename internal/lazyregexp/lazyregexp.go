// Package lazyregexp has regular expressions that are compiled when they are first used, so that a start of the command does not
// pay for those that it does not need.
package lazyregexp

import (
	"regexp"
	"sync"
)

// New gives a func that compiles pattern at its first call, and gives the same expression from then on. It panics there when
// pattern is malformed. It is safe for concurrent use.
func New(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}
