package oauth2_test

import (
	"context"
	"errors"
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
