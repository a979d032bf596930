package oauth2

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/internal/neterr"
)

// maxAnswer bounds an answer of the server in bytes.
const maxAnswer = 1 << 20

// client gives the HTTP client, made at first use. It follows no redirect: a token, code or secret would go along.
func (b *Backend) client() (*http.Client, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.http != nil {
		return b.http, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if file := b.config.TLS.CAFile; file != "" {
		pem, err := os.ReadFile(b.path(file))
		config.RootCAs = x509.NewCertPool()
		if err != nil || !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, backend.Errorf(backend.CodeInvalidConfig, "tls.ca_file %s cannot be read, or holds no PEM certificate", b.path(file))
		}
	}
	if b.config.TLS.ClientCert != "" {
		cert, key := b.path(b.config.TLS.ClientCert), b.path(b.config.TLS.ClientKey)
		load := func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(cert, key)
			if err != nil {
				return nil, backend.Errorf(backend.CodeInvalidConfig, "tls.client_cert %s and tls.client_key %s are no PEM certificate and its key, or cannot be read", cert, key)
			}
			return &pair, nil
		}
		if _, err := load(); err != nil {
			return nil, err
		}
		// Loaded anew for each connection, since short-lived certificates are replaced in place.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	dialer := &net.Dialer{Timeout: min(b.config.Timeout, 30*time.Second), KeepAlive: 30 * time.Second}
	b.http = &http.Client{
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSClientConfig: config, TLSHandshakeTimeout: 10 * time.Second, ForceAttemptHTTP2: true,
			IdleConnTimeout: 90 * time.Second, Proxy: http.ProxyFromEnvironment, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: noRedirect,
	}
	return b.http, nil
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// path makes a path of the settings absolute.
func (b *Backend) path(p string) string {
	if !filepath.IsAbs(p) && b.host.Dir != "" {
		return filepath.Join(b.host.Dir, p)
	}
	return p
}

// reply is an answer of the server. Its body is secret, and the caller's to zero.
type reply struct {
	status int
	wait   time.Duration // what Retry-After says
	json   bool
	body   []byte
	sent   time.Time
}

// send makes one request; its error is the transport's.
func (b *Backend) send(ctx context.Context, step string, req *http.Request) (*reply, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	hc, err := b.client()
	if err != nil {
		return nil, err
	}
	within, cancel := context.WithTimeout(ctx, b.config.Timeout)
	defer cancel()
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "credresolve")
	sent := time.Now()
	res, err := hc.Do(req.WithContext(within))
	if own := (*backend.Error)(nil); errors.As(err, &own) { // of the certificate to show
		return nil, own
	}
	if err != nil {
		return nil, neterr.Classify(ctx, err, b.target+": "+step)
	}
	defer res.Body.Close()
	var buf bytes.Buffer
	n, err := buf.ReadFrom(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		clear(buf.Bytes())
		return nil, neterr.Classify(ctx, err, b.target+": "+step)
	case n > maxAnswer:
		clear(buf.Bytes())
		return nil, b.garbled(step, "the answer is longer than 1 MiB")
	}
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	return &reply{
		status: res.StatusCode, wait: neterr.RetryAfter(res.Header), body: buf.Bytes(), sent: sent,
		json: kind == "application/json" || strings.HasSuffix(kind, "+json"),
	}, nil
}

// get fetches the JSON object at address.
func (b *Backend) get(ctx context.Context, step, address string, into any) (*reply, error) {
	req, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		return nil, b.garbled(step, "the address is malformed")
	}
	r, err := b.send(ctx, step, req)
	if err != nil {
		return nil, err
	}
	if r.status == http.StatusOK && (!r.json || json.Unmarshal(r.body, into) != nil) {
		return nil, b.garbled(step, "the answer is not the JSON that was expected")
	}
	return r, nil
}

// failure is what an answer with another status than success says (RFC 6749, 5.2).
func (b *Backend) failure(step string, r *reply) (name string, err error) {
	var body struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(r.body, &body) != nil || len(body.Error) > 64 {
		body.Error = ""
	}
	return body.Error, b.refused(step, r.status, body.Error, r.wait)
}

// post sends form to address with the client's proof of who it is. Where that is refused and there is a newer one, it is sent once
// more.
func (b *Backend) post(ctx context.Context, step, address string, form url.Values) (*reply, error) {
	revision := ""
	for again := false; ; again = true {
		header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
		form := maps.Clone(form)
		shown, err := b.prove(ctx, address, form, header)
		if err != nil {
			return nil, err
		}
		req, err := http.NewRequest(http.MethodPost, address, strings.NewReader(form.Encode()))
		if err != nil {
			return nil, b.garbled(step, "the address of the endpoint is malformed")
		}
		req.Header = header
		r, err := b.send(ctx, step, req)
		if err != nil || again || shown == "" || !b.refusesClient(step, r) {
			return r, err
		}
		revision = shown
		source := b.config.ClientSecret
		if b.config.ClientAuth == authKey {
			source = b.config.ClientKey
		}
		source.Reject(revision)
		if _, now, err := source.Get(ctx); err != nil || now == revision {
			return r, nil
		}
		clear(r.body)
	}
}

func (b *Backend) refusesClient(step string, r *reply) bool {
	name, _ := b.failure(step, r)
	return r.status != http.StatusOK && (name == "invalid_client" || r.status == http.StatusUnauthorized)
}
