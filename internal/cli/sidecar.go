package cli

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
)

// shared is the sidecar of this user, as far as it has what a command's configuration has. One goroutine uses it.
type shared struct {
	*client.Client
	path      string               // of its socket
	providers map[string]bool      // that it has in the same definition
	gone      bool                 // it did not answer, and is asked no more
	own       map[credref.Ref]bool // what was resolved in process after all
}

// sidecarTime is how long a sidecar may take to say what it has: one that takes longer is of no use to a command.
const sidecarTime = time.Second

// share finds the sidecar of this user. It is nil where there is none, where it has no provider of the same definition, and
// where a flag refuses it.
func (s *session) share(ctx context.Context) *shared {
	a := s.app
	if a.noSidecar || s.ownOnly {
		return nil
	}
	path, err := client.SocketPath(a.lookupEnv)
	if err != nil {
		return nil
	}
	if st, err := os.Lstat(path); err != nil || st.Mode().Type() != os.ModeSocket {
		return nil // most often, and at no cost
	}
	c, err := a.dial(path)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, sidecarTime)
	defer cancel()
	theirs, err := c.Providers(ctx)
	if err != nil {
		a.log.Debug("the sidecar is not asked", "reason", err.Error())
		_ = c.Close()
		return nil
	}
	out := &shared{Client: c, path: path, providers: map[string]bool{}, own: map[credref.Ref]bool{}}
	own, bound := map[string]string{}, map[string]bool{}
	for _, p := range s.Providers() {
		own[p.Name] = p.Digest
	}
	for _, p := range theirs {
		bound[p.Name] = p.CallerBound // to an environment that need not be ours, though ours says nothing
	}
	for _, p := range theirs {
		if def := s.file.Provider(p.Name); def != nil && p.Digest != "" && p.Digest == own[p.Name] && !s.bound(def, bound) {
			out.providers[p.Name] = true
		}
	}
	if len(out.providers) == 0 {
		_ = c.Close()
		return nil
	}
	a.log.Debug("the sidecar is asked", "providers", len(out.providers))
	return out
}

// bound reports whether what def gives depends on the environment or the directory of a process, of this one or of the
// sidecar, or on for whom the sidecar takes its caller, by itself or by a secret of its own. The chain has no cycle.
func (s *session) bound(def *config.Provider, there map[string]bool) bool {
	b, err := s.Backend(def.Name)
	if err != nil || def.Scoped() && !s.scoped || there[def.Name] || backend.Describe(b).CallerBound {
		return true
	}
	for _, ref := range def.Chain {
		if next := s.file.Provider(ref.Provider); next == nil || s.bound(next, there) {
			return true
		}
	}
	return false
}

// sidecar is share, once.
func (s *session) sidecar(ctx context.Context) *shared {
	s.once.Do(func() { s.with = s.share(ctx) })
	return s.with
}

// answering is the sidecar for what is resolved: nil also where a flag asks for what another process cannot do.
func (s *session) answering(ctx context.Context) *shared {
	if s.app.now || s.app.interactive {
		return nil
	}
	return s.sidecar(ctx)
}

// has reports whether the sidecar is to be asked for ref.
func (c *shared) has(ref credref.Ref) bool {
	return c != nil && !c.gone && c.providers[ref.Provider] && !c.own[ref]
}

// ownReasons reports whether the sidecar failed for a reason that is not the store's, so that without it the answer may be
// another: it is away, it refuses the request as a whole, its policy gives this program less than its user may have, or its
// time is over and ours is not. Who may do what is not told apart from what the store denies; the store says the same twice.
func ownReasons(ctx context.Context, err error) bool {
	code := backend.CodeOf(err)
	return errors.Is(err, client.ErrRequest) || code == backend.CodeDenied ||
		code == backend.CodeTimeout && ctx.Err() == nil
}

// resolveAll gives an outcome for each of refs: the sidecar's where it has the same provider, else our own. What it cannot
// answer for reasons of its own is as if it had not been there.
func (s *session) resolveAll(ctx context.Context, refs []credref.Ref) []resolver.Outcome {
	with := s.answering(ctx)
	var theirs, ours []credref.Ref
	var at, atOurs []int
	for i, ref := range refs {
		if with.has(ref) && ref.Validate() == nil {
			theirs, at = append(theirs, ref), append(at, i)
		} else {
			ours, atOurs = append(ours, ref), append(atOurs, i)
		}
	}
	if len(theirs) == 0 {
		return s.ResolveAll(ctx, refs)
	}
	out := make([]resolver.Outcome, len(refs))
	var asking sync.WaitGroup
	var answers []resolver.Outcome
	asking.Go(func() { answers = with.ResolveAll(ctx, theirs) })
	for k, o := range s.ResolveAll(ctx, ours) {
		out[atOurs[k]] = o
	}
	asking.Wait()
	var again []credref.Ref
	var atAgain []int
	for k, o := range answers {
		out[at[k]] = o
		if o.Err == nil || !ownReasons(ctx, o.Err) {
			continue
		}
		s.app.log.Debug("the sidecar gives no answer", "ref", o.Ref.String(), "code", string(backend.CodeOf(o.Err)))
		with.gone = with.gone || errors.Is(o.Err, client.ErrUnreachable)
		with.own[o.Ref] = true
		again, atAgain = append(again, o.Ref), append(atAgain, at[k])
	}
	if len(again) > 0 {
		for k, o := range s.ResolveAll(ctx, again) {
			out[atAgain[k]] = o
		}
	}
	return out
}

// keep keeps what ref gave alive until release is called: refreshed, its lease renewed, by whoever gave it.
func (s *session) keep(ctx context.Context, ref credref.Ref) (release func()) {
	if with := s.answering(ctx); with.has(ref) {
		ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		events := with.Watch(ctx, ref)
		go func() {
			for range events { // being watched is what keeps it
			}
		}()
		return cancel
	}
	h := s.For(s.subject).Handle(ref)
	if _, err := h.Get(ctx); err != nil {
		s.app.log.Debug("a lease cannot be kept alive", "ref", ref.String(), "code", string(backend.CodeOf(err)))
	}
	return func() { _ = h.Close() }
}

// wrote tells our own resolver and the sidecar that ref's secret was put or deleted.
func (s *session) wrote(ctx context.Context, ref credref.Ref) {
	s.Wrote(ref)
	with := s.sidecar(ctx)
	if !with.has(ref) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sidecarTime)
	defer cancel()
	if err := with.Forget(ctx, credref.Ref{Provider: ref.Provider, ID: ref.ID}); err != nil {
		s.app.log.Debug("the sidecar may have the old value for a while", "reason", err.Error())
	}
}

// end lets go of the sidecar.
func (s *session) end() {
	if s.with != nil {
		_ = s.with.Close()
	}
}
