package server

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
)

func (sc *sidecar) session(body string) client.Session {
	sc.t.Helper()
	got := sc.do("POST", "/v1/sessions", body)
	if got.status != http.StatusCreated {
		sc.t.Fatalf("status %d: %s", got.status, got.body)
	}
	var s client.Session
	got.json(sc.t, &s)
	return s
}

func TestSession(t *testing.T) {
	t.Parallel()
	sc := start(t, "")
	one := sc.session(`{"consumer":"deploy","allow":["cred://m/db#password"],"reason":"release","subject":{"tenant":"acme"},"ttl":"10m"}`)
	if one.Token == "" || one.Subject.Session != one.ID || time.Until(one.ExpiresAt) > 10*time.Minute {
		t.Errorf("the session is %+v", one)
	}
	bearer := "Authorization: Bearer " + one.Token
	for ref, want := range map[string]backend.Code{
		"cred://m/db#password": backend.CodeOK, "cred://m/db#/password": backend.CodeOK, "cred://m/db": backend.CodeDenied,
		"cred://m/db#user": backend.CodeDenied, "cred://m/plain": backend.CodeDenied, "cred://conf//a": backend.CodeDenied,
	} {
		got := sc.do("GET", "/v1/resolve?ref="+escape(ref), "", bearer)
		var r client.Result
		got.json(t, &r)
		code := backend.CodeOK
		if r.Error != nil {
			code = r.Error.Code
		}
		if code != want || got.status != want.HTTPStatus() {
			t.Errorf("%s: %s, status %d; want %s", ref, code, got.status, want)
		}
	}
	for _, path := range []string{"/v1/sessions", "/v1/status", "/metrics"} {
		if got := sc.do("GET", path, "", bearer); got.status != http.StatusForbidden {
			t.Errorf("%s for a session: status %d", path, got.status)
		}
	}
	list := sc.do("GET", "/v1/sessions", "")
	if !strings.Contains(list.body, one.ID) || strings.Contains(list.body, one.Token) {
		t.Error("the list lacks the session, or has its token")
	}
	if log := sc.auditLog(); strings.Contains(log, one.Token) || !strings.Contains(log, `"session":"`+one.ID+`"`) || !strings.Contains(log, `"consumer":"deploy"`) {
		t.Error("the audit log has the token, or not the session")
	}
	if got := sc.do("DELETE", "/v1/sessions/"+one.ID, "", bearer); got.status != http.StatusForbidden {
		t.Errorf("a session ended itself: status %d", got.status)
	}
	if got := sc.do("DELETE", "/v1/sessions/"+one.ID, ""); got.status != http.StatusNoContent {
		t.Errorf("ending it: status %d", got.status)
	}
	if got := sc.do("GET", "/v1/resolve?ref="+escape("cred://m/db#password"), "", bearer); got.status != http.StatusUnauthorized {
		t.Errorf("after its end: status %d", got.status)
	}
}

func TestSessionExpires(t *testing.T) {
	t.Parallel()
	sc := start(t, "")
	one := sc.session(`{"consumer":"short","allow":["cred://m/plain"],"ttl":"100ms"}`)
	c := sc.client(one.Token)
	if _, err := c.Resolve(t.Context(), refOf("cred://m/plain")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the session ends", func() bool {
		_, err := c.Resolve(t.Context(), refOf("cred://m/plain"))
		return backend.CodeOf(err) == backend.CodeAuthRequired
	})
	eventually(t, "its end is audited", func() bool { return strings.Contains(sc.auditLog(), `"event":"session_end"`) })
}

func TestSessionOfAConfiguredConsumerHasItsRulesToo(t *testing.T) {
	t.Parallel()
	sc := start(t, "  consumers:\n    - {name: web, allow: [{provider: m, id: plain}]}\n")
	c := sc.client(sc.session(`{"consumer":"web","allow":["cred://m/plain","cred://m/other"]}`).Token)
	if _, err := c.Resolve(t.Context(), refOf("cred://m/plain")); err != nil {
		t.Error(err)
	}
	if _, err := c.Resolve(t.Context(), refOf("cred://m/other")); backend.CodeOf(err) != backend.CodeDenied {
		t.Errorf("beyond the consumer's rules: %v", err)
	}
}

func TestSessionsThatAreRefused(t *testing.T) {
	t.Parallel()
	sc := start(t, "  limits: {sessions: 1}\n")
	for name, body := range map[string]string{
		"nothing allowed":     `{"consumer":"x","allow":[]}`,
		"no consumer":         `{"allow":["cred://m/plain"]}`,
		"a malformed ref":     `{"consumer":"x","allow":["c4nary"]}`,
		"an unknown provider": `{"consumer":"x","allow":["cred://nowhere/plain"]}`,
		"for ever":            `{"consumer":"x","allow":["cred://m/plain"],"ttl":"25h"}`,
		"a long reason":       fmt.Sprintf(`{"consumer":"x","allow":["cred://m/plain"],"reason":%q}`, strings.Repeat("x", 300)),
		"a malformed subject": `{"consumer":"x","allow":["cred://m/plain"],"subject":{"tenant":"a\u0000"}}`,
	} {
		got := sc.do("POST", "/v1/sessions", body)
		if got.code(t) != backend.CodeUsage || strings.Contains(got.body, canary) {
			t.Errorf("%s: status %d: %s", name, got.status, got.body)
		}
	}
	sc.session(`{"consumer":"x","allow":["cred://m/plain"]}`)
	if got := sc.do("POST", "/v1/sessions", `{"consumer":"x","allow":["cred://m/plain"]}`); got.status != http.StatusTooManyRequests || got.header.Get("Retry-After") == "" {
		t.Errorf("one too many: status %d", got.status)
	}
}

func escape(ref string) string {
	return strings.NewReplacer(":", "%3A", "/", "%2F", "#", "%23", "?", "%3F").Replace(ref)
}

// eventually waits until what holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never comes to be that %s", what)
		}
	}
}
