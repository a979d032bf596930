package resolver

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// TestIsolation lets many subjects do at random what a Resolver can, at a store that tags each value with the subject it was asked
// for, and finds that none sees, ends, remembers or hears of what is another's.
func TestIsolation(t *testing.T) { rapid.Check(t, playIsolation) }

// FuzzIsolation is TestIsolation with histories that a fuzzer chooses.
func FuzzIsolation(f *testing.F) {
	f.Add([]byte("\x01\x02\x03\x04\x05\x06\x07\x08"))
	f.Fuzz(rapid.MakeFuzz(playIsolation))
}

// tagging is a store that gives each subject values of its own, with a tag that says whose they are, and of which id.
type tagging struct {
	revise *reviser

	mu      sync.Mutex
	missing map[string]bool // by tag
	n       int
	owners  map[string]string // revisions to tags
	down    bool
	revoked []string // by a subject whose it is not
}

// actor is the key of a context's value: the subject for which somebody acts.
type actor struct{}

// tag says whose the value of id is.
func tag(s credref.Subject, id string) string { return fmt.Sprintf("c4nary %q %s", s, id) }

func (s *tagging) Get(_ context.Context, req backend.Request) (*backend.Credential, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	whose := tag(credref.Subject(req.Subject), req.ID[strings.LastIndex(req.ID, "/")+1:])
	switch {
	case s.down:
		return nil, backend.Errorf(backend.CodeUnavailable, "as told")
	case s.missing[whose]:
		return nil, backend.Errorf(backend.CodeNotFound, "no such secret")
	}
	s.n++
	c := plain(fmt.Sprint(whose, " ", s.n))
	if strings.HasSuffix(req.ID, "lease") {
		c.Lease = &backend.Lease{ID: fmt.Sprint(s.n), Duration: time.Hour}
	}
	s.owners[s.revise.revision(backend.TypeUserValue, c)] = whose
	return c, nil
}

func (s *tagging) Revoke(ctx context.Context, req backend.Request, _ *backend.Credential) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	// What is ended in the background, since it was forgotten while it was being fetched, has no actor.
	if by, is := ctx.Value(actor{}).([]credref.Subject); is && !slices.Contains(by, credref.Subject(req.Subject)) {
		s.revoked = append(s.revoked, fmt.Sprintf("%q revoked %q", by, req.Subject))
	}
	return nil
}

