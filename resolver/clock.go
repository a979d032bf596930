package resolver

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// tick is how coarse the clock is, and so a part of every skew.
const tick = 50 * time.Millisecond

// coarse is a clock that a hit reads with one load. Its time, in nanoseconds, goes on by whichever of the monotonic and
// the wall clock went further: the one stands still while the machine sleeps, the other can be set back. So a deadline
// may come early after a jump, never late.
//
// It ticks only while somebody reads it. From time to time it falls asleep: its time is then past every deadline, and the
// first hit, which so becomes a miss, wakes it by reading it exactly. If none comes, it stops.
type coarse struct {
	_   [64]byte // keeps what hits read apart from what others write
	now atomic.Int64
	_   [64]byte

	mu     sync.Mutex
	start  time.Time
	mono   int64
	wall   int64
	time   int64
	ticks  int
	armed  bool
	closed bool
	timer  *time.Timer
	read   func() (mono, wall int64) // nil: the machine's clocks
}

const (
	asleep     = math.MaxInt64
	ticksAwake = 20 // between two short sleeps: one second
)

// exact gives the time, and keeps the clock ticking.
func (c *coarse) exact() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advance()
	if c.closed {
		return c.time
	}
	c.now.Store(c.time)
	if !c.armed {
		c.armed, c.ticks = true, 0
		if c.timer == nil {
			c.timer = time.AfterFunc(tick, c.onTick)
		} else {
			c.timer.Reset(tick)
		}
	}
	return c.time
}

// look gives the time, and leaves it to hits whether the clock ticks.
func (c *coarse) look() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advance()
	return c.time
}

func (c *coarse) onTick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	if c.now.Load() == asleep {
		c.armed = false
		return
	}
	if c.ticks++; c.ticks%ticksAwake == 0 {
		c.now.Store(asleep)
	} else {
		c.advance()
		c.now.Store(c.time)
	}
	c.timer.Reset(tick)
}

// advance brings c.time up to date. Called with c.mu held.
func (c *coarse) advance() {
	mono, wall := c.machine()
	if c.time > 0 {
		c.time += max(mono-c.mono, wall-c.wall, 0)
	} else {
		c.time = 1
	}
	c.mono, c.wall = mono, wall
}

func (c *coarse) machine() (mono, wall int64) {
	if c.read != nil {
		return c.read()
	}
	now := time.Now()
	if c.start.IsZero() {
		c.start = now
	}
	return int64(now.Sub(c.start)), now.UnixNano()
}

// close makes every deadline pass, for good.
func (c *coarse) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.now.Store(asleep)
	if c.timer != nil {
		c.timer.Stop()
	}
}
