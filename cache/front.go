package cache

import (
	"hash/maphash"
	"math/bits"
	"sync/atomic"

	"github.com/credresolve/credresolve/credref"
)

// front finds slots by their refs. It is an open-addressed table whose cells are filled under the cache's lock and read
// without one; a cell never changes once it is filled. It is at most half full: before it would be more, a new one is made
// of the slots that show something.
//
// A Go map hashes all four texts of a ref each time, of which most have one or two, and can only be copied as a whole to be
// shared without a lock.
type front[V any] struct {
	seed   maphash.Seed
	cells  []atomic.Pointer[Slot[V]] // a power of two, more than filled
	filled int                       // guarded by Cache.mu
}

const minCells = 64

// newFront gives a table with room for n more slots than those of old that show something.
func newFront[V any](old *front[V], n int) *front[V] {
	var alive []*Slot[V]
	seed := maphash.MakeSeed()
	if old != nil {
		seed = old.seed
		for i := range old.cells {
			if s := old.cells[i].Load(); s != nil && s.value.Load() != nil {
				alive = append(alive, s)
			}
		}
	}
	size := max(minCells, 1<<bits.Len(uint(4*(len(alive)+n)-1)))
	f := &front[V]{seed: seed, cells: make([]atomic.Pointer[Slot[V]], size)}
	for _, s := range alive {
		f.add(s)
	}
	return f
}

// find gives the slot of r, nil when there is none.
func (f *front[V]) find(r *credref.Ref) *Slot[V] {
	cells := f.cells
	for i := f.hash(r); ; i++ {
		s := cells[i&uint64(len(cells)-1)].Load()
		if s == nil || s.ref == *r {
			return s
		}
	}
}

// full reports whether a new table is due.
func (f *front[V]) full() bool { return 2*(f.filled+1) > len(f.cells) }

// add takes s, whose ref is not there; f is not full.
func (f *front[V]) add(s *Slot[V]) {
	for i := f.hash(&s.ref); ; i++ {
		if cell := &f.cells[i&uint64(len(f.cells)-1)]; cell.Load() == nil {
			cell.Store(s)
			f.filled++
			return
		}
	}
}

// hash hashes what tells most refs apart. The seed keeps others from choosing ids that collide; a provider's name is the
// configuration's and needs less.
func (f *front[V]) hash(r *credref.Ref) uint64 {
	h := maphash.String(f.seed, r.ID)
	if r.Field != "" {
		h = bits.RotateLeft64(h, 21) ^ maphash.String(f.seed, r.Field)
	}
	if r.Version != "" {
		h = bits.RotateLeft64(h, 42) ^ maphash.String(f.seed, r.Version)
	}
	var name uint64
	for i := range len(r.Provider) {
		name = 31*name + uint64(r.Provider[i])
	}
	return h ^ name*0x9e3779b97f4a7c15
}
