package resolver

import (
	"context"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// Demand is what a caller asks beyond a ref. The zero Demand is what Resolve gives.
type Demand struct {
	// MinFreshness is how much longer a credential must live. One whose Expires comes sooner is fetched anew, and what the
	// store then gives is the answer. It has no effect on one without an end.
	MinFreshness time.Duration
	// MaxStale is how far past its time a value may be. Nil: the provider's bound; else the lesser of both; zero: no value past
	// its time.
	MaxStale *time.Duration
	// NoCache fetches from the store, at most once a second for each secret: who asks within a second after such a fetch went out
	// gets what it gave, its failure too. What is not cached at all, by the provider's settings, is fetched each time.
	NoCache bool
	// Exact looks in the narrowest place alone that the provider's scope has for the subject: where that has nothing, the ref is
	// not found, whatever is shared with others.
	Exact bool
	// Whole gives a secret with several fields, of which the ref names none, as a Value whose Secret is zero and whose Fields
	// are all of them, where it is field_required otherwise.
	Whole bool
}

// demandEvery is how long what was read is new enough for NoCache and MinFreshness, and how long a failure counts as theirs.
const demandEvery = time.Second

// plain reports whether d asks for nothing that what is cached could lack.
func (d *Demand) plain() bool {
	return d == nil || d.MinFreshness <= 0 && d.MaxStale == nil && !d.NoCache
}

// anew reports whether d may be met only by what is read anew.
func (d *Demand) anew() bool { return d != nil && (d.NoCache || d.MinFreshness > 0) }

// refuses reports whether rec is not good enough for d.
func (d *Demand) refuses(rec *record, now int64) bool {
	switch {
	case d.plain():
		return false
	case d.tooOld(rec, now): // however lately it was fetched
		return true
	case now-rec.got < int64(demandEvery) && now < rec.fresh:
		return false
	case d.NoCache:
		return true
	}
	return d.tooShort(rec)
}

// tooShort reports whether rec ends sooner than d allows.
func (d *Demand) tooShort(rec *record) bool {
	return d.MinFreshness > 0 && rec.cred != nil && !rec.known.expires.IsZero() && time.Until(rec.known.expires) < d.MinFreshness
}

// tooOld reports whether rec is farther past its time than d allows.
func (d *Demand) tooOld(rec *record, now int64) bool {
	return d.MaxStale != nil && rec.cred != nil && now >= rec.fresh && now-rec.fresh >= int64(*d.MaxStale)
}

// tooStale is the error for who waited and gets rec, which is served for want of another, and does not want it.
func (d *Demand) tooStale(rec *record, now int64) error {
	if d.plain() || !rec.stale || !d.NoCache && !d.tooOld(rec, now) && !d.tooShort(rec) {
		return nil
	}
	return backend.Errorf(backend.CodeUnavailable, "the store is unavailable, and the value that is known is not as fresh as was asked for")
}

// ResolveWith is ResolveAll with a demand.
func (r *Resolver) ResolveWith(ctx context.Context, refs []credref.Ref, d Demand) []Outcome {
	return r.resolveAll(ctx, refs, nil, &d)
}

// ResolveWith is Resolver.ResolveWith for the view's subject.
func (v *View) ResolveWith(ctx context.Context, refs []credref.Ref, d Demand) []Outcome {
	return v.r.resolveAll(ctx, refs, &v.subject, &d)
}

// Cached gives the value of ref if it can be given at once, by the way of a hit: no lock, no allocation. It is nil otherwise,
// and for refs of providers with a scope.
func (r *Resolver) Cached(ref *credref.Ref) *Value { return r.cache.Get(ref, r.clock.now.Load()) }

// Cached is Resolver.Cached.
func (v *View) Cached(ref *credref.Ref) *Value { return v.r.Cached(ref) }
