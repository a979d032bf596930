package grants_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/credresolve/credresolve/adapters/memory"
	"github.com/credresolve/credresolve/adapters/oauth2"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/oidctest"
	"github.com/credresolve/credresolve/resolver/grants"
)

var me = backend.Request{ID: "me"}

// desk is the provider to which a person logs in.
func desk(t testing.TB, p *oidctest.Provider) backend.Backend {
	t.Helper()
	b, err := oauth2.New(oauth2.Config{Issuer: p.Issuer, ClientID: oidctest.Public, Scopes: []string{"openid", "offline_access", "profile"}}, backend.Host{})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// vessel is a token store in memory, which outlives what opens it.
func vessel(t testing.TB) *memory.Backend {
	t.Helper()
	b, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// open gives a backend that keeps the logins at inner in w.
func open(t testing.TB, w backend.Backend, inner backend.Backend, c grants.Config) *grants.Backend {
	t.Helper()
	c.Open = func() (backend.Backend, error) { return lasting{w.(backend.Writer)}, nil }
	if c.StateDir == "" {
		c.StateDir = t.TempDir() + "/state"
	}
	b := grants.NewStore(c).Keep("desk", inner)
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// lasting is a Writer that is not closed with a Store.
type lasting struct{ backend.Writer }

// logIn logs the person in, as a browser does.
func logIn(t testing.TB, b *grants.Backend, req backend.Request) {
	t.Helper()
	s, err := b.StartLogin(t.Context(), req, backend.LoginOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if status, text := oidctest.Browse(t, s.URL, ""); status != http.StatusOK {
		t.Fatalf("the page: %d %s", status, text)
	}
	if s = outcome(t, b, s.State); s.Status != backend.LoginSuccess || s.Grant != nil {
		t.Fatalf("%+v", s)
	}
}

func outcome(t testing.TB, b *grants.Backend, state string) backend.LoginState {
	t.Helper()
	for range 600 {
		s, err := b.PollLogin(t.Context(), state)
		if err != nil {
			t.Fatal(err)
		}
		if s.Status != backend.LoginPending {
			return s
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("the login did not end")
	return backend.LoginState{}
}

func token(t testing.TB, b *grants.Backend, req backend.Request) string {
	t.Helper()
	c, err := b.Get(context.Background(), req)
	if err != nil {
		t.Fatal(err)
	}
	return string(c.Secret.Reveal())
}

func fails(t testing.TB, err, want error, words ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%v, want %v", err, want)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}

func TestLoginIsKept(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	w, dir := vessel(t), t.TempDir()+"/state"
	b := open(t, w, desk(t, p), grants.Config{StateDir: dir})
	_, err := b.Get(t.Context(), me)
	fails(t, err, backend.ErrAuthRequired, "nobody has logged in as desk/me", "run: credresolve login desk me")
	logIn(t, b, me)
	first := token(t, b, me)
	if first == "" {
		t.Fatal("no token")
	}
	again := open(t, w, desk(t, p), grants.Config{StateDir: dir})
	if got := token(t, again, me); got != first {
		t.Error("another process gets another token")
	}
	asked := p.Calls("/oauth/token")
	if err := again.Refresh(t.Context(), me); err != nil {
		t.Fatal(err)
	}
	if n := p.Calls("/oauth/token") - asked; n != 1 {
		t.Errorf("%d exchanges", n)
	}
	second := token(t, b, me)
	if second == first {
		t.Error("the token is the same after a refresh")
	}
	logins, err := grants.NewStore(grants.Config{StateDir: dir}).Logins()
	if err != nil || len(logins) != 1 {
		t.Fatal(logins, err)
	}
	e := logins[0]
	if e.Provider != "desk" || e.ID != "me" || e.Status != grants.StatusActive || !e.Refreshable || e.Account["subject"] != oidctest.Person ||
		e.Expires.IsZero() || e.RefreshAfter.IsZero() || e.LoggedIn.IsZero() || e.Refreshed.Before(e.LoggedIn) {
		t.Errorf("%+v", e)
	}
	if s, err := b.Status(t.Context(), me); err != nil || s.Status != grants.StatusActive || !s.Refreshable {
		t.Errorf("%+v %v", s, err)
	}
	if _, err := b.Logout(t.Context(), me); err != nil {
		t.Error(err)
	}
	_, err = again.Get(t.Context(), me)
	fails(t, err, backend.ErrAuthRequired)
	if logins, err := grants.NewStore(grants.Config{StateDir: dir}).Logins(); err != nil || len(logins) != 0 {
		t.Error(logins, err)
	}
}

// At a server of its own, a revocation ends the access token and what would be refreshed from it.
func TestRevokeAtTheServer(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	b := open(t, vessel(t), desk(t, p), grants.Config{})
	logIn(t, b, me)
	c, err := b.Get(t.Context(), me)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.ProbeCredential(t.Context(), me, c); err != nil {
		t.Fatalf("before: %v", err)
	}
	asked, exchanged := p.Calls("/revoke"), p.Calls("/oauth/token")
	if err := b.Revoke(t.Context(), me, c); err != nil {
		t.Fatal(err)
	}
	if n := p.Calls("/revoke") - asked; n != 1 {
		t.Errorf("%d revocations", n)
	}
	if err := b.ProbeCredential(t.Context(), me, c); err == nil || backend.CodeOf(err).Retryable() {
		t.Errorf("the access token is good still: %v", err)
	}
	_, err = b.Get(t.Context(), me)
	fails(t, err, backend.ErrAuthRequired, "nobody has logged in")
	if p.Calls("/oauth/token") != exchanged {
		t.Error("it was refreshed")
	}
}
