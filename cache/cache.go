package cache

import (
	"math"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/credresolve/credresolve/credref"
)

// Limits bound what a Cache holds.
type Limits struct {
	Entries int   // the most entries; below one: one
	Bytes   int64 // the greatest sum of their costs; below one: no limit
}

// Cache holds entries up to its Limits. It is safe for concurrent use; Get of a Cache and of a Slot take no lock and
// allocate nothing.
type Cache[K comparable, E, V any] struct {
	front atomic.Pointer[front[V]]

	mu      sync.Mutex // guards what follows, and writes to the front
	lru     *simplelru.LRU[K, *Entry[E, V]]
	limits  Limits
	bytes   int64
	evicted uint64
	left    func(K, *Entry[E, V], bool)
}

// Entry is what a Cache knows of one key.
type Entry[E, V any] struct {
	// Payload belongs to the caller; the cache only keeps it.
	Payload E

	life *life
	// The rest is guarded by Cache.mu.
	cost  int64
	held  bool
	slots []*Slot[V]
}

// life is the part of an Entry that hits look at. It is apart from the rest, so that those of many entries share a line of
// the processor's cache, and a Slot keeps no Entry in memory.
type life struct {
	until atomic.Int64
	used  atomic.Bool
}

// NewEntry gives an Entry that answers until the deadline.
func NewEntry[E, V any](payload E, until int64) *Entry[E, V] {
	e := &Entry[E, V]{Payload: payload, life: new(life)}
	e.life.until.Store(until)
	return e
}

// SetUntil moves the deadline. An entry that has left its cache stays ended.
func (e *Entry[E, V]) SetUntil(until int64) {
	for {
		old := e.life.until.Load()
		if old == ended || e.life.until.CompareAndSwap(old, until) {
			return
		}
	}
}

// Used reports whether a Slot of e has answered since the last call, and forgets it.
func (e *Entry[E, V]) Used() bool { return e.life.used.Swap(false) }

// WasUsed reports what Used would, and does not forget it.
func (e *Entry[E, V]) WasUsed() bool { return e.life.used.Load() }

// MarkUsed makes e as a hit does.
func (e *Entry[E, V]) MarkUsed() { e.life.used.Store(true) }

// Live reports whether e is in its cache and not past its deadline.
func (e *Entry[E, V]) Live(now int64) bool { return now < e.life.until.Load() }

const ended = math.MinInt64

// New gives an empty Cache. left, which may be nil, is told of each entry that leaves for whatever reason, and whether that
// is to make room; it runs under the cache's lock and must not call the cache.
func New[K comparable, E, V any](limits Limits, left func(k K, e *Entry[E, V], evicted bool)) *Cache[K, E, V] {
	lru, err := simplelru.NewLRU[K, *Entry[E, V]](math.MaxInt, nil)
	if err != nil {
		panic(err) // only a size below one is refused
	}
	limits.Entries = max(limits.Entries, 1)
	c := &Cache[K, E, V]{lru: lru, limits: limits, left: left}
	c.front.Store(newFront[V](nil, 0))
	return c
}

// Get gives the answer to r, nil when there is none or its deadline has come.
func (c *Cache[K, E, V]) Get(r *credref.Ref, now int64) *V {
	if s := c.front.Load().find(r); s != nil {
		return s.Get(now)
	}
	return nil
}

// Slot gives the slot of r, a new one if there is none.
func (c *Cache[K, E, V]) Slot(r credref.Ref) *Slot[V] {
	if s := c.front.Load().find(&r); s != nil {
		return s
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.front.Load()
	if s := f.find(&r); s != nil {
		return s
	}
	if f.full() {
		f = newFront(f, 1)
		c.front.Store(f)
	}
	s := &Slot[V]{ref: r}
	f.add(s)
	return s
}

// Show makes s answer with v for as long as e lives, and adds cost to e's. It does nothing, and reports false, when e has
// left the cache.
func (c *Cache[K, E, V]) Show(e *Entry[E, V], s *Slot[V], v *V, cost int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !e.held {
		return false
	}
	if s.life.Load() == e.life {
		s.value.Store(v)
		return true
	}
	// A reader takes life first, value second: stored the other way round, it never finds an older value with a newer life.
	s.value.Store(v)
	s.life.Store(e.life)
	e.slots = append(e.slots, s)
	e.cost += cost
	c.bytes += cost
	c.shrink(e)
	return e.held
}

// Put holds e under k at a cost in bytes, in place of what was there. It makes room by ending what was not asked for
// for longest. It holds nothing, and reports false, when e alone is above the limit.
func (c *Cache[K, E, V]) Put(k K, e *Entry[E, V], cost int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.lru.Peek(k); ok {
		c.end(k, old, false)
	}
	if c.limits.Bytes > 0 && cost > c.limits.Bytes {
		return false
	}
	e.cost, e.held = cost, true
	c.bytes += cost
	c.lru.Add(k, e)
	c.shrink(e)
	return true
}

// shrink ends entries until the limits hold, keep last. An entry that answered since it was last looked at goes to the
// young end instead: hits do not move it there themselves. Called with c.mu held.
func (c *Cache[K, E, V]) shrink(keep *Entry[E, V]) {
	for second := c.lru.Len(); c.lru.Len() > c.limits.Entries || c.limits.Bytes > 0 && c.bytes > c.limits.Bytes; second-- {
		k, e, ok := c.lru.GetOldest()
		if !ok {
			return
		}
		if e == keep && c.lru.Len() > 1 || second > 0 && e.life.used.Swap(false) {
			c.lru.Get(k)
			continue
		}
		c.evicted++
		c.end(k, e, true)
	}
}

// end takes e away. Called with c.mu held.
func (c *Cache[K, E, V]) end(k K, e *Entry[E, V], evicted bool) {
	e.life.until.Store(ended) // this alone ends every slot; what follows lets go of the memory
	e.held = false
	c.lru.Remove(k)
	c.bytes -= e.cost
	for _, s := range e.slots {
		if s.life.Load() == e.life {
			s.life.Store(nil)
			s.value.Store(nil)
		}
	}
	e.slots = nil
	if c.left != nil {
		c.left(k, e, evicted)
	}
}

// Peek gives the entry of k, past its deadline or not, nil when there is none.
func (c *Cache[K, E, V]) Peek(k K) *Entry[E, V] {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, _ := c.lru.Peek(k)
	return e
}

// Remove ends the entry of k and reports whether there was one.
func (c *Cache[K, E, V]) Remove(k K) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.lru.Peek(k)
	if ok {
		c.end(k, e, false)
	}
	return ok
}

// RemoveIf ends every entry for which which reports true; it runs under the cache's lock and must not call the cache.
func (c *Cache[K, E, V]) RemoveIf(which func(K, *Entry[E, V]) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range c.lru.Len() { // once round, which leaves their order as it was; a list of all keys would be large
		k, e, _ := c.lru.GetOldest()
		if which(k, e) {
			c.end(k, e, false)
		} else {
			c.lru.Get(k)
		}
	}
}

// Resize changes the limits, and ends what is above them.
func (c *Cache[K, E, V]) Resize(limits Limits) {
	c.mu.Lock()
	defer c.mu.Unlock()
	limits.Entries = max(limits.Entries, 1)
	c.limits = limits
	c.shrink(nil)
}

// Size is how full a Cache is.
type Size struct {
	Entries int
	Bytes   int64
	Evicted uint64 // entries that left to make room, since New
}

// Size tells how full c is.
func (c *Cache[K, E, V]) Size() Size {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Size{Entries: c.lru.Len(), Bytes: c.bytes, Evicted: c.evicted}
}
