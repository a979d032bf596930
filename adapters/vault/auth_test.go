package vault_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/credresolve/credresolve/adapters/vault"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/vaulttest"
)

// changing is a Source whose secret a test sets, and that remembers what was rejected.
type changing struct {
	mu       sync.Mutex
	value    string
	revision string
	rejected []string
	err      error
}

func (c *changing) set(value, revision string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.value, c.revision = value, revision
}

func (c *changing) rejections() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.rejected)
}

func (c *changing) source() backend.Source {
	return backend.NewSource(func(context.Context) (backend.Secret, string, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		return backend.NewSecretString(c.value), c.revision, c.err
	}, func(revision string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.rejected = append(c.rejected, revision)
	})
}

// appRole enables AppRole with a role that may read mount, and gives its path, role id, and a maker of secret ids.
func appRole(t *testing.T, s *vaulttest.Server, mount string, role map[string]any) (auth, roleID string, secretID func() string) {
	t.Helper()
	auth = s.Auth(t, "approle")
	if role == nil {
		role = map[string]any{}
	}
	role["token_policies"] = s.Policy(t, `path "`+mount+`/*" { capabilities = ["read"] }`)
	s.Write(t, "auth/"+auth+"/role/r", role)
	return auth, s.Read(t, "auth/"+auth+"/role/r/role-id")["role_id"].(string), func() string {
		return s.Write(t, "auth/"+auth+"/role/r/secret-id", nil)["secret_id"].(string)
	}
}

// kv mounts an engine with the secret x: {k: v}.
func kv(t *testing.T, s *vaulttest.Server) string {
	t.Helper()
	m := s.Mount(t, "kv", map[string]string{"version": "2"})
	s.Write(t, m+"/data/x", map[string]any{"data": map[string]any{"k": "v"}})
	return m
}

func TestLoginByAppRole(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	m := kv(t, s)
	auth, role, newID := appRole(t, s, m, nil)
	src := &changing{}
	src.set(newID()+"\n", "rev1")
	b := openWith(t, vault.Config{Address: s.Addr, Auth: vault.Auth{Method: "approle", Mount: "/" + auth + "/", RoleID: role, SecretID: src.source()}}, nil)
	if field(t, get(t, b, m+"/x", ""), "k") != "v" {
		t.Error("wrong value")
	}
	if r := src.rejections(); len(r) != 0 {
		t.Errorf("rejected %v", r)
	}
	bad := &changing{value: "wrong-" + canary, revision: "rev2"}
	b = openWith(t, vault.Config{Address: s.Addr, Auth: vault.Auth{Method: "approle", Mount: auth, RoleID: role, SecretID: bad.source()}}, nil)
	getFails(t, b, m+"/x", "", backend.ErrAuthRequired, "the login by approle at auth/"+auth+"/login was refused", "secret-id")
	if r := bad.rejections(); !slices.Equal(r, []string{"rev2"}) {
		t.Errorf("rejected %v", r)
	}
	bad.set(newID(), "rev3") // and with a good one it goes on
	get(t, b, m+"/x", "")

	b = openWith(t, vault.Config{Address: s.Addr, Auth: vault.Auth{Method: "approle", Mount: "nowhere", RoleID: role, SecretID: src.source()}}, nil)
	if _, err := b.Get(t.Context(), backend.Request{ID: m + "/x"}); backend.CodeOf(err) != backend.CodeAuthRequired && backend.CodeOf(err) != backend.CodeInvalidConfig {
		t.Errorf("a mount that does not exist: %v", err)
	}
}

