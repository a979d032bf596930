package oauth2

import (
	"context"
	"net/http"
	"net/url"
	"strings"
)

// server is what is known of the authorization server: set in the configuration, or told by discovery.
type server struct {
	Issuer        string `json:"issuer"`
	Authorization string `json:"authorization_endpoint"`
	Token         string `json:"token_endpoint"`
	Device        string `json:"device_authorization_endpoint"`
	Revocation    string `json:"revocation_endpoint"`
	Introspection string `json:"introspection_endpoint"`
	Keys          string `json:"jwks_uri"`
	// TellsIssuer: its answers to a login name the issuer (RFC 9207).
	TellsIssuer bool   `json:"authorization_response_iss_parameter_supported"`
	UserInfo    string `json:"userinfo_endpoint"`
	// Aliases are the endpoints for a client that shows a certificate (RFC 8705, 5).
	Aliases map[string]string `json:"mtls_endpoint_aliases"`
	// SigningAlgorithms are those of its ID tokens.
	SigningAlgorithms []string `json:"id_token_signing_alg_values_supported"`
}

const discovery = "discovery"

// server finds the endpoints, once: what it found stays until the Backend is closed.
func (b *Backend) server(ctx context.Context) (*server, error) {
	if s := b.found.Load(); s != nil {
		return s, nil
	}
	s := &server{}
	if b.config.Issuer != "" {
		var err error
		if s, err = b.discover(ctx); err != nil {
			return nil, err
		}
	}
	for from, to := range map[string]*string{
		b.config.Endpoints.Authorization: &s.Authorization, b.config.Endpoints.Token: &s.Token,
		b.config.Endpoints.Device: &s.Device, b.config.Endpoints.Revocation: &s.Revocation,
		b.config.Endpoints.Introspection: &s.Introspection,
	} {
		if from != "" {
			*to = from
		}
	}
	b.found.CompareAndSwap(nil, s)
	return b.found.Load(), nil
}

// discover asks the issuer as OpenID Connect Discovery 1.0 says, and where there is nothing, as RFC 8414 does.
func (b *Backend) discover(ctx context.Context) (*server, error) {
	issuer, err := url.Parse(b.config.Issuer)
	if err != nil {
		return nil, errNoEndpoint
	}
	openID, plain := *issuer, *issuer
	path := strings.TrimRight(issuer.Path, "/")
	openID.Path = path + "/.well-known/openid-configuration"
	plain.Path = "/.well-known/oauth-authorization-server" + path
	for _, address := range []url.URL{openID, plain} {
		s := &server{}
		r, err := b.get(ctx, discovery, address.String(), s)
		switch {
		case err != nil:
			return nil, err
		case r.status == http.StatusNotFound:
			continue
		case r.status != http.StatusOK:
			_, err := b.failure(discovery, r)
			return nil, err
		}
		// RFC 8414, 3.3: the same string. A slash at the end is forgiven to the configuration, not to what is verified later.
		if strings.TrimRight(s.Issuer, "/") != strings.TrimRight(b.config.Issuer, "/") {
			return nil, b.garbled(discovery, "it says that it is another issuer")
		}
		if b.config.TLS.ClientCert != "" {
			for name, to := range map[string]*string{
				"token_endpoint": &s.Token, "device_authorization_endpoint": &s.Device, "revocation_endpoint": &s.Revocation,
				"introspection_endpoint": &s.Introspection, "userinfo_endpoint": &s.UserInfo,
			} {
				if alias := s.Aliases[name]; alias != "" {
					*to = alias
				}
			}
		}
		for _, endpoint := range []string{s.Authorization, s.Token, s.Device, s.Revocation, s.Introspection, s.Keys, s.UserInfo} {
			// One of this machine, by plain http, is believed of a server of this machine alone.
			if endpoint != "" && (!isServer(endpoint) || issuer.Scheme == "https" && !strings.HasPrefix(endpoint, "https:")) {
				return nil, b.garbled(discovery, "it names an endpoint that is not https")
			}
		}
		return s, nil
	}
	return nil, b.garbled(discovery, "nothing is found at "+openID.Path+" and "+plain.Path)
}
