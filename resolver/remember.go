package resolver

import (
	"sync"
	"time"
	"unique"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// Remembered is a credential that may outlive the process, for an outage of its store that begins before the next one has
// it. Credential holds the secret; whoever keeps it elsewhere must encrypt it.
type Remembered struct {
	// Digest is that of the provider's definition: under another one it means nothing.
	Digest string
	// Ref has no field.
	Ref        credref.Ref
	Subject    credref.Subject
	Credential *backend.Credential
	Type       backend.Type
	Fetched    time.Time
	Expires    time.Time // zero: never, or unknown
}

// Change says how what Snapshot gives has changed.
type Change int

// The changes.
const (
	// ChangeKept: there is more, or it is newer.
	ChangeKept Change = iota
	// ChangeEnded: something must not be given any more: revoked, denied, gone, forgotten, its provider replaced.
	ChangeEnded
)

// tellingMutex tells of changes once it is unlocked, so that who is told may call the Resolver.
type tellingMutex struct {
	sync.Mutex
	tell func(Change) // nil: nobody; never changes
	due  [2]bool      // by Change
}

// Unlock unlocks m.
func (m *tellingMutex) Unlock() {
	due := m.due
	m.due = [2]bool{}
	m.Mutex.Unlock()
	for c, is := range due {
		if is {
			m.tell(Change(c))
		}
	}
}

// changed has c told of when r.mu is unlocked. Called with r.mu held.
func (r *Resolver) changed(c Change) { r.mu.due[c] = r.mu.tell != nil }

// ended tells that what was known of k ended, if somebody may keep it. Called with r.mu held.
func (r *Resolver) ended(k key) { r.endedOf(func(other key) bool { return other == k }, k) }

// endedOf is ended for all keys that which names; they are among those of only, if there are any. Called with r.mu held.
func (r *Resolver) endedOf(which func(key) bool, only ...key) {
	found := r.unsure
	for _, k := range only {
		if _, ok := r.given[k]; ok {
			delete(r.given, k)
			found = true
		}
	}
	if len(only) == 0 {
		for k := range r.given {
			if which(k) {
				delete(r.given, k)
				found = true
			}
		}
	}
	if found {
		r.changed(ChangeEnded)
	}
}

// lend notes that somebody may keep what is known of k. It stays noted until that ends, even if a later Snapshot lacks it: who
// could not write that one keeps the one before. Called with r.mu held.
func (r *Resolver) lend(k key) {
	if r.mu.tell == nil {
		return
	}
	if r.given[k] = struct{}{}; len(r.given) > 4*r.most {
		clear(r.given)
		r.unsure = true // for good: then each end is told of
	}
}

// lasting reports whether rec, of k, may be remembered beyond the process, as long as it is served.
func (r *Resolver) lasting(k key, rec *record) bool {
	p := r.owner(k)
	return p != nil && p.Digest != "" && rec.cred != nil && rec.cred.Lease == nil && !rec.noStale && k.whom().Session == ""
}

// Snapshot gives what may be remembered: whole credentials that are served now, or were restored, without those that have a
// lease or are past their end, without sessions', and only of providers with a digest.
func (r *Resolver) Snapshot() []Remembered {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	now, wall := r.clock.exact(), time.Now().Round(0)
	out := make([]Remembered, 0, r.cache.Size().Entries+len(r.kept))
	cached := make(map[key]bool, len(r.kept))
	r.cache.RemoveIf(func(k key, e *entry) bool {
		rec := &e.Payload
		switch {
		case !r.lasting(k, rec), now >= rec.end():
		case !rec.known.expires.IsZero() && !rec.known.expires.After(wall):
		default:
			out = append(out, Remembered{
				Digest: r.owner(k).Digest, Ref: k.ref(), Subject: k.whom(), Credential: rec.cred, Type: rec.known.typ,
				Fetched: rec.known.fetched, Expires: rec.known.expires,
			})
			r.lend(k)
			if r.kept[k] != nil {
				cached[k] = true
			}
		}
		return false
	})
	for k, one := range r.kept {
		if !cached[k] && one.end.After(wall) {
			out = append(out, one.Remembered)
			r.lend(k)
		}
	}
	return out
}

// restored is what Restore keeps aside.
type restored struct {
	Remembered
	end time.Time // when it is of no use any more
}

// Restore takes over what another process remembered, and tells of how much it can make use: of no more secrets than 10,000, or
// than the cache holds. It is kept aside: a value is given, and marked as stale, only when a fetch of it fails since its store is unavailable, at most
// maxAge after it was fetched, and not past its end. It is dropped once the store was heard about it, and by all that ends a
// cached value.
func (r *Resolver) Restore(rem []Remembered, maxAge time.Duration) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0
	}
	n, wall := 0, time.Now().Round(0)
	for _, one := range rem {
		one.Ref.Field = ""
		k := key{provider: one.Ref.Provider, id: one.Ref.ID, version: one.Ref.Version}
		if one.Subject != (credref.Subject{}) {
			k.subject = unique.Make(one.Subject)
		}
		r.lend(k) // whether it is of use or not: it is there
		p, c := r.owner(k), one.Credential
		if p == nil || p.Digest == "" || p.Digest != one.Digest || c == nil || c.Lease != nil || one.Subject.Session != "" {
			continue
		}
		end := one.Fetched.Add(maxAge)
		if !one.Expires.IsZero() && one.Expires.Before(end) {
			end = one.Expires
		}
		if one.Fetched.After(wall) || !end.After(wall) || r.cache.Peek(k) != nil {
			continue
		}
		if have := r.kept[k]; have == nil {
			if len(r.kept) >= r.most {
				continue
			}
			n++
		} else if !have.Fetched.Before(one.Fetched) {
			continue
		}
		r.kept[k] = &restored{one, end}
	}
	r.expire()
	return n
}

