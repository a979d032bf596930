package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/credresolve/credresolve/adapters/static"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
)

// tagged is a store that gives each subject a value of its own, which tells whose it is.
type tagged struct {
	mu      sync.Mutex
	missing map[backend.Subject]bool
	owners  map[string]credref.Subject // versions to whose they are
	n       int
}

func (s *tagged) Get(_ context.Context, req backend.Request) (*backend.Credential, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.missing[req.Subject] {
		return nil, backend.Errorf(backend.CodeNotFound, "no such secret")
	}
	s.n++
	version := fmt.Sprint(s.n)
	s.owners[version] = credref.Subject(req.Subject)
	text := fmt.Sprintf("c4nary %s %q", version, req.Subject)
	return &backend.Credential{Type: backend.TypeUserValue, Secret: backend.NewSecretString(text), Version: version}, nil
}

func (s *tagged) Revoke(context.Context, backend.Request, *backend.Credential) error { return nil }

func (s *tagged) owner(version string) credref.Subject {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.owners[version]
}

// person is somebody with a token.
type person struct {
	*client.Client
	name    string
	subject credref.Subject
}

// mayHave reports whether what is place's may be given to c: c is a part of it.
func (c *person) mayHave(place credref.Subject) bool {
	part := func(place, own string) bool { return place == "" || place == own }
	return part(place.Session, c.subject.Session) && part(place.EndUser, c.subject.EndUser) && part(place.Tenant, c.subject.Tenant) && part(place.Plugin, c.subject.Plugin)
}

// places are where a credential of c's may be kept, the narrowest first.
func (c *person) places() []credref.Subject {
	s := c.subject
	all := []credref.Subject{{Tenant: s.Tenant, EndUser: s.EndUser, Session: s.Session}, {Tenant: s.Tenant, EndUser: s.EndUser}, {Tenant: s.Tenant}, {}}
	return slices.Compact(all)
}

// isolated runs a sidecar with callers of many subjects.
func isolated(t *testing.T) (*sidecar, *tagged, []*person) {
	t.Helper()
	store := &tagged{missing: map[backend.Subject]bool{}, owners: map[string]credref.Subject{}}
	sc := &sidecar{t: t, dir: t.TempDir(), logs: &buffer{}}
	sc.kinds = testKinds(static.Kind(), backend.NewKind("tagged", "of a test", func(nothing, backend.Host) (backend.Backend, error) { return store, nil }))
	sc.socket = filepath.Join(sc.dir, "run", "sock")
	subjects := map[string]credref.Subject{
		"all": {}, "t": {Tenant: "t"}, "u": {Tenant: "u"}, "te": {Tenant: "t", EndUser: "e"}, "tf": {Tenant: "t", EndUser: "f"},
		"ue": {Tenant: "u", EndUser: "e"}, "p": {Plugin: "p"}, "q": {Plugin: "q"}, "tp": {Tenant: "t", Plugin: "p"},
	}
	var tokens, consumers []string
	names := slices.Sorted(maps.Keys(subjects))
	for _, name := range names {
		path := filepath.Join(sc.dir, name+".token")
		if err := os.WriteFile(path, []byte(tokenOf(name)), 0o600); err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, fmt.Sprintf("%s: %q", name, path))
		s, secrets := subjects[name], ""
		if s.Plugin != "" {
			secrets = ", secrets: [read, write]"
		}
		consumers = append(consumers, fmt.Sprintf(`    - {name: %s, token: %s, subject: {tenant: %q, end_user: %q, plugin: %q}%s, allow: [{provider: "*", id: "**", login: true}]}`,
			name, name, s.Tenant, s.EndUser, s.Plugin, secrets))
	}
	sc.configure(`
  s: {kind: tagged, scope: [session, end_user, tenant]}
  form: {kind: static, fields: [{name: key}], scope: [session, end_user, tenant]}
  vessel: {kind: memory}
  kept: {kind: memory}
logins: {store: vessel}
`, "  plugins: {store: kept}\n  tokens: {"+strings.Join(tokens, ", ")+"}\n  consumers:\n"+strings.Join(consumers, "\n")+"\n")
	sc.open()
	callers := make([]*person, 0, len(names)+4)
	for _, name := range names {
		callers = append(callers, &person{sc.client(tokenOf(name)), name, subjects[name]})
	}
	for i, s := range []credref.Subject{{}, {Tenant: "t", EndUser: "e"}, {Tenant: "t", EndUser: "e"}, {Tenant: "u"}} {
		callers = append(callers, sc.newSession(fmt.Sprint("session", i), s))
	}
	return sc, store, callers
}

