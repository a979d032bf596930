package server

import (
	"context"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
)

// revoked removes the copies of ref that there are elsewhere.
func (s *Server) revoked(ctx context.Context, ref credref.Ref) {
	if s.options.Revoked == nil {
		return
	}
	if err := s.options.Revoked(ctx, ref); err != nil {
		s.log.Warn("not every copy of what was revoked is removed", "ref", ref.String(), "code", string(backend.CodeOf(err)), "reason", err.Error())
	}
}

// copiesSettle is how long to wait for word of another revocation that has happened already.
const copiesSettle = 50 * time.Millisecond

// watchCopies gives what removes the copies of all that is revoked from now on until that is called.
func (s *Server) watchCopies(ctx context.Context) func() {
	if s.options.Copied == nil {
		return func() {}
	}
	refs := s.options.Copied()
	if len(refs) == 0 {
		return func() {}
	}
	watching, stop := context.WithCancel(ctx)
	events := s.resolver.Watch(watching, refs...)
	return func() {
		defer stop()
		for {
			select {
			case ev, open := <-events:
				if !open {
					return
				}
				if ev.Kind == resolver.EventRevoked {
					s.revoked(ctx, ev.Ref)
				}
			case <-time.After(copiesSettle):
				return
			}
		}
	}
}
