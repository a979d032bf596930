package grants_test

import (
	"testing"

	"github.com/credresolve/credresolve/adapters/keychain"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/secretservicetest"
	"github.com/credresolve/credresolve/resolver/grants"
)

// In the Secret Service of a desktop, which gets locked and goes away.
func TestKeychain(t *testing.T) {
	t.Parallel()
	service := secretservicetest.Start(t)
	i, state := &issuer{}, t.TempDir()+"/state"
	s := grants.NewStore(grants.Config{StateDir: state, Open: func() (backend.Backend, error) {
		return keychain.New(keychain.Config{}, backend.Host{StateDir: state, LookupEnv: service.LookupEnv})
	}})
	b := s.Keep("desk", i)
	defer b.Close()
	enter(t, b, i, me)
	want(t, b, "access-c4nary-1")
	service.Lock(t)
	prompts := service.Prompts(t)
	for _, req := range []backend.Request{me, {ID: "other"}} {
		_, err := b.Get(t.Context(), req)
		fails(t, err, backend.ErrLocked)
	}
	_, err := b.StartLogin(t.Context(), me, backend.LoginOptions{})
	fails(t, err, backend.ErrLocked)
	fails(t, b.Refresh(t.Context(), me), backend.ErrLocked)
	if n := service.Prompts(t) - prompts; n != 0 || i.count() != 0 {
		t.Errorf("%d prompts, %d exchanges", n, i.count())
	}
	if logins, err := s.Logins(); err != nil || len(logins) != 1 || logins[0].Status != grants.StatusActive {
		t.Errorf("%+v %v", logins, err)
	}
	service.Unlock(t)
	want(t, b, "access-c4nary-1")
	resume := service.Stop(t)
	if _, err := b.Get(t.Context(), me); err == nil || backend.CodeOf(err) == backend.CodeAuthRequired || backend.CodeOf(err) == backend.CodeNotFound {
		t.Errorf("without the service: %v", err)
	}
	resume()
	if err := b.Refresh(t.Context(), me); err != nil {
		t.Fatal(err)
	}
	want(t, b, "access-c4nary-2")
	holds(t, state, "c4nary")
}
