package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/credresolve/credresolve/internal/mototest"
	"github.com/credresolve/credresolve/internal/oidctest"
)

// chainLink is what explain tells of one ref of a chain.
type chainLink struct {
	Ref    struct{ Provider, ID string }
	Places []struct {
		State       string
		Revision    string
		FetchedAt   string `json:"fetched_at"`
		NextRefresh string `json:"next_refresh"`
	}
	Chain []chainLink
}

// walk gives the links of l in the order of a chain, each once.
func (l chainLink) walk(seen map[string]chainLink, order []string) []string {
	name := l.Ref.Provider + "/" + l.Ref.ID
	if _, twice := seen[name]; !twice {
		seen[name] = l
		order = append(order, name)
	}
	for _, next := range l.Chain {
		order = next.walk(seen, order)
	}
	return order
}

// wantChain fails the test unless ref resolves to want, and explain shows these links of it, each with its age and next refresh.
func (u *user) wantChain(ref, want string, links ...string) {
	u.t.Helper()
	if got := u.run("get", ref); got.status != 0 || got.stdout != want {
		u.t.Fatalf("%s: status %d, %s", ref, got.status, got.stderr)
	}
	text := u.run("explain", "--resolve", ref)
	coded := u.run("explain", "--resolve", "--output", "json", ref)
	for _, got := range []printed{text, coded} {
		if got.status != 0 || strings.Contains(got.stdout+got.stderr, canary) || strings.Contains(got.stdout, "FwoGZXIvYXdzE") { // moto's session tokens
			u.t.Fatalf("status %d: %s%s", got.status, got.stdout, got.stderr)
		}
	}
	var top chainLink
	if err := json.Unmarshal([]byte(coded.stdout), &top); err != nil {
		u.t.Fatal(err)
	}
	seen := map[string]chainLink{}
	order := top.walk(seen, nil)
	if strings.Join(order, " ") != strings.Join(links, " ") {
		u.t.Errorf("the chain is %q, want %q", order, links)
	}
	for name, l := range seen {
		if len(l.Places) != 1 || l.Places[0].State != "active" || l.Places[0].Revision == "" || l.Places[0].FetchedAt == "" || l.Places[0].NextRefresh == "" {
			u.t.Errorf("%s: told %+v", name, l.Places)
		}
		if _, part, ok := strings.Cut(text.stdout, "cred://"+l.Ref.Provider+"/"); !ok || !strings.Contains(part, ", fetched ") || !strings.Contains(part, ", next refresh in ") {
			u.t.Errorf("%s has no age and next refresh in %s", name, text.stdout)
		}
	}
}

// chained gives a user of a configuration with these providers, who has a token of a pod.
func chained(t *testing.T, token, providers string, args ...any) *user {
	u := newUser(t)
	u.write("token", token+"\n")
	u.write("credresolve.yaml", fmt.Sprintf("version: 1\nproviders:\n  pod: {kind: file, path: token, mode: raw, trim_newline: true}\n"+providers, args...))
	u.env = append(u.env, "CREDRESOLVE_CONFIG="+u.dir+"/credresolve.yaml")
	return u
}