func TestLoginByWrappedSecretID(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	m := kv(t, s)
	auth, role, _ := appRole(t, s, m, map[string]any{"token_ttl": "1h"})
	wrap := func(path string, data map[string]any) string {
		c := s.Client(t)
		c.SetWrappingLookupFunc(func(string, string) string { return "60s" })
		w, err := c.Logical().WriteWithContext(t.Context(), path, data)
		if err != nil {
			t.Fatal(err)
		}
		return w.WrapInfo.Token
	}
	src := &changing{}
	with := func() *vault.Backend {
		return openWith(t, vault.Config{Address: s.Addr, Auth: vault.Auth{Method: "approle", Mount: auth, RoleID: role, SecretID: src.source(), SecretIDWrapped: true}}, nil)
	}
	src.set(wrap("auth/"+auth+"/role/r/secret-id", nil), "rev1")
	first := with()
	get(t, first, m+"/x", "")
	// The secret id stays good for the next login, though the wrapping token is used up.
	s.Write(t, "auth/token/revoke-accessor", map[string]any{"accessor": field(t, get(t, first, "auth/token/lookup-self", ""), "accessor")})
	get(t, first, m+"/x", "")

	second := with()
	getFails(t, second, m+"/x", "", backend.ErrAuthRequired, "wrapping token in auth.secret_id is not valid")
	if r := src.rejections(); !slices.Equal(r, []string{"rev1"}) {
		t.Errorf("rejected %v", r)
	}
	src.set(wrap("auth/"+auth+"/role/r/secret-id", nil), "rev2")
	get(t, second, m+"/x", "")

	// What somebody else wrapped in its place is not even unwrapped.
	forged := wrap("sys/wrapping/wrap", map[string]any{"secret_id": canary})
	src.set(forged, "rev3")
	getFails(t, with(), m+"/x", "", backend.ErrAuthRequired, "was not made for a secret id of auth/"+auth+"/role/")
	if w, err := s.Client(t).Logical().UnwrapWithContext(t.Context(), forged); err != nil || w.Data["secret_id"] != canary {
		t.Errorf("it was unwrapped: %v", err)
	}
}

func TestLoginByUserpass(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	m := kv(t, s)
	auth := s.Auth(t, "userpass")
	s.Write(t, "auth/"+auth+"/users/bob", map[string]any{"password": " pass\"word ", "token_policies": s.Policy(t, `path "`+m+`/*" { capabilities = ["read"] }`)})
	with := func(password backend.Source) *vault.Backend {
		return openWith(t, vault.Config{Address: s.Addr, Auth: vault.Auth{Method: "userpass", Mount: auth, Username: "bob", Password: password}}, nil)
	}
	if field(t, get(t, with(secret(" pass\"word ")), m+"/x", ""), "k") != "v" {
		t.Error("wrong value")
	}
	wrong := &changing{value: canary, revision: "r"}
	getFails(t, with(wrong.source()), m+"/x", "", backend.ErrAuthRequired, "the login by userpass", "auth.password")
	if r := wrong.rejections(); !slices.Equal(r, []string{"r"}) {
		t.Errorf("rejected %v", r)
	}
	getFails(t, with(secret(" \n")), m+"/x", "", backend.ErrAuthRequired, "auth.password is blank")
	getFails(t, with(secret(canary+"\xff")), m+"/x", "", backend.ErrAuthRequired, "auth.password is not text")
	for code, want := range map[backend.Code]backend.Code{
		backend.CodeNotFound: backend.CodeAuthRequired, backend.CodeDenied: backend.CodeAuthRequired, backend.CodeInternal: backend.CodeAuthRequired,
		backend.CodeUnavailable: backend.CodeUnavailable, backend.CodeLocked: backend.CodeLocked,
	} {
		_, err := with((&changing{err: backend.Errorf(code, "it is so")}).source()).Get(t.Context(), backend.Request{ID: m + "/x"})
		if backend.CodeOf(err) != want || !strings.Contains(err.Error(), "auth.password: it is so") {
			t.Errorf("a password that is %s gave %s: %v", code, backend.CodeOf(err), err)
		}
	}
	_, err := with((&changing{err: io.ErrUnexpectedEOF}).source()).Get(t.Context(), backend.Request{ID: m + "/x"})
	fails(t, err, backend.ErrAuthRequired, "auth.password could not be had")
}

