package resolver

import (
	"context"
	"maps"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// Inspection is how a ref stands, as one subject sees it. It holds no secret.
type Inspection struct {
	// Places are where the ref is looked for, in this order: session, end user, tenant, everybody. The next one counts only
	// where a place has nothing.
	Places []Place
	// Provider is how its provider stands.
	Provider ProviderState
}

// Place is one place where a ref is looked for, and what is known of it.
type Place struct {
	// Subject is whose credential it would be; zero: everybody's.
	Subject credref.Subject
	// ID is what the store is asked for.
	ID string
	// State is where the credential is in its life; StateConfigured when nothing is known.
	State State
	// Missing: the store has no such secret, and that is remembered until FreshUntil.
	Missing bool

	// What is known of the credential, if anything.
	Type     backend.Type
	Revision string
	Version  string
	Metadata map[string]string
	// Fetched is when the store gave it, Expires when it stops to accept it; zero: never, or unknown.
	Fetched, Expires time.Time
	// FreshUntil is until when it is served as it is, ServedUntil until when at all, should its store be unavailable.
	FreshUntil, ServedUntil time.Time
	// NextRefresh is when a successor is to be fetched, if somebody still uses it.
	NextRefresh time.Time
	// Lease is how long its lease lasts from one renewal to the next; zero: it has none.
	Lease time.Duration
	// Failures is how many fetches of a successor failed in a row, Failed when the last of them did, and Code and Reason how.
	Failures int
	Failed   time.Time
	Code     backend.Code
	Reason   string
	// Fetching: a fetch is under way.
	Fetching bool
}

// Known reports whether there is a credential.
func (p *Place) Known() bool { return p.Revision != "" }

// Inspect tells how ref stands, as the subject of ctx sees it. Nothing is fetched, and nothing becomes more recently used by
// it. Its errors are a *RefError.
func (r *Resolver) Inspect(ctx context.Context, ref credref.Ref) (Inspection, error) {
	return r.inspect(ref, credref.SubjectFrom(ctx))
}

// Inspect is Resolver.Inspect for the view's subject.
func (v *View) Inspect(ref credref.Ref) (Inspection, error) { return v.r.inspect(ref, v.subject) }

func (r *Resolver) inspect(ref credref.Ref, subject credref.Subject) (Inspection, error) {
	var out Inspection
	p, err := r.lookup(ref)
	if err != nil {
		return out, &RefError{Ref: ref, Err: err}
	}
	targets, err := p.targets(ref, subject)
	if err != nil {
		return out, &RefError{Ref: ref, Err: err}
	}
	for i := range targets {
		out.Places = append(out.Places, r.place(&targets[i]))
	}
	for _, state := range r.Providers() {
		if state.Name == ref.Provider {
			out.Provider = state
		}
	}
	return out, nil
}

func (r *Resolver) place(t *target) Place {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := Place{Subject: t.key.whom(), ID: t.id, State: StateConfigured, Fetching: r.flights[t.key] != nil}
	if out.Fetching {
		out.State = StateResolving
	}
	e := r.cache.Peek(t.key)
	if e == nil {
		return out
	}
	rec, now := &e.Payload, r.clock.exact()
	wall := time.Now().Round(0)
	at := func(point int64) time.Time { return wall.Add(time.Duration(point - now)) }
	if now >= rec.end() {
		return out
	}
	out.FreshUntil = at(rec.fresh)
	if rec.cred == nil {
		out.Missing = true
		return out
	}
	switch {
	case rec.halted && !out.Fetching:
		out.State = StateAuthRequired
	case rec.stale || now >= rec.fresh:
		out.State = StateStale
	case out.Fetching:
		out.State = StateRefreshing
	case now >= rec.refresh:
		out.State = StateExpiring
	default:
		out.State = StateActive
	}
	k := rec.known
	out.Type, out.Revision, out.Version, out.Metadata = k.typ, k.revision, k.version, maps.Clone(k.metadata)
	out.Fetched, out.Expires = k.fetched, k.expires
	out.ServedUntil, out.NextRefresh = at(rec.end()), at(min(rec.refresh, rec.end()))
	if rec.cred.Lease != nil {
		out.Lease = rec.length
	}
	if f := k.failure.Load(); f != nil {
		out.Failures, out.Failed, out.Code, out.Reason = int(rec.fails), at(f.at), backend.CodeOf(f.err), reasonOf(f.err)
	}
	return out
}
