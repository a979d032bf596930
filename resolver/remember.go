package resolver

import (
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

// changed tells of c. Called with r.mu held.
func (r *Resolver) changed(c Change) {
	if r.onChange != nil {
		r.onChange(c)
	}
}

// Snapshot gives what may be remembered: whole credentials that are served now, without those that have a lease or are past
// their end, without sessions', and only of providers with a digest.
func (r *Resolver) Snapshot() []Remembered {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, wall := r.clock.exact(), time.Now()
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
		}
		return false
	})
	for _, rem := range r.kept {
		out = append(out, *rem)
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
		if one.Fetched.After(wall) || !until(&one, maxAge).After(wall) || r.cache.Peek(k) != nil {
			continue
		}
		one.Expires = until(&one, maxAge)
		one.Ref.Field = ""
		r.kept[k] = &one
		n++
	}
	return n
}

// until is when rem is of no use any more.
func until(rem *Remembered, maxAge time.Duration) time.Time {
	end := rem.Fetched.Add(maxAge)
	if !rem.Expires.IsZero() && rem.Expires.Before(end) {
		end = rem.Expires
	}
	return end
}

// recall gives an entry of what was restored under t, if err, of the fetch of it, allows that; nil otherwise. Called with
// r.mu held.
func (r *Resolver) recall(t *target, err error, now int64) *entry {
	rem := r.kept[t.key]
	if rem == nil {
		return nil
	}
	wall := time.Now().Round(0)
	left := rem.Expires.Sub(wall)
	switch code := backend.CodeOf(err); {
	case left <= 0, code == backend.CodeNotFound, code == backend.CodeDenied, code == backend.CodeExpired:
		delete(r.kept, t.key)
		r.changed(ChangeEnded)
		return nil
	case !unavailable(err):
		return nil
	}
	delete(r.kept, t.key)
	c := rem.Credential
	rec := record{
		cred: c, target: t, stale: true, fails: 1,
		got: now - int64(wall.Sub(rem.Fetched)), fresh: now - 1, last: now + int64(left), refresh: now + int64(minRefresh),
		known: &known{
			typ: rem.Type, version: c.Version, expires: c.Expires, refreshAfter: c.RefreshAfter, metadata: c.Metadata, fetched: rem.Fetched,
		},
	}
	rec.known.revision = r.revise.revision(rem.Type, c)
	e := r.install(rec, now)
	r.publish(&e.Payload, EventStale, err)
	return e
}
