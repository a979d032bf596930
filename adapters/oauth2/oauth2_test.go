package oauth2_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/credresolve/credresolve/adapters/oauth2"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/oidctest"
)

func open(t *testing.T, c oauth2.Config) *oauth2.Backend {
	t.Helper()
	b, err := oauth2.New(c, backend.Host{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func secret(text string) backend.Source { return backend.Literal(backend.NewSecretString(text)) }

func desk(p *oidctest.Provider) oauth2.Config {
	return oauth2.Config{Issuer: p.Issuer, ClientID: oidctest.Public, Scopes: []string{"openid", "offline_access", "profile"}}
}

var me = backend.Request{ID: "me"}

// start begins a login.
func start(t *testing.T, b *oauth2.Backend, o backend.LoginOptions) backend.LoginState {
	t.Helper()
	s, err := b.StartLogin(t.Context(), me, o)
	if err != nil {
		t.Fatal(err)
	}
	if s.Status != backend.LoginPending || s.URL == "" || len(s.State) < 43 || s.Grant != nil || time.Until(s.Expires) <= 0 {
		t.Fatalf("%+v", s)
	}
	return s
}

// outcome waits for the end of a login.
func outcome(t *testing.T, b *oauth2.Backend, state string) backend.LoginState {
	t.Helper()
	for range 400 {
		s, err := b.PollLogin(t.Context(), state)
		if err != nil {
			t.Fatal(err)
		}
		if s.Status != backend.LoginPending {
			return s
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("the login did not end")
	return backend.LoginState{}
}

// logIn logs the person in.
func logIn(t *testing.T, b *oauth2.Backend) *backend.Grant {
	t.Helper()
	s := start(t, b, backend.LoginOptions{})
	if status, text := oidctest.Browse(t, s.URL, ""); status != http.StatusOK || !strings.Contains(text, "You are logged in") {
		t.Fatalf("the page: %d %s", status, text)
	}
	done := outcome(t, b, s.State)
	if done.Status != backend.LoginSuccess || done.Grant == nil {
		t.Fatalf("%+v", done)
	}
	return done.Grant
}

func fails(t *testing.T, err, want error, words ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%v, want %v", err, want)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
	for _, never := range []string{"c4nary", "code=", "state=", "eyJ"} {
		if strings.Contains(err.Error(), never) {
			t.Errorf("%q holds %q", err, never)
		}
	}
}

func TestLoginByBrowser(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{TTL: 3 * time.Second})
	b := open(t, desk(p))
	_, err := b.Get(t.Context(), me)
	fails(t, err, backend.ErrAuthRequired, "log in again")
	g := logIn(t, b)
	c := g.Credential
	if c.Type != backend.TypeOAuth2 || c.Secret.IsZero() || !c.Fields["access_token"].Equal(c.Secret) || c.Fields["id_token"].IsZero() {
		t.Errorf("%+v", c)
	}
	if left := time.Until(c.Expires); left <= 0 || left > 3*time.Second {
		t.Errorf("it lives for %v", left)
	}
	if g.Refresh.IsZero() || g.About["issuer"] != p.Issuer || g.About["subject"] != oidctest.Person || c.Metadata["subject"] != oidctest.Person {
		t.Errorf("%+v %v", g.About, c.Metadata)
	}
	if _, there := c.Fields["refresh_token"]; there {
		t.Error("the refresh token is handed out")
	}

	next, err := b.Refresh(t.Context(), me, g)
	if err != nil || next.Refresh.Equal(g.Refresh) || next.Credential.Secret.Equal(c.Secret) || next.About["subject"] != oidctest.Person {
		t.Fatalf("%+v, %v", next, err)
	}
	_, err = b.Refresh(t.Context(), me, g) // its token is spent
	fails(t, err, backend.ErrAuthRequired, "the refresh: invalid_grant", "log in again")
	if err := b.RevokeGrant(t.Context(), me, next); err != nil {
		t.Fatal(err)
	}
	_, err = b.Refresh(t.Context(), me, next)
	fails(t, err, backend.ErrAuthRequired, "invalid_grant")
	_, err = b.Refresh(t.Context(), me, &backend.Grant{Credential: c})
	fails(t, err, backend.ErrAuthRequired, "no refresh token")
}

// An answer counts once, for its own login, and only from the server that was asked.
func TestAnswersThatAreNotTaken(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	b := open(t, desk(p))
	submit := func(s backend.LoginState, address string) (backend.LoginState, error) {
		return b.SubmitLogin(t.Context(), s.State, map[string]backend.Secret{"url": backend.NewSecretString(address)})
	}
	one, two := start(t, b, backend.LoginOptions{NoRedirect: true}), start(t, b, backend.LoginOptions{NoRedirect: true})
	_, first := oidctest.Browse(t, one.URL, "http://127.0.0.1:1/")
	u, err := url.Parse(first)
	if err != nil || u.Query().Get("code") == "" {
		t.Fatalf("the browser ended at %s: %v", first, err)
	}
	_, err = submit(two, first)
	fails(t, err, backend.ErrDenied, "another login")
	forged := *u
	q := u.Query()
	q.Set("state", "c4nary")
	forged.RawQuery = q.Encode()
	_, err = submit(one, forged.String())
	fails(t, err, backend.ErrDenied, "another login")
	q = u.Query()
	q.Set("iss", "https://evil.example")
	forged.RawQuery = q.Encode()
	_, err = submit(one, forged.String())
	fails(t, err, backend.ErrDenied, "another issuer")
	for _, text := range []string{"", "c4nary", "https://x/?code=", "http://%zz", strings.Repeat("c4nary", 10_000)} {
		_, err = submit(one, text)
		fails(t, err, backend.ErrUsage)
	}
	_, err = b.SubmitLogin(t.Context(), one.State, map[string]backend.Secret{"code": backend.NewSecretString("x")})
	fails(t, err, backend.ErrUsage)
	done, err := submit(one, first)
	if err != nil || done.Status != backend.LoginSuccess || done.Grant == nil {
		t.Fatalf("%+v, %v", done, err)
	}
	if again, err := b.PollLogin(t.Context(), one.State); err != nil || again.Grant != nil || again.Status != backend.LoginSuccess {
		t.Errorf("%+v, %v", again, err)
	}
	_, err = submit(one, first)
	fails(t, err, backend.ErrDenied)
	if err := b.CancelLogin(t.Context(), two.State); err != nil {
		t.Fatal(err)
	}
	if s := outcome(t, b, two.State); s.Status != backend.LoginCancelled || s.Grant != nil || s.URL != "" {
		t.Errorf("%+v", s)
	}
	_, err = b.PollLogin(t.Context(), "c4nary")
	fails(t, err, backend.ErrNotFound)

	// A person who refuses.
	three := start(t, b, backend.LoginOptions{NoRedirect: true})
	s, err := submit(three, "http://127.0.0.1:1/callback?error=access_denied&error_description=c4nary&state="+three.State)
	if err != nil || s.Status != backend.LoginError || !strings.Contains(s.Message, "access_denied") || strings.Contains(s.Message, "c4nary") {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestTheListenerOfALogin(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	b := open(t, desk(p))
	s := start(t, b, backend.LoginOptions{})
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	back := u.Query().Get("redirect_uri")
	if !strings.HasPrefix(back, "http://127.0.0.1:") || u.Query().Get("code_challenge_method") != "S256" || u.Query().Get("nonce") == "" {
		t.Errorf("%s", s.URL)
	}
	get := func(address string) (int, string) {
		res, err := http.Get(address) //nolint:gosec // of this test
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if cache := res.Header.Get("Cache-Control"); cache != "no-store" {
			t.Errorf("Cache-Control %q", cache)
		}
		return res.StatusCode, address
	}
	for _, query := range []string{"?code=x&state=c4nary", "?error=<script>", ""} {
		if status, at := get(back + query); status != http.StatusBadRequest {
			t.Errorf("%s: %d", at, status)
		}
	}
	if status, _ := get(back + "/elsewhere"); status != http.StatusNotFound {
		t.Errorf("another path: %d", status)
	}
	if now, err := b.PollLogin(t.Context(), s.State); err != nil || now.Status != backend.LoginPending {
		t.Errorf("%+v, %v", now, err)
	}
	if err := b.CancelLogin(t.Context(), s.State); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		res, err := http.Get(back) //nolint:gosec // of this test
		if err != nil {
			return // the port is closed
		}
		_ = res.Body.Close()
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("the port stays open after the login")
}

// A login that is cancelled while its code is exchanged gives nothing.
func TestCancelDuringTheExchange(t *testing.T) {
	t.Parallel()
	asked, go1 := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	p := oidctest.Start(t, oidctest.Options{Before: func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/oauth/token" && once.CompareAndSwap(false, true) {
			close(asked)
			<-go1
		}
		return false
	}})
	b := open(t, desk(p))
	s := start(t, b, backend.LoginOptions{})
	page := make(chan int, 1)
	go func() {
		status, _ := oidctest.Browse(t, s.URL, "")
		page <- status
	}()
	<-asked
	if err := b.CancelLogin(t.Context(), s.State); err != nil {
		t.Fatal(err)
	}
	close(go1)
	if status := <-page; status != http.StatusBadRequest {
		t.Errorf("the page: %d", status)
	}
	if end := outcome(t, b, s.State); end.Status != backend.LoginCancelled || end.Grant != nil {
		t.Errorf("%+v", end)
	}
}

func TestLoginByDevice(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	c := desk(p)
	c.Grant = "device_code"
	b := open(t, c)
	s := start(t, b, backend.LoginOptions{})
	if s.UserCode == "" || s.Interval != time.Second || time.Until(s.Expires) > time.Minute {
		t.Errorf("%+v", s)
	}
	if err := p.Approve(t.Context(), s.UserCode); err != nil {
		t.Fatal(err)
	}
	done := outcome(t, b, s.State)
	if done.Status != backend.LoginSuccess || done.Grant.Refresh.IsZero() || done.UserCode != "" {
		t.Fatalf("%+v", done)
	}
	if _, err := b.Refresh(t.Context(), me, done.Grant); err != nil {
		t.Error(err)
	}
	s = start(t, b, backend.LoginOptions{})
	if err := p.Deny(t.Context(), s.UserCode); err != nil {
		t.Fatal(err)
	}
	if end := outcome(t, b, s.State); end.Status != backend.LoginError || !strings.Contains(end.Message, "access_denied") {
		t.Errorf("%+v", end)
	}
	s = start(t, b, backend.LoginOptions{})
	_, err := b.SubmitLogin(t.Context(), s.State, map[string]backend.Secret{"url": backend.NewSecretString("http://127.0.0.1/?code=x")})
	fails(t, err, backend.ErrUsage)
}

func TestClientCredentials(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	config := oauth2.Config{Issuer: p.Issuer, Grant: "client_credentials", ClientID: oidctest.Robot, ClientSecret: secret(oidctest.RobotSecret), Scopes: []string{"openid"}}
	for _, how := range []string{"basic", "post"} {
		config.ClientAuth = how
		c, err := open(t, config).Get(t.Context(), backend.Request{ID: "default"})
		if err != nil || c.Secret.IsZero() || c.Expires.IsZero() {
			t.Errorf("%s: %+v, %v", how, c, err)
		}
	}
	_, err := open(t, config).Get(t.Context(), me)
	fails(t, err, backend.ErrInvalidID, `"default"`)
	_, err = open(t, config).StartLogin(t.Context(), me, backend.LoginOptions{})
	fails(t, err, errors.ErrUnsupported)

	var rejected atomic.Int32
	config.ClientSecret = backend.NewSource(func(context.Context) (backend.Secret, string, error) {
		return backend.NewSecretString("wrong-c4nary"), "r1", nil
	}, func(revision string) {
		if revision == "r1" {
			rejected.Add(1)
		}
	})
	_, err = open(t, config).Get(t.Context(), backend.Request{ID: "default"})
	if err == nil {
		t.Fatal("a wrong secret is accepted")
	}
	fails(t, err, err, "client")
}

func TestTokenExchange(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{})
	web := desk(p)
	have := logIn(t, open(t, web))
	config := oauth2.Config{
		Issuer: p.Issuer, Grant: "token_exchange", ClientID: oidctest.Web, ClientSecret: secret(oidctest.WebSecret),
		SubjectToken: backend.Literal(have.Credential.Secret), SubjectTokenType: "access_token", RequestedTokenType: "access_token", Scopes: []string{"openid"},
	}
	c, err := open(t, config).Get(t.Context(), backend.Request{ID: "default"})
	if err != nil || c.Secret.Equal(have.Credential.Secret) {
		t.Fatalf("%+v, %v", c, err)
	}
	config.SubjectToken = secret("c4nary")
	_, err = open(t, config).Get(t.Context(), backend.Request{ID: "default"})
	if err == nil {
		t.Fatal("a wrong token is accepted")
	}
	fails(t, err, err, "the exchange of the token")
}

func TestProofByKey(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	p := oidctest.Start(t, oidctest.Options{Key: key.Public()})
	c := desk(p)
	c.ClientID, c.ClientKeyID = oidctest.Signer, "k1"
	c.ClientKey = secret(string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	if g := logIn(t, open(t, c)); g.Credential.Secret.IsZero() {
		t.Error("no token")
	}
	c.ClientKey = secret("c4nary")
	b := open(t, c)
	s := start(t, b, backend.LoginOptions{})
	oidctest.Browse(t, s.URL, "")
	if end := outcome(t, b, s.State); end.Status != backend.LoginError || !strings.Contains(end.Message, "client_key") {
		t.Errorf("%+v", end)
	}
}

// What a server does that lies, fails or never answers is bounded, and told without its words.
func TestServersThatMisbehave(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		path   string
		answer http.HandlerFunc
		want   error
		words  string
	}{
		"another issuer": {"/.well-known/openid-configuration", say(200, `{"issuer":"https://evil.example","token_endpoint":"https://evil.example/token"}`), backend.ErrUnavailable, "another issuer"},
		"a file":         {"/.well-known/openid-configuration", say(200, `{"issuer":"%s","token_endpoint":"file:///etc/passwd"}`), backend.ErrUnavailable, "not https"},
		"plain http":     {"/.well-known/openid-configuration", say(200, `{"issuer":"%s","token_endpoint":"http://evil.example/token"}`), backend.ErrUnavailable, "not https"},
		"no discovery":   {"/.well-known/", say(404, "c4nary"), backend.ErrUnavailable, "nothing is found"},
		"a redirect": {"/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://evil.example/c4nary", http.StatusFound)
		}, backend.ErrUnavailable, "redirects"},
		"no JSON": {"/.well-known/openid-configuration", say(200, "c4nary"), backend.ErrUnavailable, "JSON"},
		"50 MB": {"/oauth/token", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"access_token":"`)
			part, sent := []byte(strings.Repeat("c4nary-", 1<<16)), 0
			for sent < 50<<20 {
				n, err := w.Write(part)
				if sent += n; err != nil {
					return
				}
			}
			t.Errorf("all of its %d bytes were taken", sent)
		}, backend.ErrUnavailable, "longer than 1 MiB"},
		"no token":         {"/oauth/token", say(200, `{"secret":"c4nary"}`), backend.ErrUnavailable, "no token"},
		"its own code":     {"/oauth/token", say(400, `{"error":"c4nary","error_description":"c4nary"}`), backend.ErrUnavailable, ""},
		"throttled":        {"/oauth/token", say(429, "c4nary"), backend.ErrThrottled, "too many"},
		"down":             {"/oauth/token", say(503, "c4nary"), backend.ErrUnavailable, "503"},
		"never, discovery": {"/.well-known/", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, backend.ErrUnavailable, "discovery: no answer in time"},
		"a byte a second": {"/oauth/token", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.Copy(io.Discard, r.Body)
			for _, one := range []byte(`{"access_token":"c4nary","token_type":"Bearer","expires_in":3600}`) {
				_, _ = w.Write([]byte{one})
				_ = http.NewResponseController(w).Flush()
				select {
				case <-time.After(time.Second):
				case <-r.Context().Done():
					return
				}
			}
		}, backend.ErrUnavailable, "the token of the client: no answer in time"},
		"half of it": {"/oauth/token", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `{"access_token":"c4nary"`)
		}, backend.ErrUnavailable, "the connection ended before the answer did"},
		"never": {"/oauth/token", func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body); <-r.Context().Done() }, backend.ErrUnavailable, "no answer in time"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := oidctest.Start(t, oidctest.Options{Before: func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasPrefix(r.URL.Path, tt.path) {
					return false
				}
				r.Host = "localhost:" + r.Host[strings.LastIndex(r.Host, ":")+1:]
				tt.answer(w, r)
				return true
			}})
			b := open(t, oauth2.Config{
				Issuer: p.Issuer, Grant: "client_credentials", ClientID: oidctest.Robot, ClientSecret: secret(oidctest.RobotSecret), Timeout: 2 * time.Second,
			})
			_, err := b.Get(t.Context(), backend.Request{ID: "default"})
			if name == "its own code" {
				tt.want = err // of no kind that a program can act on
			}
			fails(t, err, tt.want, tt.words)
		})
	}
}

// say answers with a status and a text, in which %s is the issuer.
func say(status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = fmt.Fprint(w, strings.Replace(text, "%s", "http://"+r.Host+"/", 1))
	}
}
