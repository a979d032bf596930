package sidecar_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/credresolve/credresolve/adapters/sidecar"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
)

// issuing is a store that makes a credential for each Get, and can end one.
type issuing struct {
	made, ended atomic.Int32
}

func (s *issuing) Get(context.Context, backend.Request) (*backend.Credential, error) {
	return &backend.Credential{Secret: backend.NewSecretString(fmt.Sprintf("%d-c4nary", s.made.Add(1)))}, nil
}

func (s *issuing) Revoke(context.Context, backend.Request, *backend.Credential) error {
	s.ended.Add(1)
	return nil
}

// A revocation ends the credential for everybody who asks the sidecar, if its caller may do that.
func TestRevoke(t *testing.T) {
	t.Parallel()
	store := &issuing{}
	socket, c := start(t, store)
	one, err := c.StartSession(t.Context(), client.SessionRequest{Consumer: "tests", Allow: []string{"cred://m/x"}})
	if err != nil {
		t.Fatal(err)
	}
	open := func(config sidecar.Config) *sidecar.Backend {
		b, err := sidecar.New(config, backend.Host{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close() })
		return b
	}
	owner, guest := open(sidecar.Config{Socket: socket}), open(sidecar.Config{Socket: socket, Token: backend.Literal(backend.NewSecretString(one.Token))})
	req := backend.Request{ID: "m/x"}
	get := func(b *sidecar.Backend, want string) *backend.Credential {
		t.Helper()
		cred, err := b.Get(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if string(cred.Secret.Reveal()) != want {
			t.Error("it is another credential")
		}
		return cred
	}
	cred := get(owner, "1-c4nary")
	get(guest, "1-c4nary")
	if err := backend.Revoke(t.Context(), guest, req, cred); !errors.Is(err, backend.ErrDenied) || store.ended.Load() != 0 {
		t.Errorf("who has no permission: %v", err)
	}
	for range 2 { // of what has ended already it is no error
		if err := backend.Revoke(t.Context(), owner, req, cred); err != nil || store.ended.Load() != 1 {
			t.Errorf("%v, %d ended", err, store.ended.Load())
		}
	}
	get(guest, "2-c4nary")
	if err := backend.Revoke(t.Context(), owner, backend.Request{ID: "x"}, cred); !errors.Is(err, backend.ErrInvalidID) {
		t.Errorf("an id without provider: %v", err)
	}
	if err := backend.Revoke(t.Context(), open(sidecar.Config{Socket: filepath.Join(t.TempDir(), "sock")}), req, cred); !errors.Is(err, backend.ErrUnavailable) {
		t.Errorf("without a sidecar: %v", err)
	}
}

// A sidecar that is away is one error, not one for each secret.
func TestBatchWithoutASidecar(t *testing.T) {
	t.Parallel()
	b, err := sidecar.New(sidecar.Config{Socket: filepath.Join(t.TempDir(), "sock")}, backend.Host{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	results, err := b.GetBatch(t.Context(), []backend.Request{{ID: "m/x"}, {ID: "m/y"}})
	if results != nil || !errors.Is(err, backend.ErrUnavailable) {
		t.Errorf("%d results, %v", len(results), err)
	}
	results, err = b.GetBatch(t.Context(), []backend.Request{{ID: "m/x"}, {ID: "y"}})
	if err != nil || !errors.Is(results[0].Err, backend.ErrUnavailable) || !errors.Is(results[1].Err, backend.ErrInvalidID) {
		t.Errorf("%v, %v", results, err)
	}
}
