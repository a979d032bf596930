package oauth2

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/credresolve/credresolve/backend"
)

// Config are the settings of a provider of kind oauth2.
type Config struct {
	// Issuer is the URL of the authorization server, from which its endpoints are discovered. Empty: Endpoints must be set.
	Issuer string `yaml:"issuer"`
	// Endpoints are those of the server where it has no discovery, or where another one than it tells is to be used. Zero:
	// those that discovery tells.
	Endpoints Endpoints `yaml:"endpoints"`
	// Grant is how tokens are got: authorization_code or device_code, by which a person logs in, client_credentials or
	// token_exchange, by which a program gets them alone. Empty: authorization_code.
	Grant string `yaml:"grant"`
	// ClientID is the client's id at the server. It must be set.
	ClientID string `yaml:"client_id"`
	// ClientSecret is the client's secret. Not set: a public client, or one that shows a key or certificate.
	ClientSecret backend.Source `yaml:"client_secret"`
	// ClientAuth is how the client proves who it is: basic, post, private_key_jwt, tls, or none. Empty: none without a secret
	// and key, private_key_jwt with client_key, tls with tls.client_cert, else basic.
	ClientAuth string `yaml:"client_auth"`
	// ClientKey is the PEM private key (PKCS #8, PKCS #1 or SEC 1; RSA, ECDSA or Ed25519) of private_key_jwt (RFC 7523).
	ClientKey backend.Source `yaml:"client_key"`
	// ClientKeyID is sent as kid with ClientKey. Empty: none is.
	ClientKeyID string `yaml:"client_key_id"`
	// Scopes are asked for. Empty: the server's default.
	Scopes []string `yaml:"scopes"`
	// Audience is sent as audience. Empty: it is not sent.
	Audience string `yaml:"audience"`
	// Resource is the URI of what the token is for (RFC 8707). Empty: it is not sent.
	Resource string `yaml:"resource"`
	// Parameters are further ones of the request that begins a login, such as access_type: offline.
	Parameters map[string]string `yaml:"parameters"`
	// SubjectToken is the token that token_exchange (RFC 8693) starts from. It must be set for it.
	SubjectToken backend.Source `yaml:"subject_token"`
	// SubjectTokenType is its type, a URI or the last part of one of urn:ietf:params:oauth:token-type: (jwt, access_token,
	// id_token, saml2). Empty: jwt.
	SubjectTokenType string `yaml:"subject_token_type"`
	// RequestedTokenType is the type of the token that is asked for, in the same way. Empty: the server's default.
	RequestedTokenType string `yaml:"requested_token_type"`
	// RedirectPort is the port on 127.0.0.1 to which the browser comes back after a login. Zero: any that is free, as RFC 8252
	// wants servers to take.
	RedirectPort int `yaml:"redirect_port"`
	// RedirectPath is the path there. Empty: /callback.
	RedirectPath string `yaml:"redirect_path"`
	// RedirectHost is what the redirect URI names for this machine, 127.0.0.1 or localhost; 127.0.0.1 alone listens. Empty:
	// 127.0.0.1, as RFC 8252, 8.3, wants it.
	RedirectHost string `yaml:"redirect_host"`
	// Timeout is the longest that one request may take. Zero: 30 seconds.
	Timeout time.Duration `yaml:"timeout"`
	// LoginTimeout is how long a login may take, if the server gives it no shorter time. Zero: 10 minutes; at most 30.
	LoginTimeout time.Duration `yaml:"login_timeout"`
	// TLS says which server to trust, and which certificate to show to it. Zero: what the system trusts, and none.
	TLS TLS `yaml:"tls"`
}

// Endpoints are URLs of an authorization server.
type Endpoints struct {
	// Authorization is where a person's browser is sent. Empty: discovered.
	Authorization string `yaml:"authorization"`
	// Token gives tokens. Empty: discovered.
	Token string `yaml:"token"`
	// Device begins a login by device code. Empty: discovered.
	Device string `yaml:"device"`
	// Revocation ends tokens. Empty: discovered; tokens cannot be revoked where there is none.
	Revocation string `yaml:"revocation"`
	// Introspection tells whether a token is in force (RFC 7662). Empty: discovered; it cannot be told where there is none.
	Introspection string `yaml:"introspection"`
}

// TLS says which server to trust, and which certificate to show to it.
type TLS struct {
	// CAFile is a file of PEM certificates that may sign the server's. Empty: the system's.
	CAFile string `yaml:"ca_file"`
	// ClientCert is the file of the PEM certificate to show to the server (RFC 8705). Empty: none.
	ClientCert string `yaml:"client_cert"`
	// ClientKey is the file of its PEM key. It must be set with ClientCert.
	ClientKey string `yaml:"client_key"`
}

