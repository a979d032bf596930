package server

import (
	"strings"
	"testing"

	"github.com/credresolve/credresolve/backend"
)

// What is told of a ref is for who may resolve it, holds no value, and costs no fetch.
func TestExplain(t *testing.T) {
	t.Parallel()
	sc := start(t, "")
	ask := func(ref string) reply {
		t.Helper()
		got := sc.do("POST", "/v1/explain", `{"ref":`+ref+`}`)
		if strings.Contains(got.body, "c4nary") {
			t.Errorf("a secret is told: %s", got.body)
		}
		return got
	}
	plain := `{"provider":"m","id":"plain"}`
	if got := ask(plain); got.status != 200 || !strings.Contains(got.body, `"state":"configured"`) || strings.Contains(got.body, "fetched_at") {
		t.Errorf("before: %d %s", got.status, got.body)
	}
	sc.do("POST", "/v1/resolve", `{"refs":[`+plain+`]}`)
	got := ask(plain)
	for _, want := range []string{`"state":"active"`, `"revision":"`, `"fetched_at":"`, `"next_refresh":"`, `"breaker":"closed"`, `"id":"plain"`} {
		if !strings.Contains(got.body, want) {
			t.Errorf("after, %s is missing: %s", want, got.body)
		}
	}
	if got := ask(`{"provider":"x","id":"plain"}`); got.status != 400 {
		t.Errorf("an unknown provider: %d %s", got.status, got.body)
	}
	c := sc.client(sc.session(`{"consumer":"x","allow":["cred://m/db"]}`).Token)
	if _, err := c.Explain(t.Context(), refOf("cred://m/plain")); backend.CodeOf(err) != backend.CodeDenied {
		t.Errorf("who may not resolve it is told: %v", err)
	}
	if out, err := c.Explain(t.Context(), refOf("cred://m/db#port")); err != nil || len(out.Places) != 1 || out.Provider.Kind != "memory" {
		t.Errorf("who may is not: %+v %v", out, err)
	}
	if !strings.Contains(sc.auditLog(), `"event":"denial"`) {
		t.Error("the denial is not in the audit log")
	}
}
