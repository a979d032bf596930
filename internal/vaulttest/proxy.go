package vaulttest

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// Proxy stands between a client and a server: it keeps what was asked, and makes faults that a server does not make on
// demand. It is safe for concurrent use.
type Proxy struct {
	// URL is its address.
	URL string

	server http.Handler
	mu     sync.Mutex
	calls  []Call
	faults []*fault
}

// Call is a request that was made.
type Call struct {
	Method string
	Path   string // with /v1/
	Query  string
	Header http.Header
}

// Fault answers one request in the server's place, or passes it on to server.
type Fault func(w http.ResponseWriter, r *http.Request, server http.Handler)

type fault struct {
	path string
	do   Fault
	left int
}

// Proxy gives a proxy of the server, which ends with the test.
func (s *Server) Proxy(t testing.TB) *Proxy {
	t.Helper()
	target, err := url.Parse(s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true} // tests count the descriptors of their process
	p := &Proxy{server: &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: transport,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			w.WriteHeader(http.StatusBadGateway)
		},
	}}
	h := httptest.NewServer(p)
	p.URL = h.URL
	t.Cleanup(func() {
		h.CloseClientConnections() // a fault may hold one open
		h.Close()
		transport.CloseIdleConnections()
	})
	return p
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.calls = append(p.calls, Call{r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Clone()})
	var do Fault
	for _, f := range p.faults {
		if f.left != 0 && strings.HasPrefix(r.URL.Path, f.path) {
			f.left--
			do = f.do
			break
		}
	}
	p.mu.Unlock()
	if do != nil {
		do(w, r, p.server)
		return
	}
	p.server.ServeHTTP(w, r)
}

// Fail makes the next n requests whose path starts with path meet a fault, all of them when n is negative, until undo.
func (p *Proxy) Fail(path string, n int, f Fault) (undo func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	made := &fault{path, f, n}
	p.faults = append(p.faults, made)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		made.left = 0
	}
}

// Calls gives the requests so far whose path starts with path.
func (p *Proxy) Calls(path string) []Call {
	p.mu.Lock()
	defer p.mu.Unlock()
	var calls []Call
	for _, c := range p.calls {
		if strings.HasPrefix(c.Path, path) {
			calls = append(calls, c)
		}
	}
	return calls
}

// Answer is a fault that answers with a status, headers (name, value, …) and a body.
func Answer(status int, body string, headers ...string) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}
