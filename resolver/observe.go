package resolver

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/credresolve/credresolve/backend"
)

// Call is a call to a store that has ended. It names no secret.
type Call struct {
	// Context is that of the caller whose request made the call go out, without its end; the background context where nobody
	// waited for it then.
	Context  context.Context
	Provider string
	// Op is what was called: get, batch, check, renew or revoke.
	Op string
	// Refs is how many secrets it was for.
	Refs int
	// Code is how it went: of a batch as a whole, so that it is ok also where single secrets failed.
	Code backend.Code
	Took time.Duration
}

// The operations of a Call.
const (
	OpGet    = "get"
	OpBatch  = "batch"
	OpCheck  = "check"
	OpRenew  = "renew"
	OpRevoke = "revoke"
)

// observe tells of a call that has ended with err.
func (p *provider) observe(ctx context.Context, op string, refs int, began time.Time, err error) {
	if p.r.onCall == nil {
		return
	}
	if ctx == nil {
		ctx = context.Background()
	}
	p.r.onCall(Call{Context: ctx, Provider: p.name, Op: op, Refs: refs, Code: backend.CodeOf(err), Took: time.Since(began)})
}

// ProviderState is how a provider stands.
type ProviderState struct {
	Name   string
	Digest string
	// Breaker is closed, open, half_open (one call tries), or held: left alone for a pause that the store asked for, or after
	// refused logins.
	Breaker string
	// Failures is how many calls failed in a row, Code and Reason how the last one did, RetryAt when the next is made.
	Failures int
	Code     backend.Code
	Reason   string
	RetryAt  time.Time
	Calls    int // under way
	Queued   int // secrets that wait for a call
	Waiting  int // callers that wait for a secret
	Entries  int // secrets in the cache
}

// The states of a ProviderState's breaker.
const (
	BreakerClosed   = "closed"
	BreakerOpen     = "open"
	BreakerHalfOpen = "half_open"
	BreakerHeld     = "held"
)

// Providers tells how each provider stands, by name.
func (r *Resolver) Providers() []ProviderState {
	out, guards := r.stands()
	for i, g := range guards { // apart, since one may be reading what other processes remember
		g.describe(&out[i])
	}
	return out
}

// stands is Providers without what the guards know, which it gives as well.
func (r *Resolver) stands() ([]ProviderState, []*guard) {
	r.mu.Lock()
	defer r.mu.Unlock()
	providers := *r.providers.Load()
	waiting := map[string]int{}
	for k, f := range r.flights {
		waiting[k.provider] += int(f.waiters.Load())
	}
	out, guards := make([]ProviderState, 0, len(providers)), make([]*guard, 0, len(providers))
	for _, name := range slices.Sorted(maps.Keys(providers)) {
		p := providers[name]
		out = append(out, ProviderState{
			Name: name, Digest: p.Digest, Calls: p.active, Queued: p.queued(), Waiting: waiting[name], Entries: r.entries[name],
		})
		guards = append(guards, p.guard)
	}
	return out, guards
}

// describe tells what the guard knows.
func (g *guard) describe(s *ProviderState) {
	now := time.Now()
	state := gobreaker.StateClosed
	if g.breaker != nil {
		state = g.breaker.State() // before g.mu is locked: the breaker takes g.mu under its own lock
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.load(now)
	s.Breaker, s.Failures, s.Code, s.Reason = BreakerClosed, g.failures, g.code, g.reason
	switch state {
	case gobreaker.StateOpen:
		s.Breaker, s.RetryAt = BreakerOpen, g.opened.Add(g.limits.Open)
	case gobreaker.StateHalfOpen:
		s.Breaker = BreakerHalfOpen
	}
	if g.until.After(now) {
		if state != gobreaker.StateOpen {
			s.Breaker = BreakerHeld
		}
		if g.until.After(s.RetryAt) {
			s.RetryAt = g.until
		}
	}
}
