package oauth2_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/credresolve/credresolve/adapters/oauth2"
	"github.com/credresolve/credresolve/backend"
)

// secretParameters are those of requests whose values nobody may see.
var secretParameters = []string{"client_secret", "client_assertion", "code", "code_verifier", "device_code", "refresh_token", "subject_token", "token"}

// leaky is an authorization server that notes each secret that it is sent or gives, and where it fails says all it knows.
type leaky struct {
	*httptest.Server

	mu      sync.Mutex
	secrets map[string]string // what each is
	kinds   map[string]bool   // that were there
	path    string            // where it fails
	fault   string            // how; empty: it does not
	n       int
}

func newLeaky(t *testing.T) *leaky {
	p := &leaky{secrets: map[string]string{}, kinds: map[string]bool{}}
	p.Server = httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(p.Close)
	return p
}

func (p *leaky) serve(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	said := []string{"gossip-c4nary"}
	p.secrets[said[0]] = "what a server says beside"
	note := func(what, value string) {
		if value != "" {
			p.secrets[value], p.kinds[what] = what, true
			said = append(said, value)
		}
	}
	for _, name := range secretParameters {
		note(name, r.FormValue(name))
	}
	if _, secret, ok := r.BasicAuth(); ok {
		plain, _ := url.QueryUnescape(secret)
		note("client secret", plain)
		note("client secret, encoded", strings.TrimPrefix(r.Header.Get("Authorization"), "Basic "))
	}
	note("bearer token", strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	w.Header().Set("Content-Type", "application/json")
	if p.fault != "" && p.path == r.URL.Path {
		all := strings.Join(said, " ")
		body, status := map[string]any{"error": "invalid_grant", "error_description": all, "error_uri": "https://x/?" + all}, http.StatusBadRequest
		switch p.fault {
		case "refuses the client":
			body["error"], status = "invalid_client", http.StatusUnauthorized
		case "has an error of its own":
			body["error"] = said[len(said)-1]
		case "is down":
			body, status = map[string]any{"message": all}, http.StatusServiceUnavailable
		case "redirects":
			w.Header().Set("Location", p.URL+"/?"+url.Values{"all": said}.Encode())
			status = http.StatusTemporaryRedirect
		case "is no server of tokens":
			w.Header().Set("Content-Type", all)
			status = http.StatusOK
		case "gives what is no token":
			body, status = map[string]any{"access_token": all + "\n", "token_type": all, "user_code": all, "issuer": all, "active": all, "keys": all}, http.StatusOK
		}
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body)
		return
	}
	p.n++
	give := func(what string) string {
		value := fmt.Sprintf("%s-%d-c4nary", what, p.n)
		p.secrets[value], p.kinds[what] = what, true
		return value
	}
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		_ = json.NewEncoder(w).Encode(map[string]any{
			"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token", "device_authorization_endpoint": p.URL + "/device",
			"revocation_endpoint": p.URL + "/revoke", "introspection_endpoint": p.URL + "/introspect", "userinfo_endpoint": p.URL + "/userinfo",
		})
	case "/device":
		_ = json.NewEncoder(w).Encode(map[string]any{"device_code": give("device"), "user_code": "WDJB-MJHT", "verification_uri": "https://login.example/device", "interval": 1})
	case "/token":
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": give("access"), "refresh_token": give("refresh"), "id_token": give("id"), "token_type": "Bearer", "expires_in": 3600})
	default:
		_, _ = io.WriteString(w, `{"active":true}`)
	}
}

// witness keeps all that a program may print of what it is given.
type witness struct {
	mu   sync.Mutex
	text bytes.Buffer
	log  *slog.Logger
}

func (w *witness) Write(text []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(text)
}

func newWitness() *witness {
	w := &witness{}
	w.log = slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: slog.Level(-1000), AddSource: true}))
	return w
}

