package grants_test

import (
	"errors"
	"testing"

	"github.com/credresolve/credresolve/adapters/static"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
	"github.com/credresolve/credresolve/resolver/grants"
)

// enterValue logs somebody in with a value.
func enterValue(t *testing.T, b *grants.Backend, req backend.Request, value string) {
	t.Helper()
	s, err := b.StartLogin(t.Context(), req, backend.LoginOptions{})
	if err == nil {
		s, err = b.SubmitLogin(t.Context(), s.State, map[string]backend.Secret{"value": backend.NewSecretString(value)})
	}
	if err != nil || s.Status != backend.LoginSuccess {
		t.Fatalf("%+v, %v", s, err)
	}
}

// A login is looked for as a secret is: that of the session, of its end user, of the tenant, of everybody. Where there is none the
// narrowest is asked to log in, and no other login begins.
func TestLoginOfTheNarrowestSubject(t *testing.T) {
	t.Parallel()
	form, err := static.New(static.Config{}, backend.Host{Provider: "tool"})
	if err != nil {
		t.Fatal(err)
	}
	var r *resolver.Resolver
	b := open(t, vessel(t), form, grants.Config{OnDemand: true, Changed: func(provider string, req backend.Request) {
		r.Invalidate(provider, req.ID)
	}})
	r, err = resolver.New(resolver.Config{Providers: map[string]resolver.Provider{
		"desk": {Backend: b, Scope: []resolver.Scope{resolver.ScopeSession, resolver.ScopeEndUser, resolver.ScopeTenant}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ref := credref.Ref{Provider: "desk", ID: "me"}
	alice := credref.Subject{Tenant: "acme", EndUser: "alice", Session: "s1"}
	bob := credref.Subject{Tenant: "acme", EndUser: "bob"}
	resolve := func(s credref.Subject, want string) {
		t.Helper()
		for _, all := range []bool{false, true} {
			v, err := r.For(s).Resolve(t.Context(), ref)
			if all {
				out := r.For(s).ResolveAll(t.Context(), []credref.Ref{ref})[0]
				v, err = out.Value, out.Err
			}
			if err != nil || string(v.Secret().Reveal()) != want {
				t.Errorf("%+v: %v, want %s", s, err, want)
			}
		}
	}
	nobody := func(s credref.Subject) backend.LoginState {
		t.Helper()
		_, err := r.For(s).Resolve(t.Context(), ref)
		fails(t, err, backend.ErrAuthRequired, "nobody has logged in")
		var e *backend.Error
		if !errors.As(err, &e) || e.Login == nil || e.Login.Status != backend.LoginPending {
			t.Fatalf("%v tells of no login", err)
		}
		return *e.Login
	}
	first := nobody(alice)
	if again := r.For(alice).ResolveAll(t.Context(), []credref.Ref{ref})[0].Err; again == nil {
		t.Error("resolved without a login")
	}
	if second := nobody(alice); second.State != first.State {
		t.Error("each asking begins a login")
	}
	if third := nobody(bob); third.State == first.State {
		t.Error("bob is sent to alice's login")
	}
	if s, err := b.SubmitLogin(t.Context(), first.State, map[string]backend.Secret{"value": backend.NewSecretString("of-s1")}); err != nil || s.Status != backend.LoginSuccess {
		t.Fatalf("%+v, %v", s, err)
	}
	resolve(alice, "of-s1")
	nobody(bob)
	enterValue(t, b, backend.Request{ID: "me", Subject: backend.Subject{Tenant: "acme"}}, "of-acme")
	resolve(bob, "of-acme")
	resolve(alice, "of-s1")
	enterValue(t, b, backend.Request{ID: "me", Subject: backend.Subject{Tenant: "acme", EndUser: "alice"}}, "of-alice")
	resolve(credref.Subject{Tenant: "acme", EndUser: "alice", Session: "s2"}, "of-alice")
	resolve(bob, "of-acme")
	nobody(credref.Subject{Tenant: "other"})
	if _, err := b.Logout(t.Context(), backend.Request{ID: "me", Subject: backend.Subject{Tenant: "acme"}}); err != nil {
		t.Fatal(err)
	}
	nobody(bob)
	resolve(alice, "of-s1")
}
