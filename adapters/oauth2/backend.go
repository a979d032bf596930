package oauth2

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/go-jose/go-jose/v4"

	"github.com/credresolve/credresolve/backend"
)

var (
	_ backend.Login            = (*Backend)(nil)
	_ backend.CredentialProber = (*Backend)(nil)
	_ backend.Refresher        = (*Backend)(nil)
	_ backend.Revoker          = (*Backend)(nil)
	_ backend.Prober           = (*Backend)(nil)
	_ backend.Describer        = (*Backend)(nil)
	_ backend.GrantRevoker     = (*Backend)(nil)
)

// Backend asks one authorization server. It is safe for concurrent use.
type Backend struct {
	config Config
	host   backend.Host
	target string // host and port of the server, which errors name
	found  atomic.Pointer[server]
	keys   atomic.Pointer[jose.JSONWebKeySet] // of the server, as last fetched

	mu     sync.Mutex
	http   *http.Client
	logins map[string]*login
	closed bool
}

// New gives a Backend that asks the server of c, which it does not look at yet.
func New(c Config, host backend.Host) (*Backend, error) {
	if err := c.settle(); err != nil {
		return nil, err
	}
	at := c.Issuer
	if at == "" {
		at = c.Endpoints.Token
	}
	u, err := url.Parse(at)
	if err != nil {
		return nil, backend.Errorf(backend.CodeInvalidConfig, "issuer is not a URL")
	}
	return &Backend{config: c, host: host, target: u.Host, logins: map[string]*login{}}, nil
}

// Describe implements backend.Describer.
func (b *Backend) Describe() backend.Description {
	return backend.Description{Detail: b.target + ", grant " + b.config.Grant, Fields: true, Login: b.config.loggedIn()}
}

// Get implements backend.Backend. Where a person has to log in, it says so.
func (b *Backend) Get(ctx context.Context, req backend.Request) (*backend.Credential, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if req.Version != "" {
		return nil, errVersion
	}
	if b.config.loggedIn() {
		return nil, b.remedied(errNoLogin, req)
	}
	if req.ID != "default" {
		return nil, errOnlyID
	}
	form := url.Values{}
	step := "the token of the client"
	if b.config.Grant == grantClient {
		form.Set("grant_type", "client_credentials")
	} else {
		step = "the exchange of the token"
		subject, revision, err := b.config.SubjectToken.Get(ctx)
		if err != nil {
			return nil, err
		}
		form.Set("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange")
		form.Set("subject_token_type", b.config.SubjectTokenType)
		if b.config.RequestedTokenType != "" {
			form.Set("requested_token_type", b.config.RequestedTokenType)
		}
		fill(form, "subject_token", subject)
		form.Set("subject_token", strings.TrimSpace(form.Get("subject_token"))) // a file may end a line after it
		g, refusal, err := b.exchange(ctx, step, b.scoped(form), "", nil)
		if refusal == "invalid_grant" || refusal == "invalid_request" { // RFC 8693, 2.2.2: a subject token that is not valid
			b.config.SubjectToken.Reject(revision)
		}
		if err != nil {
			return nil, err
		}
		return g.Credential, nil
	}
	g, _, err := b.exchange(ctx, step, b.scoped(form), "", nil)
	if err != nil {
		return nil, err
	}
	return g.Credential, nil
}

// fill puts a secret into a form.
func fill(form url.Values, name string, secret backend.Secret) {
	_ = secret.Use(func(text []byte) error {
		form.Set(name, string(text))
		return nil
	})
}

// scoped adds to form what a token is wanted for.
func (b *Backend) scoped(form url.Values) url.Values {
	for name, v := range map[string]string{
		"scope": strings.Join(b.config.Scopes, " "), "audience": b.config.Audience, "resource": b.config.Resource,
	} {
		if v != "" {
			form.Set(name, v)
		}
	}
	return form
}

// Refresh implements backend.Refresher (RFC 6749, 6). A refresh token may be spent by it even if no answer came.
func (b *Backend) Refresh(ctx context.Context, req backend.Request, have *backend.Grant) (*backend.Grant, error) {
	if !b.config.loggedIn() {
		c, err := b.Get(ctx, req)
		if err != nil {
			return nil, err
		}
		return &backend.Grant{Credential: c}, nil
	}
	if req.Version != "" {
		return nil, errVersion
	}
	if have.Refresh.IsZero() {
		return nil, b.remedied(errNoRefresh, req)
	}
	form := url.Values{"grant_type": {"refresh_token"}}
	if b.config.Resource != "" {
		form.Set("resource", b.config.Resource)
	}
	fill(form, "refresh_token", have.Refresh)
	g, refusal, err := b.exchange(ctx, "the refresh", form, "", have)
	var known *backend.Error
	if isOfClient(refusal) && errors.As(err, &known) {
		// What the client shows is wrong, not the refresh token: no login would mend that.
		return nil, &backend.Error{Code: backend.CodeDenied, Reason: known.Reason, Remedy: known.Remedy}
	}
	if code := backend.CodeOf(err); refusal == "" && (code == backend.CodeAuthRequired || code == backend.CodeExpired) && errors.As(err, &known) {
		// Of the provider that the client's secret comes from, or of a server that does not say what it refuses: the refresh token
		// may be good.
		return nil, &backend.Error{Code: backend.CodeUnavailable, Reason: known.Reason, Remedy: known.Remedy}
	}
	return g, b.remedied(err, req)
}

