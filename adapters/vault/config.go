package vault

import (
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/credresolve/credresolve/backend"
)

// Config are the settings of a provider of kind vault. What is not set is taken from the standard VAULT_* variables
// (see the package comment), as the vault command does.
type Config struct {
	// Address is the server's URL, https://host:8200, or unix:///path for the socket of an agent. Empty:
	// $VAULT_AGENT_ADDR, else $VAULT_ADDR; one of them must be set.
	Address string `yaml:"address"`
	// Namespace is sent with every request, the login included (Vault Enterprise, OpenBao). Empty: $VAULT_NAMESPACE,
	// else the root namespace.
	Namespace string `yaml:"namespace"`
	// Mount is the path of the one secrets engine that this provider reads; ids are then relative to it. Empty: ids
	// begin with the path of their mount.
	Mount string `yaml:"mount"`
	// KVVersion is the version, 1 or 2, of the key-value engine at Mount, which must then be set. Zero: the server is
	// asked, once per mount.
	KVVersion int `yaml:"kv_version"`
	// Timeout is the longest that one request to the server may take. Zero: $VAULT_CLIENT_TIMEOUT, else 30 seconds.
	Timeout time.Duration `yaml:"timeout"`
	// ProxyAddr is the URL of an HTTP proxy. Empty: $VAULT_PROXY_ADDR, $VAULT_HTTP_PROXY, else $HTTPS_PROXY, $HTTP_PROXY
	// and $NO_PROXY.
	ProxyAddr string `yaml:"proxy_addr"`
	// RedirectTo lists the URLs of further servers of the cluster to which a standby may redirect. Empty: a redirect to
	// another address than Address is an error, since the token would travel with it.
	RedirectTo []string `yaml:"redirect_to"`
	// Auth says how to log in. Zero: with a token of the environment.
	Auth Auth `yaml:"auth"`
	// TLS says which server to trust, and which certificate to show to it. Zero: what the system trusts, and none.
	TLS TLS `yaml:"tls"`
}

// Auth says how to log in. A setting that the method does not use is an error.
type Auth struct {
	// Method is token, token_file, approle, userpass, kubernetes, jwt, cert, or none where an agent at Address puts its own
	// token into every request. Empty: token.
	Method string `yaml:"method"`
	// Mount is the path of the auth method, without auth/. Empty: the method's name.
	Mount string `yaml:"mount"`
	// Token is the token of method token. Not set: $VAULT_TOKEN, else the file ~/.vault-token.
	Token backend.Source `yaml:"token"`
	// TokenFile is the file with the token of method token_file, which must be set: the sink of a Vault agent, for
	// example. It is read again when the token is no longer accepted.
	TokenFile string `yaml:"token_file"`
	// RoleID is the role id of method approle, which must be set.
	RoleID string `yaml:"role_id"`
	// SecretID is the secret id of method approle. Not set: the role needs none (bind_secret_id is false).
	SecretID backend.Source `yaml:"secret_id"`
	// SecretIDWrapped says that SecretID is a wrapping token, which yields the secret id once. False: it is the secret
	// id itself.
	SecretIDWrapped bool `yaml:"secret_id_wrapped"`
	// Username is the name of method userpass, which must be set. Method userpass with Mount "ldap" logs in by LDAP.
	Username string `yaml:"username"`
	// Password is the password of method userpass, which must be set.
	Password backend.Source `yaml:"password"`
	// Role is the role of methods kubernetes (which must be set), jwt and cert. Empty: the default role of the mount
	// (jwt), any role that fits the certificate (cert).
	Role string `yaml:"role"`
	// JWT is the token of methods jwt and kubernetes. Not set: it is read from JWTFile.
	JWT backend.Source `yaml:"jwt"`
	// JWTFile is the file with the token of methods jwt and kubernetes, read at each login. Empty: JWT must be set, or,
	// with kubernetes, it is /var/run/secrets/kubernetes.io/serviceaccount/token.
	JWTFile string `yaml:"jwt_file"`
}