// The grants.
const (
	grantCode     = "authorization_code"
	grantDevice   = "device_code"
	grantClient   = "client_credentials"
	grantExchange = "token_exchange"
)

// The ways in which a client proves who it is.
const (
	authBasic = "basic"
	authPost  = "post"
	authKey   = "private_key_jwt"
	authTLS   = "tls"
	authNone  = "none"
)

const (
	defaultTimeout      = 30 * time.Second
	defaultLoginTimeout = 10 * time.Minute
	maxLoginTimeout     = 30 * time.Minute
	defaultRedirectPath = "/callback"
	loopback            = "127.0.0.1"
	tokenTypePrefix     = "urn:ietf:params:oauth:token-type:"
)

// Reach implements backend.Reacher.
func (c Config) Reach() []backend.Reach {
	var reach []backend.Reach
	add := func(what backend.ReachType, values ...string) {
		for _, v := range values {
			if v != "" {
				reach = append(reach, backend.Reach{What: what, Value: v})
			}
		}
	}
	add(backend.ReachAddress, c.Issuer, c.Endpoints.Authorization, c.Endpoints.Token, c.Endpoints.Device, c.Endpoints.Revocation, c.Endpoints.Introspection)
	add(backend.ReachFile, c.TLS.CAFile, c.TLS.ClientCert, c.TLS.ClientKey)
	return reach
}

// Kind is the kind "oauth2" for a registry.
func Kind() backend.Kind {
	return backend.NewKind("oauth2", "OAuth 2.0 and OpenID Connect: tokens of any issuer",
		func(c Config, h backend.Host) (backend.Backend, error) {
			b, err := New(c, h)
			if err != nil {
				return nil, err
			}
			return b, nil
		})
}

// loggedIn reports whether a person logs in.
func (c *Config) loggedIn() bool { return c.Grant == grantCode || c.Grant == grantDevice }

