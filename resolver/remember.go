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

// ended drops what may be remembered of k, here and by who has taken a Snapshot. Called with r.mu held.
func (r *Resolver) ended(k key) {
	e := r.cache.Peek(k)
	_, shown := r.shown[k]
	if shown || r.kept[k] != nil || e != nil && e.Payload.cred != nil {
		r.changed(ChangeEnded)
	}
	delete(r.kept, k)
	delete(r.shown, k)
}

// Snapshot gives what may be remembered: whole credentials that are served now, without those that have a lease or are past
// their end, without sessions', and only of providers with a digest.
func (r *Resolver) Snapshot() []Remembered {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, wall := r.clock.exact(), time.Now()
	r.expire()
	r.shown = map[key]struct{}{}
	out := make([]Remembered, 0, len(r.kept))
	r.cache.RemoveIf(func(k key, e *entry) bool {
		rec, p := &e.Payload, r.owner(k)
		switch {
		case p == nil, p.Digest == "", rec.cred == nil, rec.cred.Lease != nil, rec.noStale, now >= rec.end(), k.whom().Session != "":
		case !rec.known.expires.IsZero() && !rec.known.expires.After(wall):
		default:
			out = append(out, Remembered{
				Digest: p.Digest, Ref: k.ref(), Subject: k.whom(), Credential: rec.cred, Type: rec.known.typ,
				Fetched: rec.known.fetched, Expires: rec.known.expires,
			})
			r.shown[k] = struct{}{}
		}
		return false
	})
	for k, rem := range r.kept {
		if _, cached := r.shown[k]; !cached {
			out = append(out, *rem)
			r.shown[k] = struct{}{}
		}
	}
	if r.mu.tell == nil {
		r.shown = nil // nobody to tell
	}
	return out
}

// Restore takes over what another process remembered, and tells of how much it can make use. It is kept aside: a value is given,
// and marked as stale, only when a fetch of it fails since its store is unavailable, at most maxAge after it was fetched, and
// not past its end. It is dropped once the store was heard about it, and by all that ends a cached value.
func (r *Resolver) Restore(rem []Remembered, maxAge time.Duration) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0
	}
	n, wall := 0, time.Now()
	for _, one := range rem {
		p := (*r.providers.Load())[one.Ref.Provider]
		if p == nil || p.Digest == "" || p.Digest != one.Digest || one.Credential == nil || one.Credential.Lease != nil || one.Subject.Session != "" {
			continue
		}
		k := key{provider: p.name, id: one.Ref.ID, version: one.Ref.Version}
		if one.Subject != (credref.Subject{}) {
			k.subject = unique.Make(one.Subject)
		}
		if r.mu.tell != nil {
			if r.shown == nil {
				r.shown = map[key]struct{}{}
			}
			r.shown[k] = struct{}{} // whether it is of use or not: it lies there
		}
		if one.Fetched.After(wall) || !until(&one, maxAge).After(wall) || r.cache.Peek(k) != nil {
			continue
		}
		one.Expires = until(&one, maxAge)
		one.Ref.Field = ""
		r.kept[k] = &one
		n++
	}
	r.expire()
	return n
}

// expire drops what is of no use any more, and sees to the rest in time. Called with r.mu held.
func (r *Resolver) expire() {
	var next time.Time
	wall := time.Now()
	for k, rem := range r.kept {
		switch {
		case !rem.Expires.After(wall):
			delete(r.kept, k)
		case next.IsZero() || rem.Expires.Before(next):
			next = rem.Expires
		}
	}
	if r.expiry != nil {
		r.expiry.Stop()
	}
	if next.IsZero() || r.closed {
		return
	}
	r.expiry = time.AfterFunc(next.Sub(wall), func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.expire()
	})
}

// until is when rem is of no use any more.
func until(rem *Remembered, maxAge time.Duration) time.Time {
	end := rem.Fetched.Add(maxAge)
	if !rem.Expires.IsZero() && rem.Expires.Before(end) {
		end = rem.Expires
	}
	return end
}

// recall gives an entry of what was restored of f's secret, if err, with which f ended, allows that; nil otherwise. It stays
// kept, since the entry may have to make room. Called with
// r.mu held.
func (r *Resolver) recall(f *flight, err error, now int64) *entry {
	t := f.target
	rem := r.kept[t.key]
	if rem == nil {
		return nil
	}
	wall := time.Now().Round(0)
	left := rem.Expires.Sub(wall)
	if left <= 0 || !unavailable(err) {
		return nil
	}
	c := rem.Credential
	got := now - int64(wall.Sub(rem.Fetched))
	rec := record{
		cred: c, target: t, stale: true, fails: 1,
		got: got, fresh: min(got+int64(f.p.TTL), now), last: now + int64(left), refresh: now + int64(minRefresh),
		known: &known{
			typ: rem.Type, version: c.Version, expires: c.Expires, refreshAfter: c.RefreshAfter, metadata: c.Metadata, fetched: rem.Fetched,
		},
	}
	rec.known.revision = r.revise.revision(rem.Type, c)
	e := r.install(rec, now)
	r.publish(&e.Payload, EventStale, err)
	return e
}
