package cache

import (
	"sync/atomic"

	"github.com/credresolve/credresolve/credref"
)

// Slot answers for one ref. The zero Slot shows nothing, and belongs to the first cache whose Show is called with it; it
// must not be copied. It is safe for concurrent use.
type Slot[V any] struct {
	life  atomic.Pointer[life]
	value atomic.Pointer[V]
	ref   credref.Ref // never changes
}

// Get gives the answer, nil when there is none or its deadline has come.
func (s *Slot[V]) Get(now int64) *V {
	l := s.life.Load()
	if l == nil || now >= l.until.Load() {
		return nil
	}
	// Set only when unset: hits on many processors must not write to one line of memory.
	if !l.used.Load() {
		l.used.Store(true)
	}
	return s.value.Load()
}
