// Package oidctest runs an OpenID provider, github.com/zitadel/oidc, on loopback for tests.
package oidctest

import (
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"html/template"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// The clients that every provider knows.
const (
	Public = "desk" // no secret: code with PKCE, device code, refresh
	Web    = "web"  // the secret WebSecret: code, refresh, token exchange, introspection
	Robot  = "sid1" // the secret RobotSecret: client credentials
	Signer = "signer"

	WebSecret   = "w3b-c4nary"
	RobotSecret = "verysecret" // that of the provider's example

	// Person is the id of the one who logs in, as User with UserPassword.
	Person       = "id1"
	User         = "test-user@localhost"
	UserPassword = "verysecure"
)

var loginPage = template.Must(template.New("login").Parse(`<!doctype html><title>Sign in</title>
<form method="post"><input type="hidden" name="authRequestID" value="{{.}}">
<label>User <input name="username" id="username"></label>
<label>Password <input name="password" id="password" type="password"></label>
<button id="allow">Sign in and allow</button></form>`))

// Options are how a Provider differs from the usual one.
type Options struct {
	TTL          time.Duration    // of access tokens; zero: 5 minutes
	PollInterval time.Duration    // of device codes; zero: a second
	Key          crypto.PublicKey // of Signer
	Form         bool             // a person logs in by a page; else whoever comes is the person, and goes on
	// Before sees each request first; it answers the request itself and reports true, or reports false.
	Before func(http.ResponseWriter, *http.Request) bool
}

// Provider is a running OpenID provider.
type Provider struct {
	Issuer string
	store  *store

	mu    sync.Mutex
	calls map[string]int
}

type store struct {
	*storage.Storage
	o Options
}

// public lets the public client use device codes too, without a secret.
type public struct{ *storage.Client }

func (public) AuthMethod() oidc.AuthMethod { return oidc.AuthMethodNone }
func (public) GrantTypes() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeRefreshToken, oidc.GrantTypeDeviceCode}
}

type signer struct{ *storage.Client }

func (signer) AuthMethod() oidc.AuthMethod { return oidc.AuthMethodPrivateKeyJWT }

// GetClientByClientID implements op.Storage.
func (s *store) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	c, err := s.Storage.GetClientByClientID(ctx, id)
	if plain, ok := c.(*storage.Client); ok {
		switch id {
		case Public:
			return public{plain}, nil
		case Signer:
			return signer{plain}, nil
		}
	}
	return c, err
}

// CreateAccessAndRefreshTokens implements op.Storage: with shorter tokens, and the client of a device code, which the example
// forgets.
func (s *store) CreateAccessAndRefreshTokens(ctx context.Context, r op.TokenRequest, current string) (string, string, time.Time, error) {
	if d, ok := r.(*op.DeviceAuthorizationState); ok {
		r = &storage.AuthRequest{ApplicationID: d.ClientID, UserID: d.Subject, Scopes: d.Scopes}
	}
	id, refresh, ends, err := s.Storage.CreateAccessAndRefreshTokens(ctx, r, current)
	return id, refresh, s.shorten(ends), err
}

// CreateAccessToken implements op.Storage.
func (s *store) CreateAccessToken(ctx context.Context, r op.TokenRequest) (string, time.Time, error) {
	id, ends, err := s.Storage.CreateAccessToken(ctx, r)
	return id, s.shorten(ends), err
}

func (s *store) shorten(ends time.Time) time.Time {
	if sooner := time.Now().Add(s.o.TTL); s.o.TTL > 0 && sooner.Before(ends) {
		return sooner
	}
	return ends
}

// GetKeyByIDAndClientID implements op.Storage: the key of Signer.
func (s *store) GetKeyByIDAndClientID(ctx context.Context, id, client string) (*jose.JSONWebKey, error) {
	if client != Signer || s.o.Key == nil {
		return nil, errors.New("no such key")
	}
	return &jose.JSONWebKey{KeyID: id, Key: s.o.Key, Use: "sig"}, nil
}

// Start runs a provider for the life of the test.
func Start(t testing.TB, o Options) *Provider {
	t.Helper()
	if o.PollInterval == 0 {
		o.PollInterval = time.Second
	}
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(socket.Addr().String())
	p := &Provider{Issuer: "http://localhost:" + port + "/", calls: map[string]int{}}
	clients := map[string]*storage.Client{
		Public: storage.NativeClient(Public, "http://127.0.0.1/callback"),
		Web:    storage.WebClient(Web, WebSecret, "http://127.0.0.1/callback", "http://127.0.0.1:1/callback"),
		Signer: storage.NativeClient(Signer, "http://127.0.0.1/callback"),
	}
	p.store = &store{storage.NewStorageWithClients(storage.NewUserStore(p.Issuer), clients), o}
	provider, err := op.NewProvider(&op.Config{
		CryptoKey: sha256.Sum256([]byte("test")), CryptoKeyId: "k", CodeMethodS256: true, AuthMethodPost: true,
		AuthMethodPrivateKeyJWT: true, GrantTypeRefreshToken: true,
		DeviceAuthorization: op.DeviceAuthorizationConfig{Lifetime: time.Minute, PollInterval: o.PollInterval, UserFormPath: "/device", UserCode: op.UserCodeBase20},
	}, p.store, op.StaticIssuer(p.Issuer), op.WithAllowInsecure(), op.WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil))))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	issuer, callback := op.NewIssuerInterceptor(provider.IssuerFromRequest), op.AuthCallbackURL(provider)
	mux.Handle("/login/username", issuer.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, name, password := r.FormValue("authRequestID"), User, UserPassword
		if o.Form {
			if r.Method != http.MethodPost {
				_ = loginPage.Execute(w, id)
				return
			}
			name, password = r.PostFormValue("username"), r.PostFormValue("password")
		}
		if err := p.store.CheckUsernamePassword(name, password, id); err != nil {
			http.Error(w, "no such login", http.StatusBadRequest)
			return
		}
		http.Redirect(w, r, callback(r.Context(), id), http.StatusFound)
	}))
	mux.Handle("/", provider)
	server := &httptest.Server{Listener: socket, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.calls[r.URL.Path]++
		p.mu.Unlock()
		if o.Before == nil || !o.Before(w, r) {
			mux.ServeHTTP(w, r)
		}
	})}}
	server.Start()
	t.Cleanup(server.Close)
	return p
}

// Calls is how many requests came to a path such as /oauth/token.
func (p *Provider) Calls(path string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[path]
}

// Approve lets the person accept a device's code, and Deny refuse it.
func (p *Provider) Approve(ctx context.Context, userCode string) error {
	return p.store.CompleteDeviceAuthorization(ctx, userCode, Person)
}

// Deny refuses a device's code.
func (p *Provider) Deny(ctx context.Context, userCode string) error {
	return p.store.DenyDeviceAuthorization(ctx, userCode)
}

// Browse opens address as a browser does, with cookies and redirects, and gives the status and text of the page where it
// ended. With stop it does not go to an address that begins so, and gives that address.
func Browse(t testing.TB, address, stop string) (status int, text string) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	last := ""
	browser := &http.Client{Jar: jar, Timeout: 20 * time.Second, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if last = r.URL.String(); stop != "" && strings.HasPrefix(last, stop) {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	res, err := browser.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if stop != "" {
		return res.StatusCode, last
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}
