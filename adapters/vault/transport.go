package vault

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
	"golang.org/x/net/http/httpproxy"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/neterr"
)

// maxAnswer bounds an answer in bytes. A secret of Vault is at most 32 MiB (max_request_size).
const maxAnswer = 64 << 20

// call is one request to the server.
type call struct {
	method string // GET, PUT or DELETE
	path   string // without v1/
	query  url.Values
	body   []byte
	about  string // what errors name: an id, or what the request is for
}

// answer is what the server said. Its bytes are secret.
type answer struct {
	status     int
	retryAfter time.Duration
	redirect   string // the address of the Location header
	sent       time.Time

	RequestID     string          `json:"request_id"`
	LeaseID       string          `json:"lease_id"`
	LeaseDuration int64           `json:"lease_duration"` // seconds
	Renewable     bool            `json:"renewable"`
	Data          json.RawMessage `json:"data"`
	Warnings      []string        `json:"warnings"`
	Errors        []string        `json:"errors"`
	Auth          *struct {
		ClientToken    string          `json:"client_token"`
		LeaseDuration  int64           `json:"lease_duration"`
		Renewable      bool            `json:"renewable"`
		MFARequirement json.RawMessage `json:"mfa_requirement"`
	} `json:"auth"`
}

// says reports whether an error of the answer has text in it.
func (a *answer) says(text string) bool {
	for _, e := range a.Errors {
		if strings.Contains(e, text) {
			return true
		}
	}
	return false
}

// wipe zeroes the secret parts of the answer.
func (a *answer) wipe() { clear(a.Data) }

// send makes one request with the token of client. Its error is the transport's: an answer of any status that is
// Vault's is no error.
func (b *Backend) send(ctx context.Context, client *api.Client, c call) (*answer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	within, cancel := context.WithTimeout(ctx, b.settings.Timeout)
	defer cancel()
	var (
		resp *api.Response
		err  error
		sent = time.Now()
	)
	switch c.method {
	case http.MethodGet:
		resp, err = client.Logical().ReadRawWithDataWithContext(within, c.path, c.query)
	case http.MethodPut:
		resp, err = client.Logical().WriteRawWithContext(within, c.path, c.body)
	case http.MethodDelete:
		resp, err = client.Logical().DeleteRawWithContext(within, c.path)
	}
	if resp == nil {
		return nil, neterr.Classify(ctx, err, b.target)
	}
	defer resp.Body.Close()
	body, err := readBody(resp)
	defer clear(body)
	if errors.Is(err, errTooLong) {
		return nil, backend.Errorf(backend.CodeUnavailable, "%s: the answer is longer than %d bytes", b.target, maxAnswer)
	}
	if err != nil {
		return nil, neterr.Classify(ctx, err, b.target)
	}
	a := &answer{status: resp.StatusCode, retryAfter: neterr.RetryAfter(resp.Header), sent: sent}
	if to, err := resp.Location(); err == nil && to != nil {
		a.redirect = to.Scheme + "://" + to.Host
	}
	if len(body) == 0 && resp.StatusCode == http.StatusNoContent {
		return a, nil
	}
	err = json.Unmarshal(body, a)
	if ours := err == nil && (a.RequestID != "" || a.Errors != nil || a.status < 300); !ours && (a.status < 300 || definite(a.status)) {
		// A web server or proxy in Vault's place must not make a secret missing or denied.
		return nil, &backend.Error{Code: backend.CodeUnavailable, RetryAfter: a.retryAfter,
			Reason: b.target + ": answered with status " + strconv.Itoa(a.status) + " and something that is not Vault's JSON",
			Remedy: "see that address is a Vault server's"}
	}
	return a, nil
}

// definite reports whether an answer of that status says something about the request, not about the server's state.
func definite(status int) bool {
	return status >= 400 && status < 500 && lookupStatus(status).code != backend.CodeUnavailable && lookupStatus(status).code != backend.CodeThrottled
}

func readBody(resp *api.Response) ([]byte, error) {
	var buf bytes.Buffer
	if n := resp.ContentLength; n > 0 && n <= maxAnswer {
		buf.Grow(int(n) + bytes.MinRead)
	}
	_, err := buf.ReadFrom(resp.Body)
	return buf.Bytes(), err
}

