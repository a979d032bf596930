package openclawexec_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/credresolve/credresolve/adapters/env"
	"github.com/credresolve/credresolve/adapters/file"
	"github.com/credresolve/credresolve/adapters/vault"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/internal/execproto"
	"github.com/credresolve/credresolve/internal/openclawexec"
	"github.com/credresolve/credresolve/resolver"
)

const canary = "hunter2-c4nary"

// fakeVault takes any login and has the field key of every secret. It keeps what it was asked.
type fakeVault struct {
	url   string
	login struct{ path, body string }
	reads atomic.Int64
	path  string // of the last read
	space string // X-Vault-Namespace of the last read
}

func newFakeVault(t *testing.T) *fakeVault {
	t.Helper()
	f := &fakeVault{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/login") {
			body, _ := io.ReadAll(r.Body)
			f.login.path, f.login.body = r.URL.Path, string(body)
			_, _ = io.WriteString(w, `{"auth": {"client_token": "logged-in", "lease_duration": 3600, "renewable": true}}`)
			return
		}
		if token := r.Header.Get("X-Vault-Token"); token != "logged-in" && token != canary {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"errors": ["permission denied", "invalid token"]}`)
			return
		}
		f.reads.Add(1)
		f.path, f.space = r.URL.Path, r.Header.Get("X-Vault-Namespace")
		data := `{"key": "value"}`
		if strings.Contains(r.URL.Path, "/data/") {
			data = `{"data": ` + data + `, "metadata": {"version": 1}}`
		}
		_, _ = io.WriteString(w, `{"data": `+data+`}`)
	}))
	t.Cleanup(s.Close)
	f.url = s.URL
	return f
}

// answer resolves ids as openclaw-exec --vault-env does.
func answer(t *testing.T, variables map[string]string, ids ...string) (openclawexec.Answer, error) {
	t.Helper()
	lookup := func(name string) (string, bool) { v, ok := variables[name]; return v, ok }
	src, names, err := openclawexec.VaultEnv(lookup)
	if err != nil {
		return openclawexec.Answer{}, err
	}
	if strings.Contains(string(src), canary) {
		t.Error("a secret is in the configuration")
	}
	f, err := config.Parse(filepath.Join(t.TempDir(), "environment"), src, backend.NewRegistry(vault.Kind(), env.Kind(), file.Kind()))
	if err != nil {
		return openclawexec.Answer{}, err
	}
	if w := f.Warnings(); len(w) > 0 {
		t.Errorf("warnings: %v", w)
	}
	r, err := f.Open(config.Options{LookupEnv: lookup})
	if err != nil {
		return openclawexec.Answer{}, err
	}
	defer func() { _ = r.Close() }()
	return openclawexec.Service{Names: names, Resolve: r.ResolveAll}.Answer(t.Context(), execproto.Request{IDs: ids}), nil
}

func TestVaultEnv(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"token", "jwt", "secret-id"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(canary+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name string
		env  map[string]string
		path string // of the read
		// login is the path of the login and what is in its body; empty: none.
		login []string
	}{
		{"token, all defaults", map[string]string{"VAULT_TOKEN": " " + canary + "\n"}, "/v1/secret/data/a/b", nil},
		{"an explicit method, another mount", map[string]string{"OPENCLAW_VAULT_AUTH_METHOD": "token", "VAULT_TOKEN": canary, "OPENCLAW_VAULT_KV_MOUNT": "/team/kv/"}, "/v1/team/kv/data/a/b", nil},
		{"version 1", map[string]string{"VAULT_TOKEN": canary, "OPENCLAW_VAULT_KV_VERSION": "1"}, "/v1/secret/a/b", nil},
		{"a mount of the login is nothing to a token", map[string]string{"VAULT_TOKEN": canary, "OPENCLAW_VAULT_AUTH_MOUNT": "x"}, "/v1/secret/data/a/b", nil},
		{"token_file", map[string]string{"OPENCLAW_VAULT_AUTH_METHOD": "token_file", "VAULT_TOKEN_FILE": filepath.Join(dir, "token")}, "/v1/secret/data/a/b", nil},
		{"jwt", map[string]string{"OPENCLAW_VAULT_AUTH_METHOD": "jwt", "OPENCLAW_VAULT_AUTH_ROLE": "r", "OPENCLAW_VAULT_JWT_FILE": filepath.Join(dir, "jwt")},
			"/v1/secret/data/a/b", []string{"/v1/auth/jwt/login", `"role":"r"`, `"jwt":"` + canary + `"`}},
		{"kubernetes at a mount", map[string]string{"OPENCLAW_VAULT_AUTH_METHOD": "kubernetes", "OPENCLAW_VAULT_AUTH_ROLE": "r", "OPENCLAW_VAULT_JWT_FILE": filepath.Join(dir, "jwt"), "OPENCLAW_VAULT_AUTH_MOUNT": "/k8s/eu/"},
			"/v1/secret/data/a/b", []string{"/v1/auth/k8s/eu/login", `"role":"r"`, canary}},
		{"approle, a variable", map[string]string{"OPENCLAW_VAULT_AUTH_METHOD": "approle", "VAULT_ROLE_ID": "r", "VAULT_SECRET_ID": canary},
			"/v1/secret/data/a/b", []string{"/v1/auth/approle/login", `"role_id":"r"`, `"secret_id":"` + canary + `"`}},
		{"approle, a file", map[string]string{"OPENCLAW_VAULT_AUTH_METHOD": "approle", "VAULT_ROLE_ID": "r", "VAULT_SECRET_ID_FILE": filepath.Join(dir, "secret-id"), "OPENCLAW_VAULT_AUTH_MOUNT": "ours"},
			"/v1/secret/data/a/b", []string{"/v1/auth/ours/login", `"secret_id":"` + canary + `"`}},
		{"approle that needs no secret id", map[string]string{"OPENCLAW_VAULT_AUTH_METHOD": "approle", "VAULT_ROLE_ID": "r"},
			"/v1/secret/data/a/b", []string{"/v1/auth/approle/login", `"role_id":"r"`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := newFakeVault(t)
			tt.env["VAULT_ADDR"], tt.env["VAULT_NAMESPACE"] = server.url+"//", "team"
			a, err := answer(t, tt.env, "a/b/key", "x:vault/a/b#key")
			if err != nil || a.Err != nil {
				t.Fatal(err, a.Err)
			}
			var got struct{ Values map[string]string }
			if err := json.Unmarshal(a.Response, &got); err != nil || got.Values["a/b/key"] != "value" || got.Values["x:vault/a/b#key"] != "value" {
				t.Errorf("got %v, %v", got.Values, a.Failures)
			}
			if n := server.reads.Load(); n != 1 || server.path != tt.path || server.space != "team" {
				t.Errorf("%d reads, of %s in %q", n, server.path, server.space)
			}
			if (len(tt.login) > 0) != (server.login.path != "") || len(tt.login) > 0 && server.login.path != tt.login[0] {
				t.Errorf("login at %q", server.login.path)
			}
			for _, part := range tt.login[min(1, len(tt.login)):] {
				if !strings.Contains(server.login.body, part) {
					t.Errorf("the login does not have %s", strings.ReplaceAll(part, canary, "…"))
				}
			}
		})
	}
}

func TestVaultEnvRefuses(t *testing.T) {
	t.Parallel()
	with := func(pairs ...string) map[string]string {
		m := map[string]string{"VAULT_ADDR": "https://vault.example:8200"}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		return m
	}
	for _, tt := range []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{"VAULT_TOKEN": canary}, "VAULT_ADDR is not set"},
		{map[string]string{"VAULT_ADDR": "vault.example", "VAULT_TOKEN": canary}, "address is not a URL"},
		{with(), "VAULT_TOKEN is not set"},
		{with("VAULT_TOKEN", " "), "VAULT_TOKEN is not set"},
		{with("OPENCLAW_VAULT_AUTH_METHOD", "token_file"), "VAULT_TOKEN_FILE is not set"},
		{with("OPENCLAW_VAULT_AUTH_METHOD", "jwt", "OPENCLAW_VAULT_AUTH_ROLE", "r"), "OPENCLAW_VAULT_JWT_FILE is not set"},
		{with("OPENCLAW_VAULT_AUTH_METHOD", "kubernetes"), "OPENCLAW_VAULT_AUTH_ROLE is not set"},
		{with("OPENCLAW_VAULT_AUTH_METHOD", "approle"), "VAULT_ROLE_ID is not set"},
		{with("OPENCLAW_VAULT_AUTH_METHOD", "approle", "VAULT_ROLE_ID", "r", "VAULT_SECRET_ID_FILE", "x"), "VAULT_SECRET_ID_FILE is not an absolute path"},
		{with("OPENCLAW_VAULT_AUTH_METHOD", canary), "OPENCLAW_VAULT_AUTH_METHOD is none of"},
		{with("VAULT_TOKEN", canary, "OPENCLAW_VAULT_KV_VERSION", "3"), "OPENCLAW_VAULT_KV_VERSION is neither 1 nor 2"},
	} {
		_, err := answer(t, tt.env, "a/b")
		if !errors.Is(err, backend.ErrInvalidConfig) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), canary) {
			t.Errorf("%v, want %q", err, tt.want)
		}
	}
}

// A request's failures are the provider's when all are, and none of them is an id's own.
func TestAnswerOutage(t *testing.T) {
	t.Parallel()
	of := map[string]error{
		"p/away": backend.ErrUnavailable, "p/slow": context.DeadlineExceeded, "p/login": backend.ErrAuthRequired, "p/locked": backend.ErrLocked,
		"p/none": backend.ErrNotFound, "p/denied": backend.ErrDenied,
	}
	s := openclawexec.Service{Resolve: func(_ context.Context, refs []credref.Ref) []resolver.Outcome {
		out := make([]resolver.Outcome, len(refs))
		for i, ref := range refs {
			out[i] = resolver.Outcome{Ref: ref, Err: of[ref.Provider+"/"+ref.ID]}
			if out[i].Err == nil {
				out[i].Value = resolver.NewValue(resolver.ValueFacts{Secret: backend.NewSecretString("v")})
			}
		}
		return out
	}}
	for _, tt := range []struct {
		ids  []string
		want string // the response; empty: none
	}{
		{[]string{"p/away"}, ""},
		{[]string{"p/away", "p/slow", "p/login", "p/locked"}, ""},
		{[]string{"p/away", "p/ok"}, `{"protocolVersion":1,"values":{"p/ok":"v"},"errors":{"p/away":{"code":"UNAVAILABLE"}}}`},
		{[]string{"p/away", "p/none"}, `{"protocolVersion":1,"values":{},"errors":{"p/away":{"code":"UNAVAILABLE"},"p/none":{"code":"NOT_FOUND"}}}`},
		{[]string{"p/away", "bad"}, `{"protocolVersion":1,"values":{},"errors":{"p/away":{"code":"UNAVAILABLE"},"bad":{"code":"INVALID_ID"}}}`},
		{[]string{"p/denied", "p/none"}, `{"protocolVersion":1,"values":{},"errors":{"p/denied":{"code":"DENIED"},"p/none":{"code":"NOT_FOUND"}}}`},
		{nil, `{"protocolVersion":1,"values":{},"errors":{}}`},
	} {
		a := s.Answer(t.Context(), execproto.Request{IDs: tt.ids})
		if got := strings.TrimSpace(string(a.Response)); got != tt.want || (a.Err == nil) != (tt.want != "") {
			t.Errorf("%v: %s, %v; want %s", tt.ids, got, a.Err, tt.want)
		}
	}
}
