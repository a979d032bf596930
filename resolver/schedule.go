package resolver

import (
	"container/heap"
	"runtime"
	"time"
)

// schedule tells when something is to be done about a record: a heap by due time, and one timer for the first of them. It is
// guarded by Resolver.mu.
type schedule struct {
	heap  dueHeap
	timer *time.Timer
	wakes int64 // when the timer fires, by the clock; zero: it does not
}

// due is an entry and when it is due. The heap looks at the time often, and so keeps it by itself.
type due struct {
	at int64
	e  *entry
}

const (
	// lookAgain is how long the timer waits at most: it stands still while the machine sleeps, and the clock does not.
	lookAgain = 5 * time.Second
	// dueAtOnce is about how many records others wait for, after a sleep in which all came due.
	dueAtOnce = 256
)

// set makes e due at that time, whether it was due at another or not at all.
func (s *schedule) set(e *entry, at int64) {
	if e.Payload.place == 0 {
		s.heap = append(s.heap, due{at, e})
		e.Payload.place = int32(len(s.heap)) // #nosec G115 -- a cache does not hold that many
	} else {
		s.heap[e.Payload.place-1].at = at
	}
	heap.Fix(&s.heap, int(e.Payload.place-1))
}

// remove lets go of e.
func (s *schedule) remove(e *entry) {
	if e.Payload.place > 0 {
		heap.Remove(&s.heap, int(e.Payload.place-1))
	}
}

// stop ends the timer.
func (s *schedule) stop() {
	if s.timer != nil {
		s.timer.Stop()
	}
}

// dueHeap is a heap.Interface. A record knows its place, counted from one.
type dueHeap []due

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].e.Payload.place, h[j].e.Payload.place = h[j].e.Payload.place, h[i].e.Payload.place
}
func (h *dueHeap) Push(any) {} // see schedule.set, which allocates nothing
func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	(*h)[last].e.Payload.place = 0
	(*h)[last] = due{}
	*h = (*h)[:last]
	return nil
}

// schedule sets until when hits are answered without a look at e, and the time of the next such look. Called with r.mu held.
func (r *Resolver) schedule(e *entry, now int64) {
	rec := &e.Payload
	next := rec.end()
	switch {
	case rec.cred == nil:
		e.SetUntil(now) // an error is no value that a hit could give
	case r.flights[rec.target.key] != nil:
		e.SetUntil(rec.limit())
	default:
		until := min(rec.refresh, rec.limit())
		if rec.refresh > now {
			next = min(next, rec.refresh)
		}
		if rec.look > 0 { // where it is over, since nobody used it, the next hit has it looked at
			until = min(until, rec.look)
			if rec.look > now {
				next = min(next, rec.look)
			}
		}
		e.SetUntil(until)
	}
	r.agenda.set(e, next)
	r.arm(now)
}

// arm sets the timer, if it would come too late. Called with r.mu held.
func (r *Resolver) arm(now int64) {
	s := &r.agenda
	if len(s.heap) == 0 || r.closed {
		return
	}
	at := min(max(s.heap[0].at, now), now+int64(lookAgain))
	if s.wakes >= now && s.wakes <= at { // earlier than now: the machine slept, or the clock jumped
		return
	}
	s.wakes = at
	if s.timer == nil {
		s.timer = time.AfterFunc(time.Duration(at-now), r.onDue)
	} else {
		s.timer.Reset(time.Duration(at - now))
	}
}

// onDue sees to all that is due.
func (r *Resolver) onDue() {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &r.agenda
	s.wakes = 0
	now := r.clock.look()
	for n := 1; len(s.heap) > 0 && s.heap[0].at <= now && !r.closed; n++ {
		r.attendTo(s.heap[0].e, now)
		if n%dueAtOnce == 0 {
			r.mu.Unlock()
			runtime.Gosched()
			r.mu.Lock()
			now = r.clock.look()
		}
	}
	r.arm(now)
}

// attendTo does what is to be done about e: a successor is to be fetched if somebody uses it, or it is over. Called with r.mu
// held.
func (r *Resolver) attendTo(e *entry, now int64) {
	rec := &e.Payload
	k := rec.target.key
	p, pin := r.owner(k), r.pins[k]
	switch {
	case now >= rec.end():
		r.cache.Remove(k)
		switch {
		case rec.halted:
			r.publishEnd(k, EventAuthRequired, rec.known.refreshError())
		case rec.cred != nil:
			r.lapsed(k)
		}
		// What is open is fetched once more, and how that goes is told.
		if p != nil && pin != nil && rec.cred != nil && !rec.halted && r.flights[k] == nil {
			r.takeOffQuietly(p, rec.target)
			p.dispatch()
		}
		return
	case rec.cred == nil:
	case now < min(rec.refresh, rec.end()):
		if p != nil && rec.look > 0 && now >= rec.look && r.flights[k] == nil && r.inUse(p, e, now) {
			r.look(p, e, now)
			p.dispatch()
		}
	case r.flights[k] == nil:
		r.expiring(rec)
		if p != nil && r.wanted(p, e, now) && !rec.halted {
			r.renewOrFetch(p, e)
			p.dispatch()
		}
	}
	r.schedule(e, now)
}

// wanted reports whether somebody uses e: it was read since this was last asked, or not longer ago than its provider says, or
// a handle is open. Called with r.mu held.
func (r *Resolver) wanted(p *provider, e *entry, now int64) bool {
	rec := &e.Payload
	if e.Used() {
		rec.used = now
		return true
	}
	return r.pins[rec.target.key] != nil || rec.used > 0 && now-rec.used < int64(p.Idle)
}