// newClient gives a client of the SDK whose every setting comes from ours: what the SDK takes from the process's
// environment by itself is overwritten.
func (b *Backend) newClient(token string) (*api.Client, error) {
	tr, err := b.openTransport()
	if err != nil {
		return nil, err
	}
	client, err := api.NewClient(&api.Config{
		Address:          b.settings.address.String(),
		HttpClient:       &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		MaxRetries:       0,
		DisableRedirects: true, // transport follows those that it may
		// No Timeout: with one, the SDK ends the context of a write before its answer can be read.
	})
	if err != nil {
		return nil, backend.Errorf(backend.CodeInvalidConfig, "a VAULT_ variable of the process's environment is malformed")
	}
	headers := http.Header{api.RequestHeaderName: {"true"}}
	for name, value := range b.settings.headers {
		headers.Set(name, value)
	}
	if b.settings.Namespace != "" {
		headers.Set(api.NamespaceHeaderName, b.settings.Namespace)
	}
	client.SetHeaders(headers)
	client.SetWrappingLookupFunc(func(string, string) string { return "" })
	client.SetToken(token)
	return client, nil
}

// openTransport makes the connection pool at first use, which reads the certificates. A failure is tried again.
func (b *Backend) openTransport() (*transport, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.transport != nil {
		return b.transport, nil
	}
	tlsConfig, err := b.settings.tlsConfig()
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: min(b.settings.Timeout, 30*time.Second), KeepAlive: 30 * time.Second}
	base := &http.Transport{
		DialContext:           dialer.DialContext,
		TLSClientConfig:       tlsConfig,
		TLSHandshakeTimeout:   10 * time.Second,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       90 * time.Second,
		ExpectContinueTimeout: time.Second,
		Proxy:                 b.settings.proxyFunc(),
	}
	if socket := b.settings.socket; socket != "" {
		socket = b.settings.path(socket)
		base.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		}
		base.Proxy = nil
	}
	b.transport = &transport{Transport: base, trusted: append([]*url.URL{b.settings.address}, b.settings.trusted...)}
	return b.transport, nil
}

// transport is an http.RoundTripper that bounds answers, and follows one redirect to an address that the configuration
// names. Vault's standbys redirect to the active node; a token must not follow them anywhere else.
type transport struct {
	*http.Transport
	trusted []*url.URL
}

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.Transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		to, err := resp.Location()
		if err != nil || !t.trusts(to) {
			break
		}
		again := req.Clone(req.Context())
		if req.Body != nil {
			if req.GetBody == nil {
				break
			}
			if again.Body, err = req.GetBody(); err != nil {
				break
			}
		}
		_ = resp.Body.Close()
		again.URL, again.Host = to, to.Host
		if resp, err = t.Transport.RoundTrip(again); err != nil {
			return nil, err
		}
	}
	resp.Body = &boundedBody{ReadCloser: resp.Body, left: maxAnswer}
	return resp, nil
}

func (t *transport) trusts(to *url.URL) bool {
	for _, u := range t.trusted {
		if u.Scheme == to.Scheme && u.Host == to.Host {
			return true
		}
	}
	return false
}

// boundedBody fails once more than left bytes were read.
type boundedBody struct {
	io.ReadCloser
	left int64
}

var errTooLong = errors.New("answer too long")

func (r *boundedBody) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if r.left -= int64(n); r.left < 0 {
		return 0, errTooLong
	}
	return n, err
}

// proxyFunc finds the proxy as the standard variables say, from the environment that the host gives.
func (s *settings) proxyFunc() func(*http.Request) (*url.URL, error) {
	if s.proxy != nil {
		return http.ProxyURL(s.proxy)
	}
	env := func(name string) string {
		v, ok := s.lookupEnv(name)
		if !ok {
			v, _ = s.lookupEnv(strings.ToLower(name))
		}
		return v
	}
	c := httpproxy.Config{HTTPProxy: env("HTTP_PROXY"), HTTPSProxy: env("HTTPS_PROXY"), NoProxy: env("NO_PROXY")}
	proxy := c.ProxyFunc()
	return func(r *http.Request) (*url.URL, error) { return proxy(r.URL) }
}

func (s *settings) lookupEnv(name string) (string, bool) {
	if s.host.LookupEnv != nil {
		return s.host.LookupEnv(name)
	}
	return os.LookupEnv(name)
}

func (s *settings) home() (string, error) {
	if home, ok := s.lookupEnv("HOME"); ok && home != "" {
		return home, nil
	}
	return os.UserHomeDir()
}

// parseHeaders reads $VAULT_HEADERS, a JSON object of names and values. The headers that Vault itself uses cannot be
// set there.
func parseHeaders(text string) (map[string]string, error) {
	if text == "" {
		return nil, nil
	}
	var headers map[string]string
	if json.Unmarshal([]byte(text), &headers) != nil {
		return nil, backend.Errorf(backend.CodeInvalidConfig, "VAULT_HEADERS is not a JSON object of texts")
	}
	for name := range headers {
		if strings.HasPrefix(http.CanonicalHeaderKey(name), "X-Vault-") {
			return nil, backend.Errorf(backend.CodeInvalidConfig, "VAULT_HEADERS sets a header that begins with X-Vault-")
		}
	}
	return headers, nil
}

