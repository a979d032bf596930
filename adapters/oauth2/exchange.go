package oauth2

import (
	"context"
	"encoding/json"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

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
		if r.status == http.StatusOK && name == "" { // some servers tell errors with status 200
			return nil, "", b.garbled(step, "the answer is no token")
		}
		return nil, name, err
	}
	switch {
	case !slices.Contains([]string{"", "bearer", "n_a", "user", "bot"}, strings.ToLower(t.Type)): // the last two are Slack's
		return nil, "", b.garbled(step, "the token is not a bearer token")
	case hasControl(t.Access) || hasControl(t.Refresh): // it would break the header that it is put in
		return nil, "", b.garbled(step, "the token holds control characters")
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
		if have.Credential != nil {
			if id, ok := have.Credential.Fields["id_token"]; ok {
				c.Fields["id_token"] = id
			}
		}
	} else if t.Scope == "" { // RFC 6749, 5.1: it is what was asked for
		t.Scope = strings.Join(b.config.Scopes, " ")
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
		about, err := b.verify(ctx, s, t, nonce)
		switch was := g.About[aboutSubject]; {
		case err != nil && have != nil && (backend.CodeOf(err).Retryable() || backend.CodeOf(err) == backend.CodeTimeout):
			// A refresh need not give an ID token, and its refresh token must not be lost since the keys cannot be had now.
		case err != nil:
			return nil, err
		case was != "" && was != about[aboutSubject]: // OpenID Connect Core, 12.2
			return nil, b.garbled(step, "the token is for another person than the login was")
		default:
			maps.Copy(g.About, about)
			c.Fields["id_token"] = backend.NewSecretString(t.ID)
		}
	}
	for name, v := range g.About {
		if v != "" {
			c.Metadata[name] = v
		}
	}
	return g, nil
}

// skew is by how much the server's clock may differ from ours.
const skew = time.Minute

// verify checks an ID token (OpenID Connect Core, 3.1.3.7), and gives what it tells of whom it is about. No nonce: there need be
// none in it.
func (b *Backend) verify(ctx context.Context, s *server, t *tokens, nonce string) (about map[string]string, err error) {
	keys := &keySet{b: b, address: s.Keys, algorithms: signing(s.SigningAlgorithms)}
	id, err := oidc.NewVerifier(s.Issuer, keys, &oidc.Config{
		ClientID: b.config.ClientID, SupportedSigningAlgs: keys.algorithms, Now: func() time.Time { return time.Now().Add(-skew) },
	}).Verify(ctx, t.ID)
	if keys.err != nil {
		return nil, keys.err
	}
	var claims struct {
		Party string `json:"azp"`
		Email string `json:"email"`
		Name  string `json:"name"`
		Login string `json:"preferred_username"`
	}
	if err == nil {
		err = id.Claims(&claims)
	}
	if err == nil && id.AccessTokenHash != "" {
		err = id.VerifyAccessToken(t.Access)
	}
	switch {
	case err != nil || claims.Party != "" && claims.Party != b.config.ClientID: // err may quote the token
		return nil, backend.Errorf(backend.CodeDenied, "%s: the ID token is not genuine, has ended, or is for another client", b.target)
	case nonce != "" && !equal(id.Nonce, nonce):
		return nil, errForged
	}
	about = map[string]string{aboutSubject: id.Subject}
	for name, v := range map[string]string{"email": claims.Email, "name": claims.Name, "preferred_username": claims.Login} {
		if v != "" && len(v) <= 256 && !hasControl(v) {
			about[name] = v
		}
	}
	return about, nil
}

// keySet is a server's keys, bounded and fetched as all else is. It serves one verification.
type keySet struct {
	b          *Backend
	address    string
	algorithms []string
	err        error // why the keys could not be had
}

// VerifySignature implements oidc.KeySet. Keys that are known already are tried first.
func (k *keySet) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	algorithms := make([]jose.SignatureAlgorithm, 0, len(k.algorithms))
	for _, name := range k.algorithms {
		algorithms = append(algorithms, jose.SignatureAlgorithm(name))
	}
	signed, err := jose.ParseSignedCompact(token, algorithms)
	if err != nil {
		return nil, err
	}
	if known := k.b.keys.Load(); known != nil {
		if payload, err := verifyBy(known, signed); err == nil {
			return payload, nil
		}
	}
	const step = "the fetch of the keys"
	fresh := &jose.JSONWebKeySet{}
	r, err := k.b.get(ctx, step, k.address, fresh)
	if err == nil && r.status != http.StatusOK {
		_, err = k.b.failure(step, r)
	}
	if err != nil {
		k.err = err
		return nil, err
	}
	k.b.keys.Store(fresh)
	return verifyBy(fresh, signed)
}

func verifyBy(keys *jose.JSONWebKeySet, signed *jose.JSONWebSignature) ([]byte, error) {
	if len(signed.Signatures) != 1 {
		return nil, errForged
	}
	header := signed.Signatures[0].Header
	for i := range keys.Keys {
		key := &keys.Keys[i]
		if header.KeyID != "" && key.KeyID != header.KeyID || key.Use != "" && key.Use != "sig" || !key.IsPublic() {
			continue
		}
		if payload, err := signed.Verify(key); err == nil {
			return payload, nil
		}
	}
	return nil, errForged
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
