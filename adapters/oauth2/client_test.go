package oauth2_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/oidctest"
)

// That the client cannot prove who it is says nothing about a person's login, which stays as it is.
func TestRefreshWithoutTheClientsSecret(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	have := logIn(t, open(t, desk(p)))
	c := desk(p)
	c.ClientID = oidctest.Web
	for name, tt := range map[string]struct {
		source backend.Source
		code   backend.Code
	}{
		"wrong": {secret("wr0ng"), backend.CodeDenied},
		"of a provider that wants a login": {backend.NewSource(func(context.Context) (backend.Secret, string, error) {
			return backend.Secret{}, "", backend.Errorf(backend.CodeAuthRequired, "log in to the store")
		}, nil), backend.CodeUnavailable},
	} {
		c.ClientSecret = tt.source
		_, err := open(t, c).Refresh(t.Context(), me, have)
		if backend.CodeOf(err) != tt.code || errors.Is(err, backend.ErrAuthRequired) {
			t.Errorf("%s: %v (%s), want %s", name, err, backend.CodeOf(err), tt.code)
		}
	}
	if _, err := open(t, desk(p)).Refresh(t.Context(), me, have); err != nil {
		t.Errorf("the refresh token was spent: %v", err)
	}
}

// A login that failed tells of which kind the error was.
func TestCodeOfALoginThatFailed(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{Before: func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/oauth/token" {
			return false
		}
		say(http.StatusServiceUnavailable, "c4nary")(w, r)
		return true
	}})
	b := open(t, desk(p))
	s := start(t, b, backend.LoginOptions{})
	oidctest.Browse(t, s.URL, "")
	if s := outcome(t, b, s.State); s.Status != backend.LoginError || s.Code != backend.CodeUnavailable {
		t.Errorf("%+v", s)
	}
	s = start(t, b, backend.LoginOptions{NoRedirect: true})
	s, err := b.SubmitLogin(t.Context(), s.State, pasted("error=access_denied&state="+s.State))
	if err != nil || s.Status != backend.LoginError || s.Code != backend.CodeDenied {
		t.Errorf("%+v, %v", s, err)
	}
}