func playIsolation(t *rapid.T) {
	scope := []Scope{ScopeSession, ScopeEndUser, ScopeTenant, ScopePlugin}
	subjects := []credref.Subject{
		{}, {Tenant: "t"}, {Tenant: "u"}, {Tenant: "t", EndUser: "e"}, {Tenant: "t", EndUser: "f"}, {Tenant: "u", EndUser: "e"},
		{Tenant: "t", EndUser: "e", Session: "1"}, {Tenant: "t", EndUser: "e", Session: "2"}, {Session: "1"}, {EndUser: "e"},
		{Tenant: "t", Plugin: "p"}, {Tenant: "t", Plugin: "q"}, {Plugin: "p"}, {Tenant: "t/u"}, {Tenant: "t", EndUser: "e", Session: "1", Plugin: "p"},
	}
	refs := []credref.Ref{{Provider: "p", ID: "plain"}, {Provider: "p", ID: "lease"}, {Provider: "q", ID: "plain"}}
	revisionKey := []byte(strings.Repeat("k", 32))
	store := &tagging{revise: newReviser(revisionKey), missing: map[string]bool{}, owners: map[string]string{}}
	newOne := func(b backend.Backend) *Resolver {
		r, err := New(Config{RevisionKey: revisionKey, OnChange: func(Change) {}, Providers: map[string]Provider{
			"p": {Backend: b, Digest: "d", Scope: scope, TTL: time.Hour, NegativeTTL: -1, Retries: -1, Breaker: Breaker{Failures: -1}},
			"q": {
				Backend: b, Digest: "e", Scope: scope, TTL: time.Hour, NegativeTTL: -1, Retries: -1, Breaker: Breaker{Failures: -1},
				IDTemplate: "of/{tenant}/{id}",
			},
		}})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := newOne(store)
	defer r.Close()

	// own reports whether what has that tag may be given to s: it is that of one of the places in which s looks.
	own := func(s credref.Subject, ref credref.Ref, whose string) bool {
		return slices.ContainsFunc(levels(scope, s), func(at credref.Subject) bool { return tag(at, ref.ID) == whose })
	}
	var mu sync.Mutex
	var wrong string
	fail := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		if wrong == "" {
			wrong = fmt.Sprintf(format, args...)
		}
	}
	check := func(what string, s credref.Subject, ref credref.Ref, v *Value, err error) {
		if err != nil {
			return
		}
		text := string(v.Secret().Reveal())
		whose := text[:strings.LastIndex(text, " ")]
		if !own(s, ref, whose) {
			fail("%s: %q got of %v what is %s", what, s, ref, whose)
		}
		store.mu.Lock()
		defer store.mu.Unlock()
		if store.owners[v.Revision()] != whose {
			fail("%s: the revision of %s is that of %s", what, whose, store.owners[v.Revision()])
		}
	}
	// served are the keys of which something is known.
	served := func() map[key]bool {
		out := map[key]bool{}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.cache.RemoveIf(func(k key, e *entry) bool {
			out[k] = e.Payload.cred != nil
			return false
		})
		return out
	}
	// unharmed does what s asks for, and finds what is not s's as it was.
	unharmed := func(what string, s credref.Subject, do func()) {
		before := served()
		do()
		after := served()
		for k := range before {
			if !after[k] && !slices.Contains(levels(scope, s), k.whom()) {
				fail("%s: %q ended %s of %q", what, s, k.id, k.whom())
			}
		}
	}
	drawSubject := func(t *rapid.T) credref.Subject { return rapid.SampledFrom(subjects).Draw(t, "subject") }
	drawRef := func(t *rapid.T) credref.Ref { return rapid.SampledFrom(refs).Draw(t, "ref") }
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watch := func(s credref.Subject, refs ...credref.Ref) {
		events := r.For(s).Watch(ctx, refs...)
		watching.Go(func() {
			for ev := range events {
				store.mu.Lock()
				whose := store.owners[ev.Revision]
				store.mu.Unlock()
				if ev.Revision != "" && !own(s, ev.Ref, whose) {
					fail("%q heard of what is %s: %+v", s, whose, ev)
				}
			}
		})
	}
	handles := map[*Handle]credref.Subject{}
	defer func() {
		for h := range handles {
			h.Close()
		}
	}()

	t.Repeat(map[string]func(*rapid.T){
		"resolve": func(t *rapid.T) {
			s, ref := drawSubject(t), drawRef(t)
			unharmed("resolve", s, func() {
				v, err := r.For(s).Resolve(ctx, ref)
				check("resolve", s, ref, v, err)
			})
		},
		"resolve by context": func(t *rapid.T) {
			s, ref := drawSubject(t), drawRef(t)
			v, err := r.Resolve(credref.WithSubject(ctx, s), ref)
			check("resolve by context", s, ref, v, err)
		},
		"resolve exactly": func(t *rapid.T) {
			s, ref := drawSubject(t), refs[rapid.IntRange(0, 1).Draw(t, "ref")]
			out := r.For(s).ResolveWith(ctx, []credref.Ref{ref}, Demand{Exact: true})[0]
			check("resolve exactly", s, ref, out.Value, out.Err)
			store.mu.Lock()
			defer store.mu.Unlock()
			if whose := tag(levels(scope, s)[0], ref.ID); out.Err == nil && store.owners[out.Value.Revision()] != whose {
				fail("%q asked exactly and got what is %s", s, store.owners[out.Value.Revision()])
			}
		},
		"all at once": func(t *rapid.T) {
			ref := drawRef(t)
			var all sync.WaitGroup
			for _, s := range subjects {
				all.Go(func() {
					v, err := r.For(s).Resolve(ctx, ref)
					check("all at once", s, ref, v, err)
				})
			}
			all.Wait()
		},
		"report": func(t *rapid.T) {
			s, ref := drawSubject(t), drawRef(t)
			// The revision may be anybody's: whose it is not learns nothing by it.
			v, err := r.For(drawSubject(t)).Resolve(ctx, ref)
			if err != nil {
				return
			}
			revision := v.Revision()
			unharmed("report", s, func() {
				v, err := r.For(s).Report(ctx, ref, revision)
				check("report", s, ref, v, err)
			})
		},
		"revoke": func(t *rapid.T) {
			s, ref := drawSubject(t), drawRef(t)
			unharmed("revoke", s, func() {
				_ = r.For(s).Revoke(context.WithValue(ctx, actor{}, levels(scope, s)), ref)
			})
		},
		"forget": func(t *rapid.T) {
			s, ref := drawSubject(t), drawRef(t)
			unharmed("forget", s, func() { r.For(s).Forget(ref) })
		},
		"put or delete": func(t *rapid.T) {
			s, ref := drawSubject(t), drawRef(t)
			store.mu.Lock()
			whose := tag(rapid.SampledFrom(levels(scope, s)).Draw(t, "level"), ref.ID)
			store.missing[whose] = !store.missing[whose]
			store.mu.Unlock()
			r.Wrote(ref)
		},
		"end session": func(t *rapid.T) {
			session := rapid.SampledFrom([]string{"1", "2"}).Draw(t, "session")
			before := served()
			_ = r.EndSession(ctx, session)
			after := served()
			for k := range before {
				if of := k.whom().Session == session; !of && !after[k] {
					fail("the end of session %s ended %s of %q", session, k.id, k.whom())
				}
			}
			for k := range after {
				if k.whom().Session == session && !pinned(r, k) {
					fail("session %s left %s of %q behind", session, k.id, k.whom())
				}
			}
		},
		"watch": func(t *rapid.T) {
			if s := drawSubject(t); rapid.Bool().Draw(t, "everything") {
				watch(s)
			} else {
				watch(s, drawRef(t))
			}
		},
		"handle": func(t *rapid.T) {
			s, ref := drawSubject(t), drawRef(t)
			h := r.For(s).Handle(ref)
			handles[h] = s
			v, err := h.Get(ctx)
			check("handle", s, ref, v, err)
		},
		"handles": func(*rapid.T) {
			for h, s := range handles {
				v, err := h.Get(ctx)
				check("handles", s, h.Ref(), v, err)
			}
		},
		"inspect": func(t *rapid.T) {
			s, ref := drawSubject(t), drawRef(t)
			in, err := r.For(s).Inspect(ref)
			if err != nil {
				return
			}
			store.mu.Lock()
			defer store.mu.Unlock()
			for _, place := range in.Places {
				if place.Known() && store.owners[place.Revision] != tag(place.Subject, ref.ID) || !slices.Contains(levels(scope, s), place.Subject) {
					fail("%q is told of %+v", s, place)
				}
			}
		},
		"restart": func(*rapid.T) {
			kept := r.Snapshot()
			for _, one := range kept {
				text := string(one.Credential.Secret.Reveal())
				if whose := text[:strings.LastIndex(text, " ")]; whose != tag(one.Subject, one.Ref.ID) || one.Subject.Session != "" {
					fail("remembered under %q: %s", one.Subject, whose)
				}
			}
			next := newOne(&tagging{revise: store.revise, owners: map[string]string{}, missing: map[string]bool{}, down: true})
			defer next.Close()
			next.Restore(kept, time.Hour)
			for _, s := range subjects {
				for _, ref := range refs {
					v, err := next.For(s).Resolve(ctx, ref)
					check("restored", s, ref, v, err)
				}
			}
		},
		"": func(t *rapid.T) {
			mu.Lock()
			defer mu.Unlock()
			store.mu.Lock()
			defer store.mu.Unlock()
			if len(store.revoked) > 0 {
				t.Fatal(store.revoked)
			}
			if wrong != "" {
				t.Fatal(wrong)
			}
		},
	})
}

// pinned reports whether an open handle has k fetched again when it ends.
func pinned(r *Resolver, k key) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pins[k] != nil
}
