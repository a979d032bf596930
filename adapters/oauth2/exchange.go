package oauth2

import (
	"context"
	"encoding/json"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/credresolve/credresolve/backend"
)

// The names of what a grant is kept with.
const (
	aboutIssuer  = "issuer"
	aboutSubject = "subject"
	aboutScope   = "scope"
)

// tokens is a token answer (RFC 6749, 5.1; RFC 8693, 2.2).
type tokens struct {
	Access  string  `json:"access_token"`
	Type    string  `json:"token_type"`
	Refresh string  `json:"refresh_token"`
	ID      string  `json:"id_token"`
	Scope   string  `json:"scope"`
	Expires seconds `json:"expires_in"`
}

// seconds is a number of seconds that some servers write as a text. Zero and less mean that it is not known.
type seconds int64

// UnmarshalJSON implements json.Unmarshaler.
func (s *seconds) UnmarshalJSON(text []byte) error {
	n, err := strconv.ParseFloat(strings.Trim(string(text), `"`), 64)
	if err != nil || n < 1 || math.IsNaN(n) {
		n = 0
	}
	*s = seconds(min(n, 10*365*24*3600))
	return nil
}

// exchange asks the token endpoint. nonce is what an ID token of the answer must have; have is the grant that the answer
// succeeds, nil for a first one.
func (b *Backend) exchange(ctx context.Context, step string, form url.Values, nonce string, have *backend.Grant) (g *backend.Grant, refusal string, err error) {
	s, err := b.server(ctx)
	if err != nil {
		return nil, "", err
	}
	if s.Token == "" {
		return nil, "", errNoEndpoint
	}
	r, err := b.post(ctx, step, s.Token, form)
	if err != nil {
		return nil, "", err
	}
	defer clear(r.body)
	var t tokens
	good := r.json && json.Unmarshal(r.body, &t) == nil && t.Access != ""
	if r.status != http.StatusOK || !good {
		name, err := b.failure(step, r)
		if name == "invalid_client" {
			if revision := b.shown.Load(); revision != nil {
				b.config.ClientSecret.Reject(*revision)
			}
		}
		if r.status == http.StatusOK && name == "" { // some servers tell errors with status 200
			return nil, "", b.garbled(step, "the answer is no token")
		}
		return nil, name, err
	}
	if t.Type != "" && !strings.EqualFold(t.Type, "Bearer") && !strings.EqualFold(t.Type, "N_A") {
		return nil, "", b.garbled(step, "the token is not a bearer token")
	}
	g, err = b.grant(ctx, step, s, &t, r.sent, nonce, have)
	return g, "", err
}

// grant makes a grant of t. What an answer to a refresh leaves out stays as it was (RFC 6749, 6).
func (b *Backend) grant(ctx context.Context, step string, s *server, t *tokens, sent time.Time, nonce string, have *backend.Grant) (*backend.Grant, error) {
	c := &backend.Credential{
		Type: backend.TypeOAuth2, Secret: backend.NewSecretString(t.Access), Metadata: map[string]string{},
		Fields: map[string]backend.Secret{"access_token": backend.NewSecretString(t.Access)},
	}
	g := &backend.Grant{Credential: c, About: map[string]string{aboutIssuer: s.Issuer}}
	if have != nil {
		g.Refresh = have.Refresh
		for name, v := range have.About {
			g.About[name] = v
		}
		if id, ok := have.Credential.Fields["id_token"]; ok {
			c.Fields["id_token"] = id
		}
	}
	if t.Refresh != "" {
		g.Refresh = backend.NewSecretString(t.Refresh)
	}
	if t.Scope != "" {
		g.About[aboutScope] = t.Scope
	}
	if t.Expires > 0 {
		c.Expires = sent.Add(time.Duration(t.Expires) * time.Second)
	}
	if t.ID != "" && s.Keys != "" {
		subject, err := b.verify(ctx, s, t.ID, nonce)
		if err != nil {
			return nil, err
		}
		if was := g.About[aboutSubject]; was != "" && was != subject { // OpenID Connect Core, 12.2
			return nil, b.garbled(step, "the token is for another person than the login was")
		}
		g.About[aboutSubject] = subject
		c.Fields["id_token"] = backend.NewSecretString(t.ID)
	}
	for name, v := range g.About {
		if v != "" {
			c.Metadata[name] = v
		}
	}
	return g, nil
}

// verify checks an ID token (OpenID Connect Core, 3.1.3.7), and gives whom it is about. No nonce: there need be none in it.
func (b *Backend) verify(ctx context.Context, s *server, token, nonce string) (subject string, err error) {
	hc, err := b.client()
	if err != nil {
		return "", err
	}
	within, cancel := context.WithTimeout(ctx, b.config.Timeout)
	defer cancel()
	keys := oidc.NewRemoteKeySet(oidc.ClientContext(within, hc), s.Keys)
	id, err := oidc.NewVerifier(s.Issuer, keys, &oidc.Config{ClientID: b.config.ClientID, SupportedSigningAlgs: signing(s.SigningAlgorithms)}).Verify(within, token)
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil: // its text may quote the token's claims
		return "", backend.Errorf(backend.CodeDenied, "%s: the ID token is not genuine, has ended, or is for another client", b.target)
	case nonce != "" && !equal(id.Nonce, nonce):
		return "", errForged
	}
	return id.Subject, nil
}

// signing are the algorithms of names that show who signed: never none, and none with a shared key.
func signing(names []string) []string {
	known := []string{
		oidc.RS256, oidc.RS384, oidc.RS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.EdDSA,
	}
	if len(names) == 0 {
		return known
	}
	var out []string
	for _, k := range known {
		for _, n := range names {
			if n == k {
				out = append(out, k)
			}
		}
	}
	return out
}
