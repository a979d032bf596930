package oauth2_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/credresolve/credresolve/adapters/oauth2"
	"github.com/credresolve/credresolve/backend"
)

// liar is an OpenID provider that gives whatever ID token it is told.
type liar struct {
	*httptest.Server
	key *rsa.PrivateKey

	mu      sync.Mutex
	idToken string
	tells   bool // it promises to name itself in its answers (RFC 9207)
}

func newLiar(t *testing.T) *liar {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p := &liar{key: key}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/.well-known/openid-configuration":
			_ = json.NewEncoder(w).Encode(map[string]any{
				"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys",
				"id_token_signing_alg_values_supported": []string{"RS256", "HS256", "none"}, "authorization_response_iss_parameter_supported": p.tells,
			})
		case "/keys":
			_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k", Algorithm: "RS256", Use: "sig"}}})
		case "/token":
			_ = json.NewEncoder(w).Encode(map[string]any{"access_token": "access-c4nary", "token_type": "Bearer", "expires_in": 60, "id_token": p.idToken})
		}
	}))
	t.Cleanup(p.Close)
	return p
}

func sign(t *testing.T, alg jose.SignatureAlgorithm, key any, claims map[string]any) string {
	t.Helper()
	text, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, (&jose.SignerOptions{}).WithHeader("kid", "k"))
	if err != nil {
		t.Fatal(err)
	}
	signed, err := s.Sign(text)
	if err != nil {
		t.Fatal(err)
	}
	out, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// begin begins a login, and gives its nonce.
func begin(t *testing.T, b *oauth2.Backend) (state, nonce string) {
	t.Helper()
	s, err := b.StartLogin(t.Context(), me, backend.LoginOptions{NoRedirect: true})
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return s.State, u.Query().Get("nonce")
}

func pasted(query string) map[string]backend.Secret {
	return map[string]backend.Secret{"url": backend.NewSecretString("http://127.0.0.1:1/callback?" + query)}
}

// An ID token that is not of this login, this client, this issuer and this time gives no login (OpenID Connect Core, 3.1.3.7).
func TestIDTokensThatAreNotTaken(t *testing.T) {
	t.Parallel()
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p := newLiar(t)
	b := open(t, oauth2.Config{Issuer: p.URL, ClientID: "desk", ClientSecret: secret("client-c4nary"), Scopes: []string{"openid"}})
	for name, tt := range map[string]struct {
		change map[string]any
		forge  func(claims map[string]any) string // nil: signed as it should be
		good   bool
	}{
		"genuine":                        {good: true},
		"a little too old, by its clock": {change: map[string]any{"exp": time.Now().Add(-20 * time.Second).Unix()}, good: true},
		"for several, with us as party":  {change: map[string]any{"aud": []string{"x", "desk"}, "azp": "desk"}, good: true},
		"to count in a moment":           {change: map[string]any{"nbf": time.Now().Add(20 * time.Second).Unix(), "iat": time.Now().Add(20 * time.Second).Unix()}, good: true},
		"to count much later":            {change: map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}},
		"without an end":                 {change: map[string]any{"exp": nil}},
		"too old":                        {change: map[string]any{"exp": time.Now().Add(-5 * time.Minute).Unix()}},
		"of another issuer":              {change: map[string]any{"iss": "https://evil.example"}},
		"for another client":             {change: map[string]any{"aud": "other"}},
		"for another party":              {change: map[string]any{"aud": []string{"desk", "other"}, "azp": "other"}},
		"of another login":               {change: map[string]any{"nonce": "c4nary"}},
		"of no login":                    {change: map[string]any{"nonce": nil}},
		"for another access token":       {change: map[string]any{"at_hash": "c4nary"}},
		"by another key":                 {forge: func(c map[string]any) string { return sign(t, jose.RS256, other, c) }},
		"by the client's secret": {forge: func(c map[string]any) string {
			return sign(t, jose.HS256, []byte("client-c4nary-client-c4nary-client-c4nary"), c)
		}},
		"unsigned": {forge: func(c map[string]any) string {
			text, _ := json.Marshal(c)
			return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","kid":"k"}`)) + "." + base64.RawURLEncoding.EncodeToString(text) + "."
		}},
		"no token": {forge: func(map[string]any) string { return "c4nary" }},
	} {
		state, nonce := begin(t, b)
		claims := map[string]any{"iss": p.URL, "sub": "alice", "aud": "desk", "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix(), "nonce": nonce}
		maps.Copy(claims, tt.change)
		if tt.forge == nil {
			tt.forge = func(c map[string]any) string { return sign(t, jose.RS256, p.key, c) }
		}
		p.mu.Lock()
		p.idToken = tt.forge(claims)
		p.mu.Unlock()
		s, err := b.SubmitLogin(t.Context(), state, pasted("code=c4nary&state="+state))
		switch {
		case tt.good && (err != nil || s.Status != backend.LoginSuccess || s.Grant.About["subject"] != "alice"):
			t.Errorf("%s: %+v, %v", name, s, err)
		case !tt.good && (err == nil && s.Status != backend.LoginError || s.Grant != nil):
			t.Errorf("%s is taken: %+v, %v", name, s, err)
		}
		if said := s.Message; strings.Contains(said, "c4nary") || strings.Contains(said, "eyJ") || err != nil && strings.Contains(err.Error(), "c4nary") {
			t.Errorf("%s: it says %q, %v", name, said, err)
		}
	}
}

// An answer must come from the issuer that was asked (RFC 9207): with two of them, one cannot pass its code off as the other's.
func TestAnswersOfAnotherIssuer(t *testing.T) {
	t.Parallel()
	p, evil := newLiar(t), newLiar(t)
	p.tells = true
	b := open(t, oauth2.Config{Issuer: p.URL, ClientID: "desk", Scopes: []string{"openid"}})
	for name, query := range map[string]string{"no issuer": "", "another one": "&iss=" + url.QueryEscape(evil.URL)} {
		state, _ := begin(t, b)
		s, err := b.SubmitLogin(t.Context(), state, pasted("code=c4nary&state="+state+query))
		if err == nil && s.Status != backend.LoginError || s.Grant != nil {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
	state, nonce := begin(t, b)
	p.mu.Lock()
	p.idToken = sign(t, jose.RS256, p.key, map[string]any{"iss": p.URL, "sub": "alice", "aud": "desk", "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix(), "nonce": nonce})
	p.mu.Unlock()
	s, err := b.SubmitLogin(t.Context(), state, pasted("code=c4nary&state="+state+"&iss="+url.QueryEscape(p.URL)))
	if err != nil || s.Status != backend.LoginSuccess {
		t.Errorf("its own: %+v, %v", s, err)
	}
}