// TLS says which server to trust, and which certificate to show to it. There is no setting to trust every server.
type TLS struct {
	// CAFile is a file of PEM certificates that may sign the server's. Empty, and CAPath and CAPEM too: $VAULT_CACERT,
	// $VAULT_CACERT_BYTES or $VAULT_CAPATH, else the system's.
	CAFile string `yaml:"ca_file"`
	// CAPath is a directory of such files. Empty: see CAFile.
	CAPath string `yaml:"ca_path"`
	// CAPEM is the text of such certificates. Empty: see CAFile.
	CAPEM string `yaml:"ca_pem"`
	// ServerName is the name that the server's certificate must have. Empty: $VAULT_TLS_SERVER_NAME, else the host of
	// the address.
	ServerName string `yaml:"server_name"`
	// ClientCert is the file of the PEM certificate to show to the server. Empty: $VAULT_CLIENT_CERT, else none.
	ClientCert string `yaml:"client_cert"`
	// ClientKey is the file of its PEM key. Empty: $VAULT_CLIENT_KEY.
	ClientKey string `yaml:"client_key"`
	// MinVersion is the lowest version of TLS to speak, "1.2" or "1.3". Empty: 1.2.
	MinVersion string `yaml:"min_version"`
}

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
	add(backend.ReachAddress, c.Address, c.ProxyAddr)
	add(backend.ReachAddress, c.RedirectTo...)
	if c.Address == "" {
		add(backend.ReachEnvironment, "VAULT_AGENT_ADDR", "VAULT_ADDR")
	}
	if c.Auth.method() == "token" && c.Auth.Token.IsZero() {
		add(backend.ReachEnvironment, "VAULT_TOKEN")
		add(backend.ReachFile, "~/.vault-token")
	}
	if c.Auth.method() == "kubernetes" && c.Auth.JWT.IsZero() && c.Auth.JWTFile == "" {
		add(backend.ReachFile, serviceAccountToken)
	}
	add(backend.ReachFile, c.Auth.TokenFile, c.Auth.JWTFile, c.TLS.CAFile, c.TLS.CAPath, c.TLS.ClientCert, c.TLS.ClientKey)
	add(backend.ReachEnvironment, "VAULT_*, BAO_*") // headers, a client certificate, a namespace: what is not set here
	return reach
}

// Kind is the kind "vault" for a registry.
func Kind() backend.Kind {
	return backend.NewKind("vault", "HashiCorp Vault and OpenBao",
		func(c Config, h backend.Host) (backend.Backend, error) {
			b, err := New(c, h)
			if err != nil {
				return nil, err
			}
			return b, nil
		})
}

// settings are a Config with its gaps filled from the environment.
type settings struct {
	Config
	host    backend.Host
	address *url.URL // where requests go; http://localhost for a socket
	socket  string   // the path of a unix socket, else empty
	proxy   *url.URL // nil: what the proxy variables say
	trusted []*url.URL
	headers map[string]string
	// skipVerify is set by $VAULT_SKIP_VERIFY alone, and told by Describe.
	skipVerify bool
	// fromEnv: a variable decides what Get gives.
	fromEnv bool
}