// Revoke implements backend.Revoker (RFC 7009) for the access token of have. A token that has ended already is no error.
func (b *Backend) Revoke(ctx context.Context, _ backend.Request, have *backend.Credential) error {
	return b.revoke(ctx, have.Secret, "access_token")
}

// RevokeGrant ends a grant: with its refresh token a server ends the access tokens too.
func (b *Backend) RevokeGrant(ctx context.Context, _ backend.Request, have *backend.Grant) error {
	if have.Refresh.IsZero() {
		return b.revoke(ctx, have.Credential.Secret, "access_token")
	}
	return b.revoke(ctx, have.Refresh, "refresh_token")
}

func (b *Backend) revoke(ctx context.Context, token backend.Secret, hint string) error {
	s, err := b.server(ctx)
	if err != nil {
		return err
	}
	if s.Revocation == "" {
		return errNoRevoke
	}
	form := url.Values{"token_type_hint": {hint}}
	fill(form, "token", token)
	r, err := b.post(ctx, "the revocation", s.Revocation, form)
	if err != nil {
		return err
	}
	if r.status != http.StatusOK && r.status != http.StatusNoContent {
		_, err := b.failure("the revocation", r)
		return err
	}
	return nil
}

// ProbeCredential implements backend.CredentialProber: by introspection (RFC 7662), and for a client without credentials, which
// may not ask that, by the user info of OpenID Connect.
func (b *Backend) ProbeCredential(ctx context.Context, _ backend.Request, have *backend.Credential) error {
	s, err := b.server(ctx)
	if err != nil {
		return err
	}
	switch {
	case s.Introspection != "" && b.config.ClientAuth != authNone:
		return b.introspect(ctx, s.Introspection, have.Secret)
	case s.UserInfo != "" && (hasScope(strings.Fields(have.Metadata[aboutScope]), "openid") || hasScope(b.config.Scopes, "openid")):
		return b.userInfo(ctx, s.UserInfo, have.Secret)
	}
	return errNoProbe
}

func (b *Backend) introspect(ctx context.Context, address string, token backend.Secret) error {
	const step = "the introspection"
	form := url.Values{"token_type_hint": {"access_token"}}
	fill(form, "token", token)
	r, err := b.post(ctx, step, address, form)
	if err != nil {
		return err
	}
	defer clear(r.body)
	if r.status != http.StatusOK {
		_, err := b.failure(step, r)
		return err
	}
	var answer struct {
		Active *bool `json:"active"`
	}
	switch {
	case !r.json || json.Unmarshal(r.body, &answer) != nil || answer.Active == nil:
		return b.garbled(step, "the answer does not say whether the token is active")
	case !*answer.Active:
		return errEnded
	}
	return nil
}

func (b *Backend) userInfo(ctx context.Context, address string, token backend.Secret) error {
	const step = "the request for user info"
	req, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		return b.garbled(step, "the address of the endpoint is malformed")
	}
	_ = token.Use(func(text []byte) error {
		req.Header.Set("Authorization", "Bearer "+string(text))
		return nil
	})
	r, err := b.send(ctx, step, req)
	if err != nil {
		return err
	}
	defer clear(r.body)
	switch r.status {
	case http.StatusOK:
		return nil
	case http.StatusUnauthorized:
		return errEnded
	}
	_, err = b.failure(step, r)
	return err
}

// Probe implements backend.Prober: the server is reached, and without an issuer nothing is asked.
func (b *Backend) Probe(ctx context.Context) error {
	_, err := b.server(ctx)
	return err
}

// Close ends the logins that are under way.
func (b *Backend) Close() error {
	b.mu.Lock()
	logins := b.logins
	b.logins, b.closed = map[string]*login{}, true
	hc := b.http
	b.mu.Unlock()
	for _, l := range logins {
		l.end(backend.LoginCancelled, "")
	}
	if hc != nil {
		hc.CloseIdleConnections()
	}
	return nil
}

func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
