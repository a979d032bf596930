package main

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/adapters/oauth2"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/mototest"
	"github.com/credresolve/credresolve/internal/oidctest"
	"github.com/credresolve/credresolve/resolver"
)

func openText(t *testing.T, dir, text string) *resolver.Resolver {
	t.Helper()
	path := filepath.Join(dir, "credresolve.yaml")
	must(t, os.WriteFile(path, []byte(text), 0o600))
	f, err := config.Load(path, kinds())
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Open(config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// signer is the access key id that a call was signed with.
func signer(c mototest.Call) string {
	_, key, _ := strings.Cut(c.Header.Get("Authorization"), "Credential=")
	key, _, _ = strings.Cut(key, "/")
	return key
}

// A pod's token gives the session of a role, which reads a secret: three providers in a chain.
func TestWorkloadIdentityForAWS(t *testing.T) {
	t.Parallel()
	p := mototest.New(t)
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	must(t, os.WriteFile(token, []byte("first-c4nary\n"), 0o600))
	r := openText(t, dir, fmt.Sprintf(`version: 1
providers:
  pod: {kind: file, path: token, mode: raw, cache: {ttl: 0s}}
  roles:
    kind: sts
    region: eu-west-1
    endpoint: %[1]q
    web_identity_token: {provider: pod, id: value}
  aws:
    kind: awssm
    region: eu-west-1
    endpoint: %[1]q
    access_key_id: {provider: roles, id: "arn:aws:iam::123456789012:role/reader", field: access_key_id}
    secret_access_key: {provider: roles, id: "arn:aws:iam::123456789012:role/reader", field: secret_access_key}
    session_token: {provider: roles, id: "arn:aws:iam::123456789012:role/reader", field: session_token}
`, p.URL))
	ref := credref.Ref{Provider: "aws", ID: "app/db"}
	if _, err := r.Resolve(t.Context(), ref); err == nil || !strings.Contains(err.Error(), "not") {
		t.Fatalf("of an account without secrets: %v", err)
	}
	calls := p.Calls("AssumeRoleWithWebIdentity")
	if len(calls) != 1 {
		t.Fatalf("%d sessions for three fields of one", len(calls))
	}
	form, err := url.ParseQuery(calls[0].Body)
	must(t, err)
	if form.Get("WebIdentityToken") != "first-c4nary" || form.Get("RoleArn") != "arn:aws:iam::123456789012:role/reader" {
		t.Errorf("assumed with %v", form)
	}
	session := credref.Ref{Provider: "roles", ID: "arn:aws:iam::123456789012:role/reader", Field: "access_key_id"}
	key, err := r.Resolve(t.Context(), session)
	must(t, err)
	reads := p.Calls("GetSecretValue")
	if len(reads) == 0 || signer(reads[0]) != string(key.Secret().Reveal()) {
		t.Errorf("%d reads, the first signed by another than the session", len(reads))
	}

	// The kubelet replaces the token, and AWS ends the session.
	must(t, os.WriteFile(token, []byte("second-c4nary\n"), 0o600))
	p.Fail("GetSecretValue", mototest.Refuse(400, "ExpiredTokenException", "c4nary"))
	r.Forget(ref)
	if _, err := r.Resolve(t.Context(), ref); err == nil || strings.Contains(err.Error(), "c4nary") || strings.Contains(err.Error(), "log in") {
		t.Errorf("after the session's end: %v", err)
	}
	if calls = p.Calls("AssumeRoleWithWebIdentity"); len(calls) != 2 {
		t.Fatalf("%d sessions", len(calls))
	}
	if form, err = url.ParseQuery(calls[1].Body); err != nil || form.Get("WebIdentityToken") != "second-c4nary" {
		t.Errorf("assumed with %v", form)
	}
	if fresh, err := r.Resolve(t.Context(), session); err != nil || fresh.Revision() == key.Revision() {
		t.Errorf("the old session is served: %v", err)
	}
}

// A token in a file is exchanged for one of an authorization server.
func TestWorkloadIdentityForTokenExchange(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "token"), []byte("wrong-c4nary"), 0o600))
	r := openText(t, dir, fmt.Sprintf(`version: 1
providers:
  pod: {kind: file, path: token, mode: raw, cache: {ttl: 0s}}
  api:
    kind: oauth2
    issuer: %[1]q
    grant: token_exchange
    client_id: %[2]s
    client_secret: %[3]s
    subject_token: {provider: pod, id: value}
    subject_token_type: access_token
    requested_token_type: access_token
    scopes: [openid]
`, p.Issuer, oidctest.Web, oidctest.WebSecret))
	api := credref.Ref{Provider: "api", ID: "default"}
	if _, err := r.Resolve(t.Context(), api); err == nil || strings.Contains(err.Error(), "c4nary") {
		t.Fatalf("a wrong token: %v", err)
	}
	person := tokenOf(t, p)
	must(t, os.WriteFile(filepath.Join(dir, "token"), person.Reveal(), 0o600))
	v, err := r.Resolve(t.Context(), api)
	must(t, err)
	if v.Secret().Len() == 0 || v.Secret().Equal(person) {
		t.Error("the token was not exchanged")
	}
}

// tokenOf logs a person in, and gives the access token.
func tokenOf(t *testing.T, p *oidctest.Provider) backend.Secret {
	t.Helper()
	b, err := oauth2.New(oauth2.Config{Issuer: p.Issuer, ClientID: oidctest.Public, Scopes: []string{"openid"}}, backend.Host{})
	must(t, err)
	defer b.Close()
	s, err := b.StartLogin(t.Context(), backend.Request{ID: "me"}, backend.LoginOptions{})
	must(t, err)
	oidctest.Browse(t, s.URL, "")
	for s.Status == backend.LoginPending {
		s, err = b.PollLogin(t.Context(), s.State)
		must(t, err)
	}
	if s.Grant == nil {
		t.Fatalf("%+v", s)
	}
	return s.Grant.Credential.Secret
}