func TestTokenFile(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	m := kv(t, s)
	first, second := s.NewToken(t, map[string]any{"ttl": "1h"}), s.NewToken(t, map[string]any{"ttl": "1h"})
	file := writeFile(t, "sink", first+"\n")
	with := func(path string) *vault.Backend {
		return openWith(t, vault.Config{Address: s.Addr, Auth: vault.Auth{Method: "token_file", TokenFile: path}}, nil)
	}
	b := with(file)
	get(t, b, m+"/x", "")
	// An agent puts a new token into the file; the old one ends.
	if err := os.WriteFile(file, []byte(second), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Write(t, "auth/token/revoke", map[string]any{"token": first})
	get(t, b, m+"/x", "")
	s.Write(t, "auth/token/revoke", map[string]any{"token": second})
	getFails(t, b, m+"/x", "", backend.ErrAuthRequired, "not valid any more", "agent")

	getFails(t, with("/no/such/file"), m+"/x", "", backend.ErrAuthRequired, "/no/such/file: no such file")
	getFails(t, with(t.TempDir()), m+"/x", "", backend.ErrAuthRequired, "not a regular file")
	getFails(t, with(writeFile(t, "empty", " \n")), m+"/x", "", backend.ErrAuthRequired, "is blank")
	getFails(t, with(writeFile(t, "huge", strings.Repeat(canary, 20_000))), m+"/x", "", backend.ErrAuthRequired, "larger than 64 KiB")
	getFails(t, with(writeFile(t, "lines", "a\n"+canary)), m+"/x", "", backend.ErrAuthRequired, "not a token")
}

// An agent puts its own token into requests that have none.
func TestLoginOfAnAgent(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	m := kv(t, s)
	p := s.Proxy(t)
	b := openWith(t, vault.Config{Address: p.URL, Auth: vault.Auth{Method: "none"}}, map[string]string{"VAULT_TOKEN": canary})
	fails(t, b.Probe(t.Context()), backend.ErrAuthRequired, "agent")
	p.Fail("/v1/", -1, func(w http.ResponseWriter, r *http.Request, server http.Handler) {
		if r.Header.Get("X-Vault-Token") != "" {
			t.Error("a token was sent")
		}
		r.Header.Set("X-Vault-Token", s.Token)
		server.ServeHTTP(w, r)
	})
	if field(t, get(t, b, m+"/x", ""), "k") != "v" {
		t.Error("wrong value")
	}
}

// The test server has neither of these methods: what is sent is checked instead.
func TestLoginByJWTAndKubernetes(t *testing.T) {
	t.Parallel()
	type seen struct {
		path, namespace, token string
		body                   map[string]string
	}
	requests := make(chan seen, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/v1/auth/") || r.URL.Path == "/v1/auth/token/lookup-self" {
			_, _ = io.WriteString(w, `{"request_id":"1","data":{}}`)
			return
		}
		var body map[string]string
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		requests <- seen{r.URL.Path, r.Header.Get("X-Vault-Namespace"), r.Header.Get("X-Vault-Token"), body}
		switch {
		case strings.Contains(r.URL.Path, "refuses"):
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"errors":["`+canary+`"]}`)
		case strings.Contains(r.URL.Path, "absent"):
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"errors":["no handler for route"]}`)
		case strings.Contains(r.URL.Path, "mfa"):
			_, _ = io.WriteString(w, `{"request_id":"1","auth":{"client_token":"","mfa_requirement":{"mfa_request_id":"`+canary+`"}}}`)
		case strings.Contains(r.URL.Path, "strange"):
			_, _ = io.WriteString(w, `{"request_id":"1","auth":{"client_token":""}}`)
		default:
			_, _ = io.WriteString(w, `{"request_id":"1","auth":{"client_token":"t-`+canary+`","lease_duration":0}}`)
		}
	}))
	t.Cleanup(server.Close)
	file := writeFile(t, "jwt", "file-"+canary+"\n")
	for _, tt := range []struct {
		name string
		auth vault.Auth
		path string
		body map[string]string
		want error
		text string
	}{
		{"jwt", vault.Auth{Method: "jwt", Role: "r", JWT: secret("j-" + canary)}, "/v1/auth/jwt/login", map[string]string{"role": "r", "jwt": "j-" + canary}, nil, ""},
		{"jwt of the default role, from a file", vault.Auth{Method: "jwt", Mount: "a/oidc", JWTFile: file}, "/v1/auth/a/oidc/login", map[string]string{"jwt": "file-" + canary}, nil, ""},
		{"kubernetes", vault.Auth{Method: "kubernetes", Role: "r", JWTFile: file}, "/v1/auth/kubernetes/login", map[string]string{"role": "r", "jwt": "file-" + canary}, nil, ""},
		{"LDAP", vault.Auth{Method: "userpass", Mount: "ldap", Username: "bob", Password: secret(canary)}, "/v1/auth/ldap/login/bob", map[string]string{"password": canary}, nil, ""},
		{"approle without a secret id", vault.Auth{Method: "approle", RoleID: "r"}, "/v1/auth/approle/login", map[string]string{"role_id": "r"}, nil, ""},
		{"refused", vault.Auth{Method: "kubernetes", Mount: "refuses", Role: "r", JWTFile: file}, "/v1/auth/refuses/login", map[string]string{"role": "r", "jwt": "file-" + canary}, backend.ErrAuthRequired, "service account"},
		{"absent", vault.Auth{Method: "kubernetes", Mount: "absent", Role: "r", JWTFile: file}, "/v1/auth/absent/login", map[string]string{"role": "r", "jwt": "file-" + canary}, backend.ErrInvalidConfig, "no auth method is mounted at auth/absent"},
		{"second factor", vault.Auth{Method: "jwt", Mount: "mfa", JWTFile: file}, "/v1/auth/mfa/login", map[string]string{"jwt": "file-" + canary}, backend.ErrAuthRequired, "second factor"},
		{"no token", vault.Auth{Method: "jwt", Mount: "strange", JWTFile: file}, "/v1/auth/strange/login", map[string]string{"jwt": "file-" + canary}, backend.ErrUnavailable, "not as Vault's"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := openWith(t, vault.Config{Address: server.URL, Namespace: "team", Auth: tt.auth}, nil)
			err := b.Probe(t.Context())
			if tt.want != nil {
				fails(t, err, tt.want, tt.text)
			} else if err != nil {
				t.Error(err)
			}
			got := <-requests
			if got.path != tt.path || got.namespace != "team" || got.token != "" || len(got.body) != len(tt.body) {
				t.Errorf("sent %+v", got)
			}
			for name, want := range tt.body {
				if got.body[name] != want {
					t.Errorf("%s is %q, want %q", name, got.body[name], want)
				}
			}
		})
	}
	inPod := openWith(t, vault.Config{Address: server.URL, Auth: vault.Auth{Method: "kubernetes", Role: "r"}}, nil)
	if _, err := os.Stat("/var/run/secrets/kubernetes.io/serviceaccount/token"); err != nil {
		fails(t, inPod.Probe(t.Context()), backend.ErrAuthRequired, "/var/run/secrets/kubernetes.io/serviceaccount/token: no such file")
	}
}

