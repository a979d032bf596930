package resolver

import (
	"context"
	"slices"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// window is what is known of a secret whose value was refused where it was used, as while it is being rotated: one version may
// be in force already, or still, that the store does not call the current one. It is guarded by Resolver.mu.
type window struct {
	looked  int64               // when a report last made us ask the store; zero: never
	ends    int64               // until then what was refused is not given in place of what was not
	refused []string            // revisions, the last one last
	current *backend.Credential // what the store gave as the current version, if that was refused
	others  []*backend.Credential
	began   int64  // when the calls went out that gave current and others
	spent   *entry // the last of others, refused like the rest, in whose place current is served again
}

const (
	rotationWindow = 10 * time.Minute // after the last report
	maxRefused     = 16
)

// refuse notes that revision was refused.
func (w *window) refuse(revision string, now int64) {
	if now >= w.ends {
		w.close()
	}
	w.ends = now + int64(rotationWindow)
	if !slices.Contains(w.refused, revision) {
		if len(w.refused) == maxRefused {
			w.refused = slices.Delete(w.refused, 0, 1)
		}
		w.refused = append(w.refused, revision)
	}
}

// close forgets what was refused, but not when the store was asked.
func (w *window) close() { w.refused, w.current, w.others, w.spent = nil, nil, nil, nil }

// has reports whether revision was refused in w, which may be nil.
func (w *window) has(revision string, now int64) bool {
	return w != nil && now < w.ends && slices.Contains(w.refused, revision)
}

// report is Report for subject, that of ctx when nil.
func (r *Resolver) report(ctx context.Context, ref credref.Ref, revision string, subject *credref.Subject) (*Value, error) {
	p, targets, err := r.aim(ctx, ref, subject)
	if err != nil {
		return nil, refError(ref, err)
	}
	for i := range targets {
		for waited := false; ; waited = true {
			r.mu.Lock()
			if p.retired && !r.closed {
				r.mu.Unlock()
				return r.report(ctx, ref, revision, subject) // to its successor
			}
			e := r.cache.Peek(targets[i].key)
			if e == nil || e.Payload.cred == nil {
				r.mu.Unlock()
				break
			}
			now := r.clock.exact()
			if rec := &e.Payload; rec.known.revision != revision {
				spent := rec.window.exhausted(rec.known.revision, revision, now)
				r.mu.Unlock()
				if spent != nil {
					return r.answerReport(p, spent, ref)
				}
				return r.resolve(ctx, ref, subject, nil) // there is a newer one, or one is due
			}
			e, f, err := r.successor(ctx, p, &targets[i], e, waited, now)
			p.dispatch()
			r.mu.Unlock()
			if f != nil {
				if e, err = r.wait(ctx, f); isReplaced(err) {
					return r.resolve(ctx, ref, subject, nil)
				}
				if err == nil && f.window == nil && !waited && e.Payload.known.revision == revision {
					continue // it may have been read before it was refused
				}
			}
			if err != nil {
				return nil, refError(ref, err)
			}
			if f == nil && e.Payload.known.revision == revision && now >= e.Payload.limit() {
				return r.resolve(ctx, ref, subject, nil)
			}
			return r.answerReport(p, e, ref)
		}
	}
	return r.resolve(ctx, ref, subject, nil)
}

func (r *Resolver) answerReport(p *provider, e *entry, ref credref.Ref) (*Value, error) {
	v, err := r.answer(p, e, ref, nil, &Demand{NoCache: true}) // the value of e, whatever another shows meanwhile
	if err != nil {
		return nil, refError(ref, err)
	}
	return v, nil
}

// exhausted gives the entry of revision, nil when it is not known or there is something to try in its place: the present one is
// served only because all were refused.
func (w *window) exhausted(present, revision string, now int64) *entry {
	if w.has(present, now) && w.spent != nil && w.spent.Payload.known.revision == revision {
		return w.spent
	}
	return nil
}

// successor finds what may be in force in place of e, the present value of t, which was refused: an entry, or the flight that
// will tell. It is e itself when there is nothing else. Called with r.mu held; p is to be dispatched after.
func (r *Resolver) successor(ctx context.Context, p *provider, t *target, e *entry, waited bool, now int64) (*entry, *flight, error) {
	rec := &e.Payload
	if rec.window == nil {
		rec.window = &window{}
	}
	w := rec.window
	w.refuse(rec.known.revision, now)
	f := r.flights[t.key]
	if f != nil && f.renew == nil && !waited {
		_, f, err := r.find(ctx, p, t, true, nil)
		return e, f, err
	}
	if c := r.untried(p, t, w); c != nil {
		if out := r.inPlaceOf(p, e, c, now); out != nil {
			return out, nil, nil
		}
	}
	if w.looked == 0 || now-w.looked >= int64(reportEvery) {
		w.looked = now
		_, f, err := r.find(ctx, p, t, true, nil)
		if f != nil {
			f.hurry()
			if f.out == 0 { // else it was there before: its call tells what there is now, too
				f.window, f.refused = w, rec.cred
			}
		}
		return e, f, err
	}
	// None is left. Who asks, and did not report, gets what the store calls current.
	if w.current != nil && w.current != rec.cred {
		if r.inPlaceOf(p, e, w.current, now) != nil {
			w.spent = e
		}
	}
	return e, nil, nil
}

// untried takes from w what may be in force and was not refused yet; nil: none is left. Called with r.mu held.
func (r *Resolver) untried(p *provider, t *target, w *window) *backend.Credential {
	for len(w.others) > 0 {
		c := w.others[0]
		w.others = w.others[1:]
		if c != nil && !slices.Contains(w.refused, r.revisionOf(p, t, c)) && (c.Expires.IsZero() || c.Expires.After(time.Now())) {
			return c
		}
	}
	return nil
}

// inPlaceOf serves c in place of e; nil: its life is over. Called with r.mu held.
func (r *Resolver) inPlaceOf(p *provider, e *entry, c *backend.Credential, now int64) *entry {
	old := &e.Payload
	f := &flight{p: p, target: old.target, began: old.window.began}
	rec, err := r.newRecord(f, c, nil, now)
	if err != nil {
		return nil
	}
	return r.succeed(p, f, e, rec, now)
}

// choose gives what is to be served when f brought rec: rec, unless that was refused and something else was not. Called with r.mu
// held.
func (r *Resolver) choose(f *flight, old *entry, rec record, now int64) record {
	w := f.window
	if w == nil && old != nil {
		w = old.Payload.window
	}
	switch {
	case w == nil:
		return rec
	case now >= w.ends, !w.has(rec.known.revision, now):
		w.current, w.others, w.spent = nil, nil, nil
		return rec
	}
	w.current, w.began = rec.cred, f.began
	if f.window != nil {
		w.others = f.others
	}
	c := r.untried(f.p, f.target, w)
	if c == nil && old != nil && old.Payload.cred != nil && !w.has(old.Payload.known.revision, now) {
		c = old.Payload.cred // it is in force, as far as we know
	}
	if c != nil {
		if other, err := r.newRecord(f, c, nil, now); err == nil {
			return other
		}
	}
	return rec
}

// revisionOf is that of c, which is kept under t.
func (r *Resolver) revisionOf(p *provider, t *target, c *backend.Credential) string {
	typ := c.Type
	if typ == "" {
		typ = p.typeOf(t.key.id)
	}
	return r.revise.revision(typ, c)
}

// replace gets f's credential in place of one that was refused: the store is told of that, if it wants to know, and where it still
// gives that one, it is asked for the versions beside it.
func (p *provider) replace(ctx context.Context, f *flight) (*backend.Credential, error) {
	req := f.target.request()
	if b, ok := p.Backend.(backend.Rejecter); ok {
		if err := b.Reject(ctx, req, f.refused); err != nil && backend.CodeOf(err) != backend.CodeUnsupported {
			return nil, err
		}
	}
	c, err := p.Backend.Get(ctx, req)
	b, ok := p.Backend.(backend.RotationReader)
	if err != nil || c == nil || !ok {
		return c, err
	}
	p.r.mu.Lock()
	refused := slices.Contains(f.window.refused, p.r.revisionOf(p, f.target, c))
	p.r.mu.Unlock()
	if refused {
		// One that cannot be read is as good as none.
		others, _ := b.GetRotation(ctx, req, c)
		p.r.mu.Lock()
		f.others = others
		p.r.mu.Unlock()
	}
	return c, nil
}