// newSession begins a session of a part of s.
func (sc *sidecar) newSession(name string, s credref.Subject) *person {
	one := sc.session(fmt.Sprintf(`{"consumer":%q,"allow":["cred://s/x","cred://s/y","cred://form/x","cred://form/y"],"login":true,"subject":{"tenant":%q,"end_user":%q}}`, name, s.Tenant, s.EndUser))
	s.Session = one.ID
	return &person{sc.client(one.Token), name, s}
}

// Many subjects ask, ask exactly, watch, report, revoke and invalidate at once, while what the store has comes and goes: nobody is
// given, or hears of, what is another's, and the audit log has each read under who read it.
func TestSubjectsAtOnce(t *testing.T) {
	t.Parallel()
	sc, store, callers := isolated(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	refs := []credref.Ref{refOf("cred://s/x"), refOf("cred://s/y")}
	var owners sync.Map // revisions to whose they are
	check := func(c *person, what string, v *resolver.Value) {
		text := string(v.Secret().Reveal())
		place := store.owner(v.Version())
		owners.Store(v.Revision(), place)
		if !c.mayHave(place) || !strings.HasPrefix(text, fmt.Sprintf("c4nary %s %q", v.Version(), backend.Subject(place))) {
			t.Errorf("%s: %s (%q) got what is of %q", what, c.name, c.subject, place)
		}
	}
	var all, watching sync.WaitGroup
	watched, endWatches := context.WithCancel(ctx)
	for i, c := range callers {
		watching.Go(func() {
			for ev := range c.Watch(watched, refs...) {
				if place := store.owner(ev.Version); ev.Version != "" && !c.mayHave(place) {
					t.Errorf("%s (%q) heard of what is of %q: %+v", c.name, c.subject, place, ev)
				}
			}
		})
		all.Go(func() {
			draw := rand.New(rand.NewPCG(7, uint64(i)))
			for range 60 {
				ref := refs[draw.IntN(len(refs))]
				switch draw.IntN(8) {
				case 0, 1, 2:
					if v, err := c.Resolve(ctx, ref); err == nil {
						check(c, "resolve", v)
					} else if !errors.Is(err, backend.ErrNotFound) {
						t.Errorf("%s: %v", c.name, err)
					}
				case 3:
					out := c.ResolveWith(ctx, refs, resolver.Demand{Exact: true})
					for _, o := range out {
						if o.Err != nil {
							continue
						}
						check(c, "exactly", o.Value)
						if place := store.owner(o.Value.Version()); place != c.places()[0] {
							t.Errorf("%s (%q) asked exactly, and got what is of %q", c.name, c.subject, place)
						}
					}
				case 4:
					// The revision is one of anybody's: whose it is not learns nothing by it.
					other := callers[draw.IntN(len(callers))]
					if known, err := other.Resolve(ctx, ref); err == nil {
						if v, err := c.Report(ctx, ref, known.Revision()); err == nil {
							check(c, "report", v)
						}
					}
				case 5:
					_ = c.Revoke(ctx, ref)
				case 6:
					_ = c.Forget(ctx, ref)
				case 7:
					store.mu.Lock()
					place := backend.Subject(c.places()[draw.IntN(len(c.places()))])
					store.missing[place] = !store.missing[place] && place != (backend.Subject{})
					store.mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	endWatches()
	watching.Wait()

	names := map[string]*person{}
	for _, c := range callers {
		names[c.name] = c
	}
	reads := 0
	for line := range strings.Lines(sc.auditLog()) {
		var rec struct{ Consumer, Session, Revision string }
		if err := json.Unmarshal([]byte(line), &rec); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		c := names[rec.Consumer]
		place, known := owners.Load(rec.Revision)
		if c == nil || !known {
			continue
		}
		reads++
		if place := place.(credref.Subject); !c.mayHave(place) || rec.Session != c.subject.Session {
			t.Errorf("the audit log has what is of %q under %s: %s", place, c.name, line)
		}
	}
	if reads == 0 {
		t.Error("the audit log has no read of all these")
	}
}

// Many subjects log in and out, begin and end sessions and keep secrets as plugins, one after the other: at each step everybody has
// just what is his own, or that of the broader place that he is a part of.
func TestSubjectsInTurn(t *testing.T) {
	t.Parallel()
	sc, _, callers := isolated(t)
	ctx := t.Context()
	type place struct {
		subject credref.Subject
		id      string
	}
	logins, secrets := map[place]string{}, map[[2]string]string{}
	draw := rand.New(rand.NewPCG(11, 13))
	owner := sc.client("")
	for step := range 250 {
		i := draw.IntN(len(callers))
		c, id := callers[i], []string{"x", "y"}[draw.IntN(2)]
		ref := refOf("cred://form/" + id)
		own := place{c.places()[0], id}
		entered := fmt.Sprintf("c4nary-%d", step)
		switch op := draw.IntN(10); {
		case op < 3:
			s, err := c.StartLogin(ctx, client.LoginRequest{Provider: "form", ID: id})
			if err != nil {
				t.Fatalf("%s begins a login: %v", c.name, err)
			}
			if other := callers[draw.IntN(len(callers))]; other.subject != c.subject {
				if got, err := other.PollLogin(ctx, s.State); !errors.Is(err, backend.ErrNotFound) {
					t.Errorf("%s asks for the login of %s: %+v, %v", other.name, c.name, got, err)
				}
			}
			if done, err := c.SubmitLogin(ctx, s.State, map[string]backend.Secret{"key": backend.NewSecretString(entered)}); err != nil || done.Status != backend.LoginSuccess {
				t.Fatalf("%s logs in: %+v, %v", c.name, done, err)
			}
			logins[own] = entered
		case op < 5:
			_, err := c.Logout(ctx, ref)
			if there := logins[own] != ""; there && err != nil || !there && !errors.Is(err, backend.ErrNotFound) {
				t.Errorf("%s logs out of what is there, %v: %v", c.name, there, err)
			}
			delete(logins, own)
		case op == 5 && c.subject.Session != "":
			if err := owner.EndSession(ctx, c.subject.Session); err != nil {
				t.Fatal(err)
			}
			maps.DeleteFunc(logins, func(p place, _ string) bool { return p.subject.Session == c.subject.Session })
			if _, err := c.Resolve(ctx, ref); err == nil {
				t.Errorf("%s goes on after its end", c.name)
			}
			callers[i] = sc.newSession(c.name, credref.Subject{Tenant: c.subject.Tenant, EndUser: c.subject.EndUser})
		case op == 6:
			_ = owner.Forget(ctx, ref)
		case op > 6 && c.subject.Plugin != "":
			key := [2]string{c.subject.Plugin, id}
			switch got, err := c.Plugin().Get(ctx, id); {
			case err == nil && string(got.Reveal()) != secrets[key], err != nil && (secrets[key] != "" || !errors.Is(err, backend.ErrNotFound)):
				t.Errorf("the plugin %q has of %s another value (%v)", c.subject, id, err)
			}
			var err error
			if op == 7 {
				err = c.Plugin().Delete(ctx, id)
				delete(secrets, key)
			} else {
				err = c.Plugin().Set(ctx, id, backend.NewSecretString(entered))
				secrets[key] = entered
			}
			if err != nil {
				t.Error(err)
			}
		}
		for _, c := range callers {
			for _, id := range []string{"x", "y"} {
				want := ""
				for _, s := range c.places() {
					if want = logins[place{s, id}]; want != "" {
						break
					}
				}
				v, err := c.Resolve(ctx, refOf("cred://form/"+id))
				if want == "" && !errors.Is(err, backend.ErrAuthRequired) || want != "" && (err != nil || string(v.Secret().Reveal()) != want) {
					t.Fatalf("step %d: %s (%q) has of %s another value than %q (%v)", step, c.name, c.subject, id, want, err)
				}
			}
		}
	}
}
