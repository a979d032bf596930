package resolver

import (
	"context"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// View resolves for one subject, whatever the context says. It is safe for concurrent use and needs no closing.
type View struct {
	r       *Resolver
	subject credref.Subject
}

// Resolve is Resolver.Resolve for the view's subject.
func (v *View) Resolve(ctx context.Context, ref credref.Ref) (*Value, error) {
	if out := v.r.cache.Get(&ref, v.r.clock.now.Load()); out != nil {
		return out, nil // only refs of providers without scope are found so
	}
	return v.r.resolve(ctx, ref, &v.subject, nil)
}

// ResolveAll is Resolver.ResolveAll for the view's subject.
func (v *View) ResolveAll(ctx context.Context, refs []credref.Ref) []Outcome {
	return v.r.resolveAll(ctx, refs, &v.subject, nil)
}

// Handle gives a Handle on ref. It does no I/O.
func (v *View) Handle(ref credref.Ref) *Handle { return newHandle(v.r, v.subject, ref) }

// Watch is Resolver.Watch for the view's subject.
func (v *View) Watch(ctx context.Context, refs ...credref.Ref) <-chan Event {
	return v.r.watch(ctx, v.subject, refs)
}

// Report is Resolver.Report for the view's subject.
func (v *View) Report(ctx context.Context, ref credref.Ref, revision string) (*Value, error) {
	return v.r.report(ctx, ref, revision, &v.subject)
}

// Forget is Resolver.Forget for what the view's subject sees.
func (v *View) Forget(ref credref.Ref) int {
	p, err := v.r.lookup(ref)
	if err != nil {
		return 0
	}
	targets, err := p.targets(ref, v.subject)
	if err != nil {
		return 0
	}
	return v.r.forget(func(k key) bool {
		for _, t := range targets {
			if t.key == k {
				return true
			}
		}
		return false
	})
}

// Revoke is Resolver.Revoke for the view's subject.
func (v *View) Revoke(ctx context.Context, ref credref.Ref) error {
	return v.r.revoke(ctx, ref, v.subject)
}

// Backend is Resolver.Backend.
func (v *View) Backend(provider string) (backend.Backend, error) { return v.r.Backend(provider) }