// A pod's token, a session of a role, or of one that it assumes, and a secret of Secrets Manager: what is read in the end is real.
func TestChainToSecretsManager(t *testing.T) {
	t.Parallel()
	p := mototest.New(t)
	sdk := secretsmanager.New(secretsmanager.Options{
		Region: mototest.Region, BaseEndpoint: aws.String(p.Direct), Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
	})
	_, err := sdk.CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: aws.String("app/db"), SecretString: aws.String("real-c4nary")})
	must(t, err)
	u := chained(t, "pod-c4nary", `  roles:
    kind: sts
    region: %[1]s
    endpoint: %[2]q
    web_identity_token: {provider: pod, id: value}
    roles:
      hub: {role_arn: "arn:aws:iam::%[3]s:role/hub", session_name: hub}
      deploy: {role_arn: "arn:aws:iam::%[3]s:role/deploy", via: [hub], external_id: ext-1, tags: {team: web}, duration: 20m}
  plain:
    kind: awssm
    region: %[1]s
    endpoint: %[2]q
    access_key_id: {provider: roles, id: hub, field: access_key_id}
    secret_access_key: {provider: roles, id: hub, field: secret_access_key}
    session_token: {provider: roles, id: hub, field: session_token}
  aws:
    kind: awssm
    region: %[1]s
    endpoint: %[2]q
    access_key_id: {provider: roles, id: deploy, field: access_key_id}
    secret_access_key: {provider: roles, id: deploy, field: secret_access_key}
    session_token: {provider: roles, id: deploy, field: session_token}
`, mototest.Region, p.URL, p.Account)
	u.wantChain("cred://plain/app/db", "real-c4nary", "plain/app/db", "roles/hub", "pod/value")
	if n := len(p.Calls("AssumeRole")); n != 0 {
		t.Errorf("%d roles assumed by roles", n)
	}
	p.Reset()
	u.wantChain("cred://aws/app/db", "real-c4nary", "aws/app/db", "roles/deploy", "pod/value")
	first, second, reads := p.Calls("AssumeRoleWithWebIdentity"), p.Calls("AssumeRole"), p.Calls("GetSecretValue")
	if len(first) != 3 || len(second) != 3 || len(reads) != 3 { // once for each of get, explain and explain
		t.Fatalf("%d and %d roles assumed, %d reads", len(first), len(second), len(reads))
	}
	web, err := url.ParseQuery(first[0].Body)
	must(t, err)
	role, err := url.ParseQuery(second[0].Body)
	must(t, err)
	if web.Get("WebIdentityToken") != "pod-c4nary" || !strings.HasSuffix(web.Get("RoleArn"), ":role/hub") || web.Get("RoleSessionName") != "hub" {
		t.Errorf("first assumed with %v", web)
	}
	if !strings.HasSuffix(role.Get("RoleArn"), ":role/deploy") || role.Get("ExternalId") != "ext-1" || role.Get("DurationSeconds") != "1200" ||
		role.Get("Tags.member.1.Key") != "team" {
		t.Errorf("then assumed with %v", role)
	}
	if by := signer(second[0]); by == "" || by == signer(reads[0]) {
		t.Errorf("the read is signed by %q, as the second role's assumption", by)
	}
}

// A token in a file is exchanged at an authorization server for one with which Vault lets in. Vault's jwt method is not in the
// server of the tests: that answer is made up, of a token that the authorization server says is good.
func TestChainToVault(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	person := string(tokenOf(t, p).Reveal())
	logins := make(chan string, 10)
	vault := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.URL.Path == "/v1/auth/jwt/login":
			var in struct{ Role, JWT string }
			_ = json.NewDecoder(r.Body).Decode(&in)
			ask, _ := http.NewRequestWithContext(r.Context(), "GET", p.Issuer+"/userinfo", nil)
			ask.Header.Set("Authorization", "Bearer "+in.JWT)
			answer, err := http.DefaultClient.Do(ask)
			if err != nil || answer.StatusCode != http.StatusOK || in.Role != "web" {
				http.Error(w, `{"errors":["permission denied"]}`, http.StatusBadRequest)
				return
			}
			_ = answer.Body.Close()
			logins <- in.JWT
			fmt.Fprint(w, `{"auth": {"client_token": "hvs.c4nary", "lease_duration": 3600, "renewable": true}}`)
		case r.Header.Get("X-Vault-Token") != "hvs.c4nary":
			http.Error(w, `{"errors":["permission denied"]}`, http.StatusForbidden)
		case strings.HasPrefix(r.URL.Path, "/v1/sys/internal/ui/mounts"):
			fmt.Fprint(w, `{"data": {"path": "kv/", "type": "kv", "options": {"version": "2"}}}`)
		default:
			fmt.Fprint(w, `{"data": {"data": {"password": "real-c4nary"}, "metadata": {"version": 7}}}`)
		}
	}))
	defer vault.Close()
	u := chained(t, person, `  api:
    kind: oauth2
    issuer: %q
    grant: token_exchange
    client_id: %s
    client_secret: %s
    subject_token: {provider: pod, id: value}
    subject_token_type: access_token
    requested_token_type: access_token
    scopes: [openid]
  app:
    kind: vault
    address: %q
    auth: {method: jwt, role: web, jwt: {provider: api, id: default}}
`, p.Issuer, oidctest.Web, oidctest.WebSecret, vault.URL)
	u.wantChain("cred://app/kv/app/db#password", "real-c4nary", "app/kv/app/db", "api/default", "pod/value")
	if shown := <-logins; shown == person || shown == "" {
		t.Error("Vault was shown the token of the pod")
	}
	if out := u.run("explain", "--resolve", "cred://app/kv/app/db#password"); strings.Contains(out.stdout, person) {
		t.Errorf("explain shows a token: %s", out.stdout)
	}
}
