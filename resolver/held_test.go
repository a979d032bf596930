package resolver_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
)

// refusing is a store that nobody answers for.
type refusing struct{}

func (refusing) Get(context.Context, backend.Request) (*backend.Credential, error) {
	return nil, backend.Errorf(backend.CodeUnavailable, "vault.example:8200: connection refused")
}

// Who is told that the store is left alone is told why, in this process and in the next one.
func TestTheReasonOutlivesTheCallsThatAreNotMade(t *testing.T) {
	path := filepath.Join(t.TempDir(), "failures.json")
	synctest.Test(t, func(t *testing.T) {
		for process := range 2 {
			memory, err := resolver.OpenFailureMemory(path)
			if err != nil {
				t.Fatal(err)
			}
			r, err := resolver.New(resolver.Config{Failures: memory, Providers: map[string]resolver.Provider{
				"app": {Backend: refusing{}, Digest: "d", Retries: -1, Breaker: resolver.Breaker{Failures: 2}},
			}})
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				_, err = r.Resolve(t.Context(), credref.Ref{Provider: "app", ID: "x"})
			}
			if process == 0 { // the third call is not made
				_, err = r.Resolve(t.Context(), credref.Ref{Provider: "app", ID: "x"})
			}
			if err == nil || !strings.Contains(err.Error(), "2 times in a row, at last: vault.example:8200: connection refused; the next try is in") {
				t.Errorf("process %d: %v", process, err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// asking is a store that fails once and asks to be left alone.
type asking struct{}

func (asking) Get(context.Context, backend.Request) (*backend.Credential, error) {
	e := backend.Errorf(backend.CodeUnavailable, "vault.example:8200: the server is sealed")
	e.RetryAfter = 20 * time.Second
	return nil, e
}

// One failure is not told as a row of them.
func TestOneFailureIsNoRow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, err := resolver.New(resolver.Config{Providers: map[string]resolver.Provider{"app": {Backend: asking{}, Retries: -1}}})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = r.Close() }()
		for _, want := range []string{"app/x: vault.example:8200: the server is sealed", "the store failed: vault.example:8200: the server is sealed; the next try is in 20s"} {
			_, err = r.Resolve(t.Context(), credref.Ref{Provider: "app", ID: "x"})
			if err == nil || !strings.HasSuffix(err.Error(), want) {
				t.Errorf("%v does not end with %q", err, want)
			}
		}
	})
}