// expire drops what was restored and is of no use any more, at once and in time: it would stay in memory else. Called with r.mu
// held.
func (r *Resolver) expire() {
	wall := time.Now().Round(0)
	var next time.Time
	for k, one := range r.kept {
		switch {
		case !one.end.After(wall):
			delete(r.kept, k)
		case next.IsZero(), one.end.Before(next):
			next = one.end
		}
	}
	if next.IsZero() || r.closed {
		return
	}
	if r.lapse != nil {
		r.lapse.Stop()
	}
	r.lapse = time.AfterFunc(max(next.Sub(wall), time.Second), func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.expire()
	})
}

// recall gives an entry of what was restored under t, a place of p, if err, of the fetch of it, allows that; nil otherwise. It
// stays aside until the store was heard, since the cache may let go of the entry before. Called with r.mu held.
func (r *Resolver) recall(p *provider, t *target, err error, now int64) *entry {
	one := r.kept[t.key]
	if one == nil {
		return nil
	}
	wall := time.Now().Round(0)
	left := one.end.Sub(wall)
	switch code := backend.CodeOf(err); {
	case left <= 0, code == backend.CodeNotFound, code == backend.CodeDenied, code == backend.CodeExpired:
		delete(r.kept, t.key)
		return nil
	case !unavailable(err):
		return nil
	}
	c, got := one.Credential, now-int64(wall.Sub(one.Fetched))
	rec := record{
		cred: c, target: t, stale: true, fails: 1,
		got: got, fresh: min(got+int64(p.TTL), now-1), last: now + int64(left), refresh: now + int64(minRefresh),
		known: &known{
			typ: one.Type, version: c.Version, expires: one.Expires, refreshAfter: c.RefreshAfter, metadata: c.Metadata, fetched: one.Fetched,
		},
	}
	if rec.known.typ == "" {
		rec.known.typ = p.typeOf(t.key.id)
	}
	rec.known.revision = r.revise.revision(rec.known.typ, c)
	rec.known.failure.Store(&failure{now, err})
	e := r.install(rec, now)
	r.publish(&e.Payload, EventStale, err)
	return e
}
