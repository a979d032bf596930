package resolver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
)

// An inspection tells where a credential is in its life, and costs no call.
func TestInspectTellsAgesWithoutACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls int
		var failure error
		store := &flaky{get: func(context.Context, backend.Request) (*backend.Credential, error) {
			if calls++; failure != nil {
				return nil, failure
			}
			c := plain("c4nary-1")
			c.Metadata = map[string]string{"arn": "a"}
			return c, nil
		}}
		r := open(t, Provider{Backend: store, TTL: time.Minute, MaxStale: time.Hour, Retries: -1})
		place := func() Place {
			t.Helper()
			before := calls
			out, err := r.Inspect(t.Context(), ref("k"))
			if err != nil || len(out.Places) != 1 || out.Provider.Name != ref("k").Provider || calls != before {
				t.Fatalf("%+v %v; %d calls", out, err, calls-before)
			}
			if s := fmt.Sprintf("%+v", out); strings.Contains(s, "c4nary") {
				t.Fatal(s)
			}
			return out.Places[0]
		}
		if p := place(); p.State != StateConfigured || p.Known() || p.ID != "k" {
			t.Errorf("before: %+v", p)
		}
		if _, err := r.Resolve(t.Context(), ref("k")); err != nil {
			t.Fatal(err)
		}
		p, now := place(), time.Now()
		if p.State != StateActive || !p.Known() || !p.Fetched.Equal(now.Round(0)) || p.Metadata["arn"] != "a" {
			t.Errorf("after: %+v", p)
		}
		if in := p.NextRefresh.Sub(now); in < 36*time.Second || in > 40*time.Second {
			t.Errorf("the next refresh is in %v", in)
		}
		if fresh, served := p.FreshUntil.Sub(now), p.ServedUntil.Sub(now); fresh != time.Minute || served != time.Minute+time.Hour {
			t.Errorf("fresh for %v, served for %v", fresh, served)
		}
		p.Metadata["arn"] = "changed"
		if p := place(); p.Metadata["arn"] != "a" {
			t.Error("the metadata is shared")
		}
		failure = backend.Errorf(backend.CodeUnavailable, "down")
		time.Sleep(2 * time.Minute)
		if _, err := r.Resolve(t.Context(), ref("k")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if p := place(); p.State != StateStale || p.Failures == 0 || p.Code != backend.CodeUnavailable || p.Reason != "down" {
			t.Errorf("stale: %+v", p)
		}
		failure = backend.Errorf(backend.CodeNotFound, "none")
		r.Forget(ref("k"))
		_, _ = r.Resolve(t.Context(), ref("k"))
		if p := place(); !p.Missing || p.Known() || p.State != StateConfigured {
			t.Errorf("missing: %+v", p)
		}
	})
}

func TestInspectNamesThePlacesOfASubject(t *testing.T) {
	t.Parallel()
	store := &flaky{get: func(context.Context, backend.Request) (*backend.Credential, error) { return plain("x"), nil }}
	r := open(t, Provider{Backend: store, Scope: []Scope{ScopeTenant, ScopeEndUser}})
	ctx := credref.WithSubject(t.Context(), credref.Subject{Tenant: "t", EndUser: "u"})
	out, err := r.Inspect(ctx, ref("k"))
	if err != nil || len(out.Places) != 3 || out.Places[0].Subject.EndUser != "u" || out.Places[2].Subject != (credref.Subject{}) {
		t.Errorf("%+v %v", out, err)
	}
	var failed *RefError
	if _, err := r.Inspect(ctx, credref.Ref{Provider: "none", ID: "k"}); !errors.As(err, &failed) || !errors.Is(err, backend.ErrInvalidConfig) {
		t.Errorf("an unknown provider gives %v", err)
	}
}