// see prints values in each way, and logs them.
func (w *witness) see(values ...any) {
	for _, v := range values {
		fmt.Fprintf(w, "%v\n%+v\n%#v\n%s\n%q\n%x\n", v, v, v, v, v, v)
		text, err := json.Marshal(v)
		fmt.Fprintf(w, "%s %v\n", text, err)
		w.log.Log(context.Background(), slog.Level(-1000), "seen", "v", v)
		if err, ok := v.(error); ok {
			w.see(backend.CodeOf(err), err.Error())
		}
	}
}

func (w *witness) tells(t *testing.T, secrets map[string]string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	text := w.text.String()
	for value, what := range secrets {
		for _, form := range []string{value, url.QueryEscape(value), base64.StdEncoding.EncodeToString([]byte(value)), fmt.Sprintf("%x", value)} {
			if at := strings.Index(text, form); at >= 0 {
				t.Errorf("%s is told: …%s…", what, text[max(0, at-200):min(len(text), at+len(form)+50)])
				break
			}
		}
	}
}

// What is printed, logged, or told by an error holds no code, token, verifier, assertion or secret of the client, whatever the flow,
// and however the server fails in it.
func TestNothingSecretIsTold(t *testing.T) { // not in parallel: it takes the program's own logs
	w := newWitness()
	was, flags, out := slog.Default(), log.Flags(), log.Writer()
	slog.SetDefault(w.log)
	defer func() { slog.SetDefault(was); log.SetOutput(out); log.SetFlags(flags) }()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	clientKey := pemOf(t, "PRIVATE KEY", der, err)
	var mu sync.Mutex
	var servers []*leaky
	t.Run("flows", func(t *testing.T) { // all have ended when it does
		for _, fault := range []string{"", "refuses the grant", "refuses the client", "has an error of its own", "is down", "redirects", "is no server of tokens", "gives what is no token"} {
			t.Run("of a server that "+fault, func(t *testing.T) {
				t.Parallel()
				p := everyFlow(t, w, clientKey, fault)
				mu.Lock()
				servers = append(servers, p)
				mu.Unlock()
			})
		}
	})
	for _, what := range []string{"code", "code_verifier", "client_assertion", "client_secret", "device_code", "refresh_token", "subject_token", "token", "access", "refresh", "id", "client secret", "bearer token"} {
		if !slices.ContainsFunc(servers, func(p *leaky) bool { return p.kinds[what] }) {
			t.Errorf("no %s was there to be told", what)
		}
	}
	for _, p := range servers {
		w.tells(t, p.secrets)
	}
}