// settleTLS fills the gaps from the environment: the authority and the client's certificate each as a whole.
func (s *settings) settleTLS(env func(...string) string) error {
	t := &s.TLS
	set := 0
	for _, v := range []string{t.CAFile, t.CAPath, t.CAPEM} {
		if v != "" {
			set++
		}
	}
	if set > 1 {
		return backend.Errorf(backend.CodeInvalidConfig, "tls.ca_file, tls.ca_path and tls.ca_pem exclude one another")
	}
	if set == 0 {
		if t.CAFile = env("CACERT"); t.CAFile == "" {
			if t.CAPEM = env("CACERT_BYTES"); t.CAPEM == "" {
				t.CAPath = env("CAPATH")
			}
		}
	}
	if t.ClientCert == "" && t.ClientKey == "" {
		t.ClientCert, t.ClientKey = env("CLIENT_CERT"), env("CLIENT_KEY")
	}
	if (t.ClientCert == "") != (t.ClientKey == "") {
		return backend.Errorf(backend.CodeInvalidConfig, "tls.client_cert and tls.client_key need one another")
	}
	if t.ServerName == "" {
		t.ServerName = env("TLS_SERVER_NAME")
	}
	if t.MinVersion != "" && t.MinVersion != "1.2" && t.MinVersion != "1.3" {
		return backend.Errorf(backend.CodeInvalidConfig, `tls.min_version can be "1.2" or "1.3"`)
	}
	if v := env("SKIP_VERIFY"); v != "" {
		skip, err := strconv.ParseBool(v)
		if err != nil {
			return backend.Errorf(backend.CodeInvalidConfig, "VAULT_SKIP_VERIFY is neither true nor false")
		}
		s.skipVerify = skip
	}
	return nil
}

func (s *settings) tlsConfig() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: s.TLS.ServerName, InsecureSkipVerify: s.skipVerify} //nolint:gosec // VAULT_SKIP_VERIFY is the user's word, and Describe tells it
	if s.TLS.MinVersion == "1.3" {
		c.MinVersion = tls.VersionTLS13
	}
	var err error
	if c.RootCAs, err = s.authorities(); err != nil {
		return nil, err
	}
	if s.TLS.ClientCert != "" {
		certFile, keyFile := s.path(s.TLS.ClientCert), s.path(s.TLS.ClientKey)
		if _, err := tls.LoadX509KeyPair(certFile, keyFile); err != nil {
			return nil, backend.Errorf(backend.CodeInvalidConfig, "tls.client_cert %s and tls.client_key %s cannot be loaded: %s", certFile, keyFile, fileReason(err, "not a PEM certificate and its key"))
		}
		// Loaded anew for each connection, since short-lived certificates are replaced in place. The server's hint of
		// acceptable authorities is not asked: Vault's certificate method has its own.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(certFile, keyFile)
			return &cert, err
		}
	}
	return c, nil
}

// authorities gives the certificates that may sign the server's; nil is the system's.
func (s *settings) authorities() (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	add := func(setting, file string) error {
		pem, err := os.ReadFile(file)
		if err != nil || !pool.AppendCertsFromPEM(pem) {
			return backend.Errorf(backend.CodeInvalidConfig, "%s %s: %s", setting, file, fileReason(err, "no PEM certificate in it"))
		}
		return nil
	}
	switch t := s.TLS; {
	case t.CAFile != "":
		return pool, add("tls.ca_file", s.path(t.CAFile))
	case t.CAPEM != "":
		if !pool.AppendCertsFromPEM([]byte(t.CAPEM)) {
			return nil, backend.Errorf(backend.CodeInvalidConfig, "tls.ca_pem holds no PEM certificate")
		}
		return pool, nil
	case t.CAPath != "":
		dir := s.path(t.CAPath)
		files, err := os.ReadDir(dir)
		if err != nil {
			return nil, backend.Errorf(backend.CodeInvalidConfig, "tls.ca_path %s: %s", dir, fileReason(err, ""))
		}
		found := false
		for _, f := range files {
			// Directories, and what openssl rehash leaves dangling, are passed over.
			if info, err := os.Stat(filepath.Join(dir, f.Name())); err == nil && info.Mode().IsRegular() {
				found = add("tls.ca_path", filepath.Join(dir, f.Name())) == nil || found
			}
		}
		if !found {
			return nil, backend.Errorf(backend.CodeInvalidConfig, "tls.ca_path %s: no PEM certificate in it", dir)
		}
		return pool, nil
	}
	return nil, nil
}

// fileReason says why a file could not be read, otherwise why its content will not do.
func fileReason(err error, content string) string {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "no such file"
	case errors.Is(err, os.ErrPermission):
		return "permission denied"
	case err != nil && content == "":
		return "it cannot be read"
	}
	return content
}