// settle checks c and fills its gaps.
func (c *Config) settle() error {
	c.Scopes = slices.Clone(c.Scopes)
	if c.Grant == "" {
		c.Grant = grantCode
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.LoginTimeout == 0 {
		c.LoginTimeout = defaultLoginTimeout
	}
	if c.RedirectPath == "" {
		c.RedirectPath = defaultRedirectPath
	}
	if c.RedirectHost == "" {
		c.RedirectHost = loopback
	}
	if err := c.settleClientAuth(); err != nil {
		return err
	}
	for setting, address := range map[string]string{
		"issuer": c.Issuer, "endpoints.authorization": c.Endpoints.Authorization, "endpoints.token": c.Endpoints.Token,
		"endpoints.device": c.Endpoints.Device, "endpoints.revocation": c.Endpoints.Revocation,
		"endpoints.introspection": c.Endpoints.Introspection,
	} {
		if address != "" && !isServer(address) {
			return &backend.Error{Code: backend.CodeInvalidConfig, Reason: setting + " is not the https URL of a server",
				Remedy: "write it as https://login.example; http is taken for localhost, 127.0.0.1 and [::1] alone"}
		}
	}
	switch {
	case strings.Contains(c.Issuer, "?"): // RFC 8414, section 2
		return backend.Errorf(backend.CodeInvalidConfig, "issuer has a query, which no issuer has")
	case !slices.Contains([]string{grantCode, grantDevice, grantClient, grantExchange}, c.Grant):
		return &backend.Error{Code: backend.CodeInvalidConfig, Reason: "grant is not one that is known",
			Remedy: "write authorization_code, device_code, client_credentials or token_exchange"}
	case c.ClientID == "":
		return backend.Errorf(backend.CodeInvalidConfig, "client_id is missing")
	case c.Issuer == "" && c.Endpoints.Token == "":
		return &backend.Error{Code: backend.CodeInvalidConfig, Reason: "neither issuer nor endpoints.token is set",
			Remedy: "set issuer, or the endpoints of a server without discovery"}
	case c.Issuer == "" && c.Grant == grantCode && c.Endpoints.Authorization == "":
		return backend.Errorf(backend.CodeInvalidConfig, "endpoints.authorization is missing, and there is no issuer that would tell it")
	case c.Issuer == "" && c.Grant == grantDevice && c.Endpoints.Device == "":
		return backend.Errorf(backend.CodeInvalidConfig, "endpoints.device is missing, and there is no issuer that would tell it")
	case c.Grant == grantClient && c.ClientAuth == authNone:
		return &backend.Error{Code: backend.CodeInvalidConfig, Reason: "grant client_credentials needs credentials of the client",
			Remedy: "set client_secret, client_key or tls.client_cert"}
	case (c.Grant == grantExchange) == c.SubjectToken.IsZero():
		return backend.Errorf(backend.CodeInvalidConfig, "subject_token belongs to grant token_exchange, and must be set there")
	case c.Grant != grantExchange && (c.SubjectTokenType != "" || c.RequestedTokenType != ""):
		return backend.Errorf(backend.CodeInvalidConfig, "subject_token_type and requested_token_type belong to grant token_exchange")
	case c.Grant != grantCode && (c.RedirectPort != 0 || c.RedirectPath != defaultRedirectPath || c.RedirectHost != loopback):
		return backend.Errorf(backend.CodeInvalidConfig, "redirect_host, redirect_port and redirect_path belong to grant authorization_code")
	case c.RedirectHost != loopback && c.RedirectHost != "localhost":
		return backend.Errorf(backend.CodeInvalidConfig, "redirect_host is neither 127.0.0.1 nor localhost")
	case c.RedirectPort < 0 || c.RedirectPort > 65535:
		return backend.Errorf(backend.CodeInvalidConfig, "redirect_port is no port")
	case !strings.HasPrefix(c.RedirectPath, "/") || strings.ContainsAny(c.RedirectPath, "?#% ") || strings.Contains(c.RedirectPath, "//"):
		return backend.Errorf(backend.CodeInvalidConfig, "redirect_path is not a plain path such as /callback")
	case c.Timeout < 0 || c.LoginTimeout < 0 || c.LoginTimeout > maxLoginTimeout:
		return backend.Errorf(backend.CodeInvalidConfig, "timeout or login_timeout is out of range: a login has at most 30m")
	case (c.TLS.ClientCert == "") != (c.TLS.ClientKey == ""):
		return backend.Errorf(backend.CodeInvalidConfig, "tls.client_cert and tls.client_key belong together")
	}
	for _, scope := range c.Scopes {
		if scope == "" || strings.ContainsFunc(scope, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) {
			return backend.Errorf(backend.CodeInvalidConfig, "scopes holds what is no scope; write one in each item")
		}
	}
	for name := range c.Parameters {
		if slices.Contains(ownParameters, name) {
			return backend.Errorf(backend.CodeInvalidConfig, "parameters.%s is set by the login itself", name)
		}
	}
	c.SubjectTokenType, c.RequestedTokenType = tokenType(c.SubjectTokenType), tokenType(c.RequestedTokenType)
	if c.Grant == grantExchange && c.SubjectTokenType == "" {
		c.SubjectTokenType = tokenTypePrefix + "jwt"
	}
	return nil
}

// ownParameters are those of an authorization request that a login sets.
var ownParameters = []string{
	"response_type", "response_mode", "client_id", "client_secret", "redirect_uri", "scope", "state", "nonce", "code_challenge",
	"code_challenge_method", "resource", "audience", "request", "request_uri",
}

func (c *Config) settleClientAuth() error {
	secret, key := !c.ClientSecret.IsZero(), !c.ClientKey.IsZero()
	if c.ClientAuth == "" {
		switch {
		case key:
			c.ClientAuth = authKey
		case secret:
			c.ClientAuth = authBasic
		case c.TLS.ClientCert != "":
			c.ClientAuth = authTLS
		default:
			c.ClientAuth = authNone
		}
	}
	switch c.ClientAuth {
	case authBasic, authPost:
		if !secret || key {
			return backend.Errorf(backend.CodeInvalidConfig, "client_auth %s needs client_secret, and takes no client_key", c.ClientAuth)
		}
	case authKey:
		if !key || secret {
			return backend.Errorf(backend.CodeInvalidConfig, "client_auth private_key_jwt needs client_key, and takes no client_secret")
		}
	case authTLS:
		if c.TLS.ClientCert == "" || secret || key {
			return backend.Errorf(backend.CodeInvalidConfig, "client_auth tls needs tls.client_cert, and takes neither client_secret nor client_key")
		}
	case authNone:
		if secret || key {
			return backend.Errorf(backend.CodeInvalidConfig, "client_auth none takes neither client_secret nor client_key")
		}
	default:
		return &backend.Error{Code: backend.CodeInvalidConfig, Reason: "client_auth is not one that is known",
			Remedy: "write basic, post, private_key_jwt, tls or none"}
	}
	if c.ClientKeyID != "" && !key {
		return backend.Errorf(backend.CodeInvalidConfig, "client_key_id belongs to client_key")
	}
	return nil
}

func tokenType(t string) string {
	if t == "" || strings.Contains(t, ":") {
		return t
	}
	return tokenTypePrefix + t
}

// isServer reports whether address is an absolute https URL, or an http one of this machine.
func isServer(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return false
	}
	return u.Scheme == "https" || u.Scheme == "http" && isLocal(u.Hostname())
}

func isLocal(host string) bool { return slices.Contains([]string{"localhost", loopback, "::1"}, host) }
