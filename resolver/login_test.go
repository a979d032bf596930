package resolver

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// persons is a provider where people log in: whose id begins with "out" has not.
type persons struct {
	describes bool // that people log in
	begins    bool // a login for who has none
}

func (p persons) Describe() backend.Description { return backend.Description{Login: p.describes} }

func (p persons) Get(_ context.Context, req backend.Request) (*backend.Credential, error) {
	if strings.HasPrefix(req.ID, "out") {
		e := backend.Errorf(backend.CodeAuthRequired, "nobody has logged in")
		if p.begins {
			e.Login = &backend.LoginState{State: "s"}
		}
		return nil, e
	}
	return &backend.Credential{Secret: backend.NewSecretString("v")}, nil
}

// One person without a login keeps nobody else from theirs: it is no failure of the provider, as a refused login of its own is.
func TestAMissingLoginHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		backend persons
		held    bool
	}{
		"people log in":                 {persons{describes: true}, false},
		"behind another process":        {persons{begins: true}, false},
		"the provider's own is refused": {persons{}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := New(Config{RevisionKey: make([]byte, 32), Providers: map[string]Provider{"p": {Backend: c.backend}}})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			for range 10 {
				if _, err := r.Resolve(t.Context(), credref.Ref{Provider: "p", ID: "out"}); !errors.Is(err, backend.ErrAuthRequired) {
					t.Fatal(err)
				}
			}
			_, err = r.Resolve(t.Context(), credref.Ref{Provider: "p", ID: "in"})
			if held := err != nil; held != c.held {
				t.Errorf("another's credential: %v", err)
			}
		})
	}
}