func TestTokenIsRenewedThenReplaced(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	m := kv(t, s)
	auth, role, newID := appRole(t, s, m, map[string]any{"token_ttl": "2s", "token_max_ttl": "4s"})
	p := s.Proxy(t)
	b := openWith(t, vault.Config{Address: p.URL, Auth: vault.Auth{Method: "approle", Mount: auth, RoleID: role, SecretID: secret(newID())}}, nil)
	var wg sync.WaitGroup
	stop := time.Now().Add(6 * time.Second)
	for range 4 {
		wg.Go(func() {
			for time.Now().Before(stop) {
				if _, err := b.Get(t.Context(), backend.Request{ID: m + "/x"}); err != nil {
					t.Errorf("a read failed: %v", err)
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	wg.Wait()
	logins, renewals := len(p.Calls("/v1/auth/"+auth+"/login")), len(p.Calls("/v1/auth/token/renew-self"))
	if logins < 2 || logins > 4 || renewals < 2 {
		t.Errorf("%d logins, %d renewals", logins, renewals)
	}
	if n := len(p.Calls("/v1/auth/token/lookup-self")); n != 0 {
		t.Errorf("the token was not replaced in time: %d looks at a dead one", n)
	}
}

// A login that cannot be renewed at all is replaced before it ends, and through an outage at that moment.
func TestBatchTokenIsReplacedThroughAnOutage(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	m := kv(t, s)
	auth, role, newID := appRole(t, s, m, map[string]any{"token_ttl": "2s", "token_type": "batch"})
	p := s.Proxy(t)
	b := openWith(t, vault.Config{Address: p.URL, Auth: vault.Auth{Method: "approle", Mount: auth, RoleID: role, SecretID: secret(newID())}}, nil)
	get(t, b, m+"/x", "")
	p.Fail("/v1/auth/"+auth+"/login", 1, vaulttest.Answer(503, `{"errors":["Vault is sealed"]}`))
	for stop := time.Now().Add(3 * time.Second); time.Now().Before(stop); time.Sleep(50 * time.Millisecond) {
		get(t, b, m+"/x", "")
	}
	if n := len(p.Calls("/v1/auth/" + auth + "/login")); n < 3 {
		t.Errorf("%d logins", n)
	}
}

func TestGivenTokenIsRenewed(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	m := kv(t, s)
	p := s.Proxy(t)
	b := open(t, p.URL, s.NewToken(t, map[string]any{"ttl": "3s", "policies": []string{s.Policy(t, `path "`+m+`/*" { capabilities = ["read"] }`)}}))
	for stop := time.Now().Add(4500 * time.Millisecond); time.Now().Before(stop); time.Sleep(100 * time.Millisecond) {
		get(t, b, m+"/x", "")
	}
	if n := len(p.Calls("/v1/auth/token/renew-self")); n < 1 {
		t.Errorf("%d renewals", n)
	}
}

func TestRevokedLoginIsReplacedOnce(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	m := kv(t, s)
	auth, role, newID := appRole(t, s, m, nil)
	p := s.Proxy(t)
	b := openWith(t, vault.Config{Address: p.URL, Auth: vault.Auth{Method: "approle", Mount: auth, RoleID: role, SecretID: secret(newID())}}, nil)
	accessor := field(t, get(t, b, "auth/token/lookup-self", ""), "accessor")
	s.Write(t, "auth/token/revoke-accessor", map[string]any{"accessor": accessor})
	results, err := backend.GetBatch(t.Context(), b, slices.Repeat([]backend.Request{{ID: m + "/x"}}, 30))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if r.Err != nil {
			t.Errorf("a read failed: %v", r.Err)
		}
	}
	if n := len(p.Calls("/v1/auth/" + auth + "/login")); n != 2 {
		t.Errorf("%d logins, want 2", n)
	}
	// What is denied to a live token costs no login.
	for range 3 {
		getFails(t, b, "sys/policies/acl/root", "", backend.ErrDenied, "permission denied on sys/policies/acl/root")
	}
	if n := len(p.Calls("/v1/auth/" + auth + "/login")); n != 2 {
		t.Errorf("%d logins after a denial, want 2", n)
	}
}

// A token without the default policy may not look itself up; it is still told from a dead one.
func TestDenialOfATokenThatMayNotLookItselfUp(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	m := kv(t, s)
	policy := s.Policy(t, `path "`+m+`/data/x" { capabilities = ["read"] }`)
	token := s.NewToken(t, map[string]any{"policies": []string{policy}, "no_default_policy": true})
	b := open(t, s.Addr, token)
	get(t, b, m+"/x", "")
	getFails(t, b, m+"/y", "", backend.ErrDenied, "permission denied on "+m+"/y")
	s.Write(t, "auth/token/revoke", map[string]any{"token": token})
	getFails(t, b, m+"/x", "", backend.ErrAuthRequired, "not valid any more")
}

// A token of another provider that turns out to be dead is asked for anew, after its revision was rejected.
func TestDeadTokenIsRejectedAtItsSource(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	m := kv(t, s)
	good := s.NewToken(t, map[string]any{"ttl": "1h"})
	var mu sync.Mutex
	value, revision := canary, "old"
	src := backend.NewSource(func(context.Context) (backend.Secret, string, error) {
		mu.Lock()
		defer mu.Unlock()
		return backend.NewSecretString(value), revision, nil
	}, func(rejected string) {
		mu.Lock()
		defer mu.Unlock()
		if rejected == "old" {
			value, revision = good, "new"
		}
	})
	b := openWith(t, vault.Config{Address: s.Addr, Auth: vault.Auth{Token: src}}, nil)
	if field(t, get(t, b, m+"/x", ""), "k") != "v" {
		t.Error("wrong value")
	}
}

func TestLoginsAreShared(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	m := kv(t, s)
	auth, role, newID := appRole(t, s, m, nil)
	p := s.Proxy(t)
	p.Fail("/v1/auth/"+auth+"/login", 1, func(w http.ResponseWriter, r *http.Request, server http.Handler) {
		time.Sleep(300 * time.Millisecond)
		server.ServeHTTP(w, r)
	})
	b := openWith(t, vault.Config{Address: p.URL, Mount: m, KVVersion: 2, Auth: vault.Auth{Method: "approle", Mount: auth, RoleID: role, SecretID: secret(newID())}}, nil)
	// The first to ask leaves; the login goes on for the others.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := b.Get(ctx, backend.Request{ID: "x"})
	fails(t, err, context.DeadlineExceeded)
	results, err := backend.GetBatch(t.Context(), b, slices.Repeat([]backend.Request{{ID: "x"}}, 10))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if r.Err != nil {
			t.Errorf("a read failed: %v", r.Err)
		}
	}
	if n := len(p.Calls("/v1/auth/" + auth + "/login")); n != 1 {
		t.Errorf("%d logins", n)
	}
}

// A login that hangs ends with Close.
func TestCloseEndsALogin(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	src := backend.NewSource(func(ctx context.Context) (backend.Secret, string, error) {
		close(entered)
		<-ctx.Done()
		return backend.Secret{}, "", ctx.Err()
	}, nil)
	b := openWith(t, vault.Config{Address: "http://127.0.0.1:1", Auth: vault.Auth{Token: src}}, nil)
	done := make(chan error)
	go func() { done <- b.Probe(context.Background()) }()
	<-entered
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	fails(t, <-done, backend.ErrUnavailable, "closed")
}

func TestLoginByCertificate(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	server, client, stranger := ca.issue(t, "127.0.0.1"), ca.issue(t, "app"), newCA(t).issue(t, "app")
	s := vaulttest.StartOwn(t, "-tls-cert", server.cert, "-tls-key", server.key)
	s.CAFile = ca.file
	m := kv(t, s)
	if err := s.Client(t).Sys().EnableAuthWithOptionsWithContext(t.Context(), "cert", &api.EnableAuthOptions{Type: "cert"}); err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(ca.file)
	if err != nil {
		t.Fatal(err)
	}
	s.Write(t, "auth/cert/certs/app", map[string]any{"certificate": string(pem), "token_policies": s.Policy(t, `path "`+m+`/*" { capabilities = ["read"] }`)})

	with := func(pair keyPair, role string, tls vault.TLS) *vault.Backend {
		tls.ClientCert, tls.ClientKey = pair.cert, pair.key
		return openWith(t, vault.Config{Address: s.Addr, Auth: vault.Auth{Method: "cert", Role: role}, TLS: tls}, nil)
	}
	for _, role := range []string{"", "app"} {
		if field(t, get(t, with(client, role, vault.TLS{CAFile: ca.file}), m+"/x", ""), "k") != "v" {
			t.Error("wrong value")
		}
	}
	getFails(t, with(stranger, "", vault.TLS{CAFile: ca.file}), m+"/x", "", backend.ErrAuthRequired, "the login by cert", "tls.client_cert")
	getFails(t, with(client, "other", vault.TLS{CAFile: ca.file}), m+"/x", "", backend.ErrAuthRequired)

	trusting := func(c vault.TLS, env map[string]string) error {
		return openWith(t, vault.Config{Address: s.Addr, Auth: vault.Auth{Token: secret(s.Token)}, TLS: c}, env).Probe(t.Context())
	}
	dir := filepath.Dir(ca.file)
	for name, err := range map[string]error{
		"file": trusting(vault.TLS{CAFile: ca.file}, nil), "path": trusting(vault.TLS{CAPath: dir}, nil), "text": trusting(vault.TLS{CAPEM: string(pem), MinVersion: "1.3"}, nil),
		"variable": trusting(vault.TLS{}, map[string]string{"VAULT_CACERT": ca.file}), "bytes": trusting(vault.TLS{}, map[string]string{"VAULT_CACERT_BYTES": string(pem)}),
		"directory in a variable": trusting(vault.TLS{}, map[string]string{"VAULT_CAPATH": dir}), "unverified": trusting(vault.TLS{}, map[string]string{"VAULT_SKIP_VERIFY": "true"}),
		"client's variables": trusting(vault.TLS{CAFile: ca.file}, map[string]string{"VAULT_CLIENT_CERT": client.cert, "VAULT_CLIENT_KEY": client.key}),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	fails(t, trusting(vault.TLS{}, nil), backend.ErrUnavailable, "unknown authority")
	fails(t, trusting(vault.TLS{CAFile: newCA(t).file}, nil), backend.ErrUnavailable, "unknown authority")
	fails(t, trusting(vault.TLS{CAFile: ca.file, ServerName: "vault.example"}, nil), backend.ErrUnavailable, "another name")
	fails(t, trusting(vault.TLS{CAFile: ca.file}, map[string]string{"VAULT_TLS_SERVER_NAME": "vault.example"}), backend.ErrUnavailable, "another name")
	fails(t, trusting(vault.TLS{CAFile: "/no/such/ca"}, nil), backend.ErrInvalidConfig, "tls.ca_file /no/such/ca: no such file")
	fails(t, trusting(vault.TLS{CAFile: client.key}, nil), backend.ErrInvalidConfig, "no PEM certificate in it")
	fails(t, trusting(vault.TLS{CAPath: t.TempDir()}, nil), backend.ErrInvalidConfig, "no PEM certificate in it")
	fails(t, trusting(vault.TLS{CAPEM: canary}, nil), backend.ErrInvalidConfig, "tls.ca_pem")
	fails(t, trusting(vault.TLS{CAFile: ca.file, ClientCert: client.cert, ClientKey: stranger.key}, nil), backend.ErrInvalidConfig, "not a PEM certificate and its key")
}