func (c Config) settle(h backend.Host) (*settings, error) {
	s := &settings{Config: c, host: h}
	lookup := s.environ()
	env := func(names ...string) string {
		v := lookup(names...)
		s.fromEnv = s.fromEnv || v != ""
		return v
	}
	if s.Address == "" {
		s.Address = env("AGENT_ADDR", "ADDR")
	}
	if s.Address == "" {
		return nil, &backend.Error{Code: backend.CodeInvalidConfig, Reason: "address is missing", Remedy: "set address, or VAULT_ADDR in the environment"}
	}
	var err error
	if s.address, s.socket, err = parseAddress("address", s.Address); err != nil {
		return nil, err
	}
	for _, to := range s.RedirectTo {
		u, _, err := parseAddress("redirect_to", to)
		if err != nil {
			return nil, err
		}
		s.trusted = append(s.trusted, u)
	}
	if s.Namespace == "" {
		s.Namespace = env("NAMESPACE")
	}
	s.Namespace = strings.Trim(s.Namespace, "/")
	if s.Mount = strings.Trim(s.Mount, "/"); s.Mount != "" && !validPath(s.Mount) {
		return nil, backend.Errorf(backend.CodeInvalidConfig, "mount is not a path")
	}
	switch {
	case s.KVVersion < 0 || s.KVVersion > 2:
		return nil, backend.Errorf(backend.CodeInvalidConfig, "kv_version is %d, it can be 1, 2, or absent", s.KVVersion)
	case s.KVVersion != 0 && s.Mount == "":
		return nil, &backend.Error{Code: backend.CodeInvalidConfig, Reason: "kv_version is set without mount", Remedy: "set mount to the path of the key-value engine"}
	}
	if err := s.settleTimeout(env("CLIENT_TIMEOUT")); err != nil {
		return nil, err
	}
	proxy := s.ProxyAddr
	if proxy == "" {
		proxy = env("PROXY_ADDR", "HTTP_PROXY")
	}
	if proxy != "" {
		if s.proxy, err = url.Parse(proxy); err != nil || s.proxy.Host == "" {
			return nil, backend.Errorf(backend.CodeInvalidConfig, "proxy_addr is not a URL")
		}
	}
	if s.headers, err = parseHeaders(env("HEADERS")); err != nil {
		return nil, err
	}
	if err := s.settleTLS(env); err != nil {
		return nil, err
	}
	if err := s.Auth.validate(s.TLS.ClientCert != ""); err != nil {
		return nil, err
	}
	if s.Auth.method() == "token" && s.Auth.Token.IsZero() {
		s.fromEnv = true
	}
	return s, nil
}

// environ gives a lookup of the first VAULT_ variable that is set and not empty, by names without that prefix.
// OpenBao's own BAO_ variables stand in for absent ones.
func (s *settings) environ() func(names ...string) string {
	return func(names ...string) string {
		for _, prefix := range [...]string{"VAULT_", "BAO_"} {
			for _, name := range names {
				if v, _ := s.lookupEnv(prefix + name); v != "" {
					return v
				}
			}
		}
		return ""
	}
}

func (s *settings) settleTimeout(env string) error {
	switch {
	case s.Timeout < 0:
		return backend.Errorf(backend.CodeInvalidConfig, "timeout is negative")
	case s.Timeout > 0:
	case env == "":
		s.Timeout = 30 * time.Second
	default:
		if strings.Trim(env, "0123456789") == "" {
			env += "s" // a bare number is seconds, as the vault command has it
		}
		d, err := time.ParseDuration(env)
		if err != nil || d <= 0 {
			return backend.Errorf(backend.CodeInvalidConfig, "VAULT_CLIENT_TIMEOUT is not a duration such as 30s")
		}
		s.Timeout = d
	}
	return nil
}

// path makes a path of the settings absolute.
func (s *settings) path(p string) string {
	if rest, ok := strings.CutPrefix(p, "~/"); ok {
		if home, err := s.home(); err == nil {
			return filepath.Join(home, rest)
		}
	}
	if !filepath.IsAbs(p) && s.host.Dir != "" {
		return filepath.Join(s.host.Dir, p)
	}
	return p
}

// parseAddress gives the URL to which requests go, and the path when address is a unix socket.
func parseAddress(setting, address string) (*url.URL, string, error) {
	if path, ok := strings.CutPrefix(address, "unix://"); ok && path != "" {
		return &url.URL{Scheme: "http", Host: "localhost"}, path, nil
	}
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || !slices.Contains([]string{"http", "https"}, u.Scheme):
		return nil, "", &backend.Error{Code: backend.CodeInvalidConfig, Reason: setting + " is not a URL", Remedy: "write it as https://host:8200"}
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, "", &backend.Error{Code: backend.CodeInvalidConfig, Reason: setting + " has a user, query or fragment", Remedy: "write it as https://host:8200"}
	}
	u.Path = strings.TrimRight(u.Path, "/")
	return u, "", nil
}

// validPath reports whether p is what a path of Vault is: segments that are neither empty nor dots, none of which a
// client or server would clean away to name something else.
func validPath(p string) bool {
	if !utf8.ValidString(p) || strings.ContainsFunc(p, unicode.IsControl) {
		return false
	}
	for segment := range strings.SplitSeq(p, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return false
		}
	}
	return true
}