// everyFlow runs each flow against a server that has a fault at each of its endpoints in turn.
func everyFlow(t *testing.T, w *witness, clientKey, fault string) *leaky {
	p := newLeaky(t)
	p.secrets[clientKey], p.secrets["client-secret-c4nary"], p.secrets["subject-c4nary"] = "key", "client secret", "subject token"
	p.secrets["old-refresh-c4nary"], p.secrets["old-access-c4nary"] = "refresh token", "access token"
	p.secrets[strings.Split(clientKey, "\n")[1]] = "key"

	proofs := map[string]func(*oauth2.Config){
		"basic": func(c *oauth2.Config) { c.ClientSecret = secret("client-secret-c4nary") },
		"post":  func(c *oauth2.Config) { c.ClientAuth, c.ClientSecret = "post", secret("client-secret-c4nary") },
		"key":   func(c *oauth2.Config) { c.ClientKey = secret(clientKey) },
	}
	end := func(b *oauth2.Backend, s backend.LoginState) *backend.Grant {
		s = outcome(t, b, s.State)
		w.see(s, s.Message)
		return s.Grant
	}
	code := func(b *oauth2.Backend) (*backend.Grant, error) {
		s, err := b.StartLogin(t.Context(), me, backend.LoginOptions{})
		w.see(s, err)
		if err != nil {
			return nil, err
		}
		u, err := url.Parse(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.Get(u.Query().Get("redirect_uri") + "?code=code-c4nary&state=" + s.State)
		if err != nil {
			t.Fatal(err)
		}
		page, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		w.see(string(page), res.Header, err)
		return end(b, s), nil
	}
	device := func(b *oauth2.Backend) (*backend.Grant, error) {
		s, err := b.StartLogin(t.Context(), me, backend.LoginOptions{Device: true})
		w.see(s, err)
		if err != nil {
			return nil, err
		}
		if fault == "is down" || fault == "redirects" || strings.HasPrefix(fault, "is no") || strings.HasPrefix(fault, "gives") { // it would ask again for ten minutes
			time.Sleep(1500 * time.Millisecond)
			w.see(b.CancelLogin(t.Context(), s.State))
		}
		return end(b, s), nil
	}
	have := func() *backend.Grant {
		return &backend.Grant{
			Credential: &backend.Credential{Secret: backend.NewSecretString("old-access-c4nary"), Metadata: map[string]string{"scope": "openid"}},
			Refresh:    backend.NewSecretString("old-refresh-c4nary"),
		}
	}
	flows := map[string]struct {
		grant string
		paths []string
		run   func(*oauth2.Backend) (*backend.Grant, error)
	}{
		"code":   {"", []string{"/.well-known/openid-configuration", "/token"}, code},
		"device": {"device_code", []string{"/device", "/token"}, device},
		"client credentials": {"client_credentials", []string{"/token"}, func(b *oauth2.Backend) (*backend.Grant, error) {
			c, err := b.Get(t.Context(), robot)
			return &backend.Grant{Credential: c}, err
		}},
		"token exchange": {"token_exchange", []string{"/token"}, func(b *oauth2.Backend) (*backend.Grant, error) {
			c, err := b.Get(t.Context(), robot)
			return &backend.Grant{Credential: c}, err
		}},
		"refresh": {"", []string{"/token"}, func(b *oauth2.Backend) (*backend.Grant, error) { return b.Refresh(t.Context(), me, have()) }},
		"revocation": {"", []string{"/revoke"}, func(b *oauth2.Backend) (*backend.Grant, error) {
			return have(), b.RevokeGrant(t.Context(), me, have())
		}},
		"introspection": {"", []string{"/introspect"}, func(b *oauth2.Backend) (*backend.Grant, error) {
			return have(), b.ProbeCredential(t.Context(), me, have().Credential)
		}},
		"user info": {"user", []string{"/userinfo"}, func(b *oauth2.Backend) (*backend.Grant, error) {
			return have(), b.ProbeCredential(t.Context(), me, have().Credential)
		}},
	}
	for flow, f := range flows {
		for proof, prove := range proofs {
			for _, path := range f.paths {
				if flow == "device" && proof != "basic" && path == "/token" { // each takes a second
					continue
				}
				c := oauth2.Config{Issuer: p.URL, Grant: f.grant, ClientID: "robot", Timeout: 20 * time.Second}
				if c.Grant == "user" {
					c.Grant = ""
				} else {
					prove(&c)
				}
				if c.Grant == "token_exchange" {
					c.SubjectToken = secret("subject-c4nary")
				}
				p.mu.Lock()
				p.path, p.fault = path, fault
				p.mu.Unlock()
				b := open(t, c)
				w.see(b, c)
				g, err := f.run(b)
				w.see(g, err)
				if f.grant != "" && flow != "device" { // no login is under way in it
					w.see(b)
				}
				if g != nil {
					w.see(*g)
					if g.Credential != nil {
						w.see(*g.Credential, g.Credential.Metadata, g.Credential.Fields)
					}
				}
				if fault == "" && (err != nil || g == nil || g.Credential == nil) {
					t.Errorf("%s by %s fails: %v", flow, proof, err)
				}
				if fault != "" && err == nil && g != nil && g.Credential != nil && flow != "user info" && flow != "revocation" { // which status 200 says all of
					t.Errorf("%s by %s, where %s %s: no error", flow, proof, path, fault)
				}
			}
		}
	}
	return p
}
