package server

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers/legacy"

	"github.com/credresolve/credresolve/adapters/oauth2"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/internal/oidctest"
)

// An independent reader of OpenAPI finds the document valid, and every request and answer of a running sidecar of its form.
func TestSidecarKeepsItsOpenAPIDocument(t *testing.T) {
	t.Parallel()
	sc := &sidecar{t: t, dir: t.TempDir(), logs: &buffer{}, kinds: testKinds(oauth2.Kind())}
	sc.socket = filepath.Join(sc.dir, "run", "sock")
	sc.write("conf.json", `{"a": "a-c4nary", "n": 7}`)
	hub := oidctest.Start(t, oidctest.Options{})
	sc.configure(providers+"  kept: {kind: memory}\n  vessel: {kind: memory}\n"+
		"  hub: {kind: oauth2, client_id: desk, scopes: [openid, offline_access, profile], issuer: \""+hub.Issuer+"\"}\nlogins: {store: vessel}\n", "  plugins: {store: kept}\n")
	sc.open()
	served := sc.do("GET", "/openapi.json", "")
	doc, err := openapi3.NewLoader().LoadFromData([]byte(served.body))
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(context.Background()); err != nil {
		t.Fatal(err)
	}
	doc.Servers = openapi3.Servers{{URL: "http://localhost"}}
	router, err := legacy.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	check := func(method, path, body string, status int, headers ...string) {
		t.Helper()
		got := sc.do(method, path, body, headers...)
		if got.status != status {
			t.Errorf("%s %s: status %d, want %d: %s", method, path, got.status, status, got.body)
			return
		}
		req, err := http.NewRequest(method, "http://localhost"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if body != "" {
			req.Header.Set("Content-Type", "application/json")
		}
		route, params, err := router.FindRoute(req)
		if err != nil {
			t.Errorf("%s %s: %v", method, path, err)
			return
		}
		seen[route.Method+" "+route.Path] = true
		in := &openapi3filter.RequestValidationInput{
			Request: req, Route: route, PathParams: params,
			Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true, ExcludeResponseBody: got.body == ""},
		}
		if status < http.StatusBadRequest {
			if err := openapi3filter.ValidateRequest(context.Background(), in); err != nil {
				t.Errorf("%s %s: the request: %v", method, path, err)
			}
		}
		if kind := got.header.Get("Content-Type"); status != http.StatusNoContent && status != http.StatusNotModified && !strings.HasPrefix(kind, "application/json") {
			return // the document says nothing of what is in such an answer
		}
		out := &openapi3filter.ResponseValidationInput{
			RequestValidationInput: in, Status: got.status, Header: got.header, Body: io.NopCloser(bytes.NewBufferString(got.body)), Options: in.Options,
		}
		if err := openapi3filter.ValidateResponse(context.Background(), out); err != nil {
			t.Errorf("%s %s: the answer: %v", method, path, err)
		}
	}
	plain := `{"provider":"m","id":"plain"}`
	check("POST", "/v1/resolve", `{"refs":[`+plain+`,{"provider":"m","id":"db","field":"port"},{"provider":"m","id":"db"},{"provider":"m","id":"none"}],"min_freshness":"1m","max_stale":"0s","no_cache":true}`, 200)
	check("POST", "/v1/resolve", `{"refs":[],"x":1}`, 400)
	check("GET", "/v1/resolve?ref="+escape("cred://m/plain"), "", 200)
	check("GET", "/v1/resolve?ref="+escape("cred://m/plain"), "", 304, "If-None-Match: *")
	check("GET", "/v1/resolve?ref="+escape("cred://m/none"), "", 404)
	check("GET", "/v1/resolve?ref=x", "", 400)
	check("POST", "/v1/report", `{"ref":`+plain+`,"revision":"00"}`, 200)
	check("POST", "/v1/report", `{"ref":{"provider":"m","id":"none"},"revision":"00"}`, 404)
	check("POST", "/v1/explain", `{"ref":`+plain+`}`, 200)
	check("POST", "/v1/explain", `{"ref":{"provider":"m","id":"never asked for"}}`, 200)
	check("POST", "/v1/explain", `{"ref":{"provider":"M","id":"x"}}`, 400)
	check("POST", "/v1/invalidate", `{"ref":`+plain+`}`, 200)
	check("POST", "/v1/invalidate", `{"provider":"m","prefix":"p"}`, 200)
	check("POST", "/v1/revoke", `{"ref":{"provider":"m","id":"none"}}`, 404)
	check("POST", "/v1/sessions", `{"consumer":"x","allow":["cred://m/plain"],"subject":{"tenant":"t"},"reason":"r","ttl":"1m"}`, 201)
	check("GET", "/v1/sessions", "", 200)
	for _, one := range sc.server.sessions.list() {
		check("DELETE", "/v1/sessions/"+one.ID, "", 204)
	}
	check("DELETE", "/v1/sessions/none", "", 404)
	plugin := "Authorization: Bearer " + sc.session(`{"consumer":"host","allow":[],"secrets":["read","write"],"subject":{"plugin":"p"}}`).Token
	check("PUT", "/v1/secrets/k", `{"value":"v-c4nary"}`, 204, plugin)
	check("PUT", "/v1/secrets/k", `{"value_base64":"/w=="}`, 204, plugin)
	check("PUT", "/v1/secrets/k", `{"value":"v","plugin":"q"}`, 403, plugin)
	check("GET", "/v1/secrets/k", "", 200, plugin)
	check("GET", "/v1/secrets/none", "", 404, plugin)
	check("HEAD", "/v1/secrets/k", "", 200, plugin)
	check("HEAD", "/v1/secrets/none", "", 404, plugin)
	check("DELETE", "/v1/secrets/k", "", 204, plugin)
	check("DELETE", "/v1/secrets/a%20b", "", 422, plugin)
	check("DELETE", "/v1/plugins/p", "", 204)
	check("GET", "/v1/resolve?ref="+escape("cred://hub/me"), "", 401)
	check("POST", "/v1/resolve", `{"refs":[{"provider":"hub","id":"me"}]}`, 200)
	check("POST", "/v1/login/start", `{"provider":"hub","id":"me","no_redirect":true}`, 200)
	check("POST", "/v1/login/start", `{"provider":"m","id":"plain"}`, 422)
	begun, err := sc.client("").StartLogin(t.Context(), client.LoginRequest{Provider: "hub", ID: "me", Device: true})
	if err != nil {
		t.Fatal(err)
	}
	state := `{"state":"` + begun.State + `"`
	check("POST", "/v1/login/poll", state+"}", 200)
	check("POST", "/v1/login/submit", state+`,"input":{"url":"x"}}`, 400)
	check("POST", "/v1/login/cancel", state+"}", 204)
	check("POST", "/v1/login/poll", state+"}", 200)
	check("POST", "/v1/login/poll", `{"state":"none"}`, 404)
	logIn(t, hub, sc.client(""), "hub", "me")
	check("POST", "/v1/login/submit", `{"state":"none","input":{"url":"x"}}`, 404)
	begun, err = sc.client("").StartLogin(t.Context(), client.LoginRequest{Provider: "hub", ID: "me", NoRedirect: true})
	if err != nil {
		t.Fatal(err)
	}
	_, address := oidctest.Browse(t, begun.URL, "http://127.0.0.1")
	check("POST", "/v1/login/submit", `{"state":"`+begun.State+`","input":{"url":"`+address+`"}}`, 200)
	check("GET", "/v1/logins", "", 200)
	check("POST", "/v1/refresh", `{"ref":{"provider":"hub","id":"me"}}`, 200)
	check("POST", "/v1/logout", `{"ref":{"provider":"hub","id":"me"}}`, 200)
	check("POST", "/v1/logout", `{"ref":{"provider":"hub","id":"me"}}`, 404)
	check("POST", "/v1/reload", "", 200)
	check("GET", "/v1/status", "", 200)
	check("GET", "/v1/health?now=1", "", 200)
	check("GET", "/v1/health?x=1", "", 400)
	check("GET", "/v1/providers", "", 200)
	check("GET", "/livez", "", 200)
	check("GET", "/readyz", "", 200)
	check("GET", "/metrics", "", 200)
	check("GET", "/openapi.json", "", 200)
	for _, r := range routes() {
		if !seen[r.method+" "+r.path] && !r.stream {
			t.Errorf("%s %s was not asked", r.method, r.path)
		}
	}
}
