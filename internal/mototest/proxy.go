package mototest

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// Region is the region that the tests use.
const Region = "eu-west-1"

// Proxy stands between a client and moto. It is safe for concurrent use.
type Proxy struct {
	// URL is the endpoint of every service.
	URL string
	// Direct is an endpoint of the same account that neither counts nor makes faults.
	Direct string
	// Account is the id of the account that all calls are made in; empty without moto.
	Account string

	moto   http.Handler
	mu     sync.Mutex
	calls  []Call
	faults map[string][]Fault
	broken func(Call) Fault
}

// Call is a call that was made.
type Call struct {
	Op     string // the name of the operation, such as GetSecretValue
	Header http.Header
	Body   string
}

// Fault answers one call in the place of moto, or passes it on to next.
type Fault func(w http.ResponseWriter, r *http.Request, next http.Handler)

// New gives a proxy with an account of its own, which ends with the test. It skips the test on a machine without moto.
func New(t testing.TB) *Proxy {
	t.Helper()
	target, err := url.Parse(Start(t))
	if err != nil {
		t.Fatal(err)
	}
	account := fmt.Sprintf("%012d", 200_000_000_000+rand.Int64N(700_000_000_000))
	transport := &http.Transport{MaxIdleConnsPerHost: 32}
	t.Cleanup(transport.CloseIdleConnections)
	p := start(t, &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Header.Set("X-Moto-Account-Id", account)
		},
		Transport: transport,
	})
	p.Account = account
	return p
}

// Alone gives a proxy without moto behind it, for tests of faults only: what meets none is answered with 501.
func Alone(t testing.TB) *Proxy {
	t.Helper()
	return start(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotImplemented) }))
}

func start(t testing.TB, next http.Handler) *Proxy {
	p := &Proxy{moto: next, faults: make(map[string][]Fault)}
	counting, direct := httptest.NewServer(p), httptest.NewServer(p.moto)
	p.URL, p.Direct = counting.URL, direct.URL
	t.Cleanup(func() {
		counting.CloseClientConnections() // a fault may hold one open
		counting.Close()
		direct.Close()
	})
	return p
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	op := r.Header.Get("X-Amz-Target")
	op = op[strings.LastIndexByte(op, '.')+1:]
	if form, err := url.ParseQuery(string(body)); op == "" && err == nil {
		op = form.Get("Action")
	}
	p.mu.Lock()
	call := Call{Op: op, Header: r.Header.Clone(), Body: string(body)}
	p.calls = append(p.calls, call)
	var fault Fault
	if p.broken != nil {
		fault = p.broken(call)
	}
	if queue := p.faults[op]; fault == nil && len(queue) > 0 {
		fault, p.faults[op] = queue[0], queue[1:]
	}
	p.mu.Unlock()
	if fault != nil {
		fault(w, r, p.moto)
		return
	}
	p.moto.ServeHTTP(w, r)
}

// Fail makes the next calls of op meet faults, one each.
func (p *Proxy) Fail(op string, faults ...Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults[op] = append(p.faults[op], faults...)
}

// Break makes every call meet the fault that broken gives for it, if any, until undo.
func (p *Proxy) Break(broken func(Call) Fault) (undo func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broken = broken
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.broken = nil
	}
}

// Times is n times the same fault.
func Times(n int, f Fault) []Fault {
	faults := make([]Fault, n)
	for i := range faults {
		faults[i] = f
	}
	return faults
}

// Calls gives the calls of op so far.
func (p *Proxy) Calls(op string) []Call {
	p.mu.Lock()
	defer p.mu.Unlock()
	var calls []Call
	for _, c := range p.calls {
		if c.Op == op {
			calls = append(calls, c)
		}
	}
	return calls
}

// All gives every call so far.
func (p *Proxy) All() []Call {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Call(nil), p.calls...)
}

// Reset forgets the calls so far.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = nil
}

// Refuse answers with an error code, as AWS JSON 1.1 has it. Header has names and values in turn.
func Refuse(status int, code, message string, header ...string) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, `{"__type":%q,"message":%q}`, code, message)
	}
}

// RefuseXML answers with an error code, as the query protocol of STS has it, and as moto's IAM answers to everybody.
func RefuseXML(status int, code, message string) Fault {
	return Raw(status, "text/xml", fmt.Sprintf(
		`<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error><RequestId>r</RequestId></ErrorResponse>`, code, message))
}

// Raw answers with body.
func Raw(status int, contentType, body string) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// Redirect sends the client to another address.
func Redirect(status int, to string) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Location", to)
		w.WriteHeader(status)
	}
}

// Hang never answers; it ends when the client leaves.
func Hang(_ http.ResponseWriter, r *http.Request, _ http.Handler) { <-r.Context().Done() }

// Slow answers late.
func Slow(d time.Duration) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		select {
		case <-time.After(d):
			next.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	}
}

// Cut breaks the connection in the middle of the answer.
func Cut(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.Header().Set("Content-Length", "4096")
	w.WriteHeader(http.StatusOK)
	_, _ = io.WriteString(w, `{"ARN":"arn:aws:`)
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// LoseAnswer lets moto do the call, and breaks the connection instead of telling its answer.
func LoseAnswer(_ http.ResponseWriter, r *http.Request, next http.Handler) {
	next.ServeHTTP(httptest.NewRecorder(), r)
	panic(http.ErrAbortHandler)
}

// Pass lets a call through; it takes a place in the queue of faults.
func Pass(w http.ResponseWriter, r *http.Request, next http.Handler) { next.ServeHTTP(w, r) }
