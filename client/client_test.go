package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/credref"
	"github.com/credresolve/credresolve/resolver"
)

// canary is in every secret of the tests, and in no error.
const canary = "c4nary"

func TestMain(m *testing.M) {
	if at := os.Getenv(serveAs); at != "" {
		if err := listen(at); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// serveAs is set, to a path, in the environment of a test program that is to listen there and tell what it heard.
const serveAs = "CREDRESOLVE_TEST_LISTEN"

// listen tells, a line each, that it listens, and how many bytes came on each of two connections.
func listen(at string) error {
	l, err := net.Listen("unix", at)
	if err != nil {
		return err
	}
	if err := os.Chmod(at, 0o666); err != nil {
		return err
	}
	fmt.Println("listens")
	for range 2 {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		n, _ := io.Copy(io.Discard, c)
		fmt.Println(n)
	}
	return nil
}

var (
	refA = credref.Ref{Provider: "app", ID: "a"}
	refB = credref.Ref{Provider: "app", ID: "b", Version: "3", Field: "/x~1y"}
)

// serve answers on a Unix socket of the test as handle does, and gives a client of it.
func serve(t *testing.T, handle http.HandlerFunc) *Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: handle}}
	s.Start()
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return dial(t, Config{Socket: socket})
}

// accept gives each connection to a Unix socket of the test to handle, which need not close it, and gives a client of it.
func accept(t *testing.T, handle func(n int, c net.Conn)) *Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var open []net.Conn
	var running sync.WaitGroup
	running.Go(func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			running.Go(func() { handle(n, c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	return dial(t, Config{Socket: socket})
}

func dial(t *testing.T, config Config) *Client {
	t.Helper()
	c, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// answer writes text as the answer to a request.
func answer(status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}
}

// failed fails t unless err has the code and tells no secret under any verb.
func failed(t *testing.T, err error, code backend.Code) {
	t.Helper()
	if got := backend.CodeOf(err); got != code {
		t.Errorf("%s (%v), want %s", got, err, code)
	}
	if text := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(text, canary) {
		t.Error("a secret is in the error")
	}
}

func TestAnswersThatNoSidecarGives(t *testing.T) {
	t.Parallel()
	result := func(rest string) string {
		return `{"results":[{"ref":{"provider":"app","id":"a"}` + rest + `}]}`
	}
	for name, tt := range map[string]struct {
		status int
		text   string
		code   backend.Code
	}{
		"nothing":                {200, "", backend.CodeInternal},
		"garbage":                {200, "v-c4nary", backend.CodeInternal},
		"garbage that failed":    {503, "<html>v-c4nary</html>", backend.CodeInternal},
		"another type":           {200, `{"results":[{"ref":"v-c4nary"}]}`, backend.CodeInternal},
		"a number for a value":   {200, result(`,"value":4.2`), backend.CodeInternal},
		"an object for a value":  {200, result(`,"value":{"c4nary":1}`), backend.CodeInternal},
		"what is no base64":      {200, result(`,"value_base64":"v-c4nary!"`), backend.CodeInternal},
		"a number for base64":    {200, result(`,"value_base64":1234`), backend.CodeInternal},
		"a value cut off":        {200, `{"results":[{"ref":{"provider":"app","id":"a"},"value":"v-c4nary`, backend.CodeInternal},
		"no value":               {200, result(``), backend.CodeInternal},
		"null for a value":       {200, result(`,"value":null`), backend.CodeInternal},
		"a field without value":  {200, result(`,"fields":{"x":{}}`), backend.CodeInternal},
		"unchanged, not asked":   {200, result(`,"revision":"r","unchanged":true`), backend.CodeInternal},
		"another ref":            {200, `{"results":[{"ref":{"provider":"app","id":"b"},"value":"v-c4nary"}]}`, backend.CodeInternal},
		"another field":          {200, `{"results":[{"ref":{"provider":"app","id":"a","field":"x"},"value":"v-c4nary"}]}`, backend.CodeInternal},
		"no result":              {200, `{"results":[]}`, backend.CodeInternal},
		"null":                   {200, `null`, backend.CodeInternal},
		"two results":            {200, `{"results":[{"ref":{"provider":"app","id":"a"},"value":"v-c4nary"},{"ref":{"provider":"app","id":"a"},"value":"v-c4nary"}]}`, backend.CodeInternal},
		"not modified":           {304, "", backend.CodeInternal},
		"an error without code":  {400, `{"error":{"message":"m"}}`, backend.CodeInternal},
		"a code of tomorrow":     {200, result(`,"error":{"code":"of_tomorrow","message":"m"}`), "of_tomorrow"},
		"a result without code":  {200, result(`,"error":{"message":"m"}`), backend.CodeInternal},
		"an error that is ok":    {200, result(`,"error":{"code":"ok","message":"m"}`), backend.CodeInternal},
		"an error of the result": {200, result(`,"error":{"code":"not_found","message":"m"}`), backend.CodeNotFound},
		"an error of all":        {403, `{"error":{"code":"denied","message":"m"},"request_id":"1"}`, backend.CodeDenied},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := serve(t, answer(tt.status, tt.text))
			v, err := c.Resolve(t.Context(), refA)
			failed(t, err, tt.code)
			if v != nil {
				t.Error("there is a value")
			}
			var of *resolver.RefError
			if !errors.As(err, &of) || of.Ref != refA {
				t.Error("the error does not name its ref")
			}
			if errors.Is(err, ErrUnreachable) {
				t.Error("a sidecar that answers is unreachable")
			}
		})
	}
}

func TestUnknownCodeCountsAsInternal(t *testing.T) {
	t.Parallel()
	e := (&Error{Code: "of_tomorrow", Message: "m", RetryAfterMS: -5}).Err()
	if code := backend.CodeOf(e); code.ExitStatus() != backend.CodeInternal.ExitStatus() || code.Retryable() {
		t.Errorf("exit status %d, retryable %v", code.ExitStatus(), code.Retryable())
	}
	if after := backend.RetryAfter(e); after != 0 {
		t.Errorf("wait %s", after)
	}
	far := (&Error{Code: backend.CodeThrottled, RetryAfterMS: 1 << 62}).Err()
	if after := backend.RetryAfter(far); after <= 0 || after > maxRetryAfter {
		t.Errorf("wait %s", after)
	}
}

// A redirect is never followed: a token would go along.
func TestRedirectIsAnError(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	for _, status := range []int{301, 302, 303, 307, 308} {
		c := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if asked.Add(1); r.URL.Path == "/elsewhere" {
				t.Error("the redirect was followed")
			}
			w.Header().Set("Location", "/elsewhere?v-c4nary")
			w.WriteHeader(status)
		})
		_, err := c.Resolve(t.Context(), refA)
		failed(t, err, backend.CodeInternal)
		failed(t, c.Revoke(t.Context(), refA), backend.CodeInternal)
		failed(t, c.EndSession(t.Context(), "x"), backend.CodeInternal)
	}
	if n := asked.Load(); n != 15 {
		t.Errorf("%d requests, want 15", n)
	}
}

func TestHugeAnswer(t *testing.T) {
	t.Parallel()
	endless := func(w http.ResponseWriter, _ *http.Request) {
		block := []byte(strings.Repeat("v-c4nary", 1<<14))
		for {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}
	c := serve(t, endless)
	c.most = 1 << 20
	_, err := c.Resolve(t.Context(), refA)
	failed(t, err, backend.CodeInternal)
	if !strings.Contains(err.Error(), "larger than") {
		t.Error(err)
	}
	header := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Long", strings.Repeat("c4nary", 1<<16))
	})
	_, err = header.Resolve(t.Context(), refA)
	failed(t, err, backend.CodeUnavailable)
}

// Whatever of an answer is missing, it is unavailable, and no part of it is taken for an answer.
func TestBrokenConnections(t *testing.T) {
	t.Parallel()
	const value = `{"results":[{"ref":{"provider":"app","id":"a"},"value":"v-c4nary"}]}`
	for name, text := range map[string]string{
		"at once":        "",
		"in the status":  "HTTP/1.1 2",
		"in the headers": "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n",
		"no HTTP":        "v-c4nary\r\n\r\n",
		"in the body":    fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(value)+1, value),
		"in a chunk":     fmt.Sprintf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(value), value),
	} {
		for _, half := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, half %v", name, half), func(t *testing.T) {
				t.Parallel()
				c := accept(t, func(_ int, conn net.Conn) {
					if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
						return
					}
					_, _ = io.WriteString(conn, text)
					if half { // it still reads, and never ends
						_ = conn.(*net.UnixConn).CloseWrite()
					} else {
						_ = conn.Close()
					}
				})
				_, err := c.Resolve(t.Context(), refA)
				failed(t, err, backend.CodeUnavailable)
				if !errors.Is(err, ErrUnreachable) {
					t.Error("no sidecar answered, and it is not unreachable")
				}
			})
		}
	}
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := dial(t, Config{Socket: filepath.Join(dir, "sock")})
	_, err := c.Resolve(t.Context(), refA)
	failed(t, err, backend.CodeUnavailable)
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "credresolve serve") {
		t.Error(err)
	}
	if _, err := c.Providers(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Error(err)
	}
}

// A context that ends is obeyed at once, whatever the sidecar does meanwhile.
func TestContextEndsPromptly(t *testing.T) {
	t.Parallel()
	for name, handle := range map[string]func(int, net.Conn){
		"no answer":   func(_ int, c net.Conn) { _, _ = io.Copy(io.Discard, c) },
		"no more":     func(_ int, c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{") },
		"not reading": func(int, net.Conn) {},
		"drop by drop": func(_ int, c net.Conn) {
			_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n")
			for err == nil {
				time.Sleep(10 * time.Millisecond)
				_, err = io.WriteString(c, " ")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := accept(t, func(n int, conn net.Conn) {
				if name != "not reading" { // what comes before the request is no answer to it
					if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
						return
					}
				}
				handle(n, conn)
			})
			for what, want := range map[string]backend.Code{"deadline": backend.CodeTimeout, "cancel": backend.CodeCanceled} {
				ctx, cancel := context.WithCancel(t.Context())
				if what == "deadline" {
					ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
				} else {
					time.AfterFunc(50*time.Millisecond, cancel)
				}
				began := time.Now()
				_, err := c.Resolve(ctx, refA)
				failed(t, err, want)
				if errors.Is(err, ErrUnreachable) {
					t.Errorf("%s: who gave up is told that no sidecar is there", what)
				}
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("%s: it took %s", what, took)
				}
				cancel()
			}
		})
	}
}

// The connections of a sidecar that was started anew are of no use, which costs no request.
func TestIdleConnectionThatWasClosed(t *testing.T) {
	t.Parallel()
	const text = `{"results":[{"ref":{"provider":"app","id":"a"},"value":"v-c4nary"}]}`
	c := accept(t, func(n int, conn net.Conn) {
		in := bufio.NewReader(conn)
		for k := 0; ; k++ {
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			if n == 0 && k == 1 { // the second request on the first connection
				_ = conn.Close()
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
		}
	})
	for i := range 3 {
		if _, err := c.Resolve(t.Context(), refA); err != nil {
			t.Errorf("request %d: %v", i, err)
		}
	}
}

// echo answers each ref with its id as the value.
func echo(t *testing.T, check func(ResolveRequest)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var req ResolveRequest
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			t.Error("no request of the form")
		}
		check(req)
		var out ResolveAnswer
		for _, q := range req.Refs {
			out.Results = append(out.Results, Result{Ref: q.Ref, Value: &Text{backend.NewSecretString(q.ID)}})
		}
		_ = json.NewEncoder(w).Encode(out)
	}
}

func TestManyRefsGoOutInPortions(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	c := serve(t, echo(t, func(req ResolveRequest) {
		requests.Add(1)
		size := 0
		for _, q := range req.Refs {
			size += len(q.ID) + len(q.Field)
		}
		if len(req.Refs) > maxBatch || size > maxRequest {
			t.Errorf("a request of %d refs, %d bytes", len(req.Refs), size)
		}
	}))
	for name, tt := range map[string]struct {
		count, length, requests int
	}{"none": {0, 1, 0}, "one": {1, 2000, 1}, "many": {1201, 4, 3}, "large": {300, 2000, 2}} {
		requests.Store(0)
		refs := make([]credref.Ref, tt.count)
		for i := range refs {
			refs[i] = credref.Ref{Provider: "app", ID: fmt.Sprintf("%0*d", tt.length, i)}
		}
		out := c.ResolveAll(t.Context(), refs)
		if len(out) != tt.count {
			t.Fatalf("%s: %d outcomes", name, len(out))
		}
		for i, o := range out {
			if o.Err != nil || o.Ref != refs[i] || string(o.Value.Secret().Reveal()) != refs[i].ID {
				t.Fatalf("%s: outcome %d: %v", name, i, o.Err)
			}
		}
		if n := requests.Load(); int(n) != tt.requests {
			t.Errorf("%s: %d requests, want %d", name, n, tt.requests)
		}
	}
}

// What is no ref, and JSON may be unable to say, is answered here, and hides nothing else.
func TestMalformedRefs(t *testing.T) {
	t.Parallel()
	c := serve(t, echo(t, func(req ResolveRequest) {
		if len(req.Refs) != 2 {
			t.Errorf("%d refs went out", len(req.Refs))
		}
	}))
	refs := []credref.Ref{{Provider: "app", ID: "c4nary\xff"}, refA, {Provider: "App", ID: "c4nary"}, refB, {}}
	out := c.ResolveAll(t.Context(), refs)
	for i, o := range out {
		switch {
		case o.Ref != refs[i]:
			t.Errorf("outcome %d is of another ref", i)
		case refs[i] == refA || refs[i] == refB:
			if o.Err != nil {
				t.Errorf("outcome %d: %v", i, o.Err)
			}
		default:
			if got := backend.CodeOf(o.Err); got != backend.CodeUsage || strings.Contains(o.Err.Error(), canary) {
				t.Errorf("outcome %d: %s", i, got)
			}
		}
	}
}

func TestValueIsWhatTheSidecarHas(t *testing.T) {
	t.Parallel()
	expires, after := time.Date(2031, 1, 2, 3, 4, 5, 600, time.UTC), time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, facts := range map[string]resolver.ValueFacts{
		"plain":     {Secret: backend.NewSecretString("v-c4nary\n\"\\ é 🔑"), Type: backend.TypeUserValue, Revision: "r"},
		"empty":     {Secret: backend.NewSecretString("")},
		"no text":   {Secret: backend.NewSecret([]byte{0xff, 0, 'c'})},
		"a number":  {Secret: backend.NewJSONSecret([]byte("1e400"))},
		"an object": {Secret: backend.NewJSONSecret([]byte(`{"a": "c4nary"}`))},
		"whole": {
			Fields: map[string]backend.Secret{"user": backend.NewSecretString("u"), "n": backend.NewJSONSecret([]byte("7")), "b": backend.NewSecret([]byte{0x80}), "": backend.NewSecretString("")},
			Type:   backend.TypeBasic, Version: "v7", Revision: "abc", Expires: expires, RefreshAfter: after, Stale: true,
			RefreshError: &backend.Error{Code: backend.CodeThrottled, Reason: "too many calls", RetryAfter: 3 * time.Second},
			Metadata:     map[string]string{"k": "v", "": "\x7f<>"},
		},
	} {
		want := resolver.NewValue(facts)
		text, err := json.Marshal(ResolveAnswer{Results: []Result{NewResult(resolver.Outcome{Ref: refA, Value: want})}})
		if err != nil {
			t.Fatal(err)
		}
		c := serve(t, answer(200, string(text)))
		o := c.ResolveWith(t.Context(), []credref.Ref{refA}, resolver.Demand{Whole: true})[0]
		if o.Err != nil {
			t.Errorf("%s: %v", name, o.Err)
			continue
		}
		got := o.Value
		if !got.Secret().Equal(want.Secret()) || got.Secret().IsJSON() != want.Secret().IsJSON() || len(got.Fields()) != len(want.Fields()) ||
			got.Type() != want.Type() || got.Version() != want.Version() || got.Revision() != want.Revision() || got.Stale() != want.Stale() ||
			!got.Expires().Equal(want.Expires()) || !got.RefreshAfter().Equal(want.RefreshAfter()) || fmt.Sprint(got.Metadata()) != fmt.Sprint(want.Metadata()) {
			t.Errorf("%s: it is another value", name)
		}
		if a, b := got.RefreshError(), want.RefreshError(); backend.CodeOf(a) != backend.CodeOf(b) || fmt.Sprint(a) != fmt.Sprint(b) || backend.RetryAfter(a) != backend.RetryAfter(b) {
			t.Errorf("%s: the refresh failed with %v, want %v", name, a, b)
		}
		for field, s := range want.Fields() {
			if f := got.Fields()[field]; !f.Equal(s) || f.IsJSON() != s.IsJSON() {
				t.Errorf("%s: field %q is another", name, field)
			}
		}
		_, err = c.Resolve(t.Context(), refA)
		if code := backend.CodeOf(err); (name == "whole") != (code == backend.CodeFieldRequired) {
			t.Errorf("%s: without a demand: %v", name, err)
		}
	}
}

func TestRequestIsWhatWasAsked(t *testing.T) {
	t.Parallel()
	stale := 2 * time.Second
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(RequestHeader) == "" || r.Header.Get("Content-Type") != "application/json" || r.Host != "localhost" || r.Header["Idempotency-Key"] != nil {
			t.Errorf("the headers are %v, the host %q", r.Header, r.Host)
		}
		text, _ := io.ReadAll(r.Body)
		const want = `{"refs":[{"provider":"app","id":"a"},{"provider":"app","id":"b","version":"3","field":"/x~1y"}],"min_freshness":"1m0s","max_stale":"2s","no_cache":true}`
		if string(text) != want {
			t.Errorf("the body is %s", text)
		}
		answer(503, `{"error":{"code":"unavailable","message":"m","retry_after_ms":1500}}`)(w, r)
	})
	for _, o := range c.ResolveWith(t.Context(), []credref.Ref{refA, refB}, resolver.Demand{MinFreshness: time.Minute, MaxStale: &stale, NoCache: true}) {
		failed(t, o.Err, backend.CodeUnavailable)
		if backend.RetryAfter(o.Err) != 1500*time.Millisecond || errors.Is(o.Err, ErrUnreachable) {
			t.Error(o.Err)
		}
	}
}

func TestToken(t *testing.T) {
	t.Parallel()
	var got atomic.Value
	handle := func(w http.ResponseWriter, r *http.Request) {
		got.Store(r.Header.Get("Authorization"))
		answer(401, `{"error":{"code":"auth_required","message":"the token does not count"}}`)(w, r)
	}
	socket := serve(t, handle).config.Socket
	c := dial(t, Config{Socket: socket, Token: backend.Literal(backend.NewSecretString("t-c4nary"))})
	_, err := c.Resolve(t.Context(), refA)
	failed(t, err, backend.CodeAuthRequired)
	if got.Load() != "Bearer t-c4nary" {
		t.Error("the token did not come")
	}
	for _, bad := range []string{"t-c4nary\n", "t c4nary", "t-c4nary\x00", "t-c4nary\u00e9"} {
		got.Store("")
		c := dial(t, Config{Socket: socket, Token: backend.Literal(backend.NewSecretString(bad))})
		_, err := c.Resolve(t.Context(), refA)
		failed(t, err, backend.CodeInvalidConfig)
		if errors.Is(err, ErrUnreachable) || got.Load() != "" {
			t.Error("a token that is none was sent")
		}
	}
	for _, addr := range []string{fmt.Sprint(c), fmt.Sprintf("%+v", *c), fmt.Sprintf("%#v", c.config)} {
		if strings.Contains(addr, canary) {
			t.Error("a client prints its token")
		}
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, config := range []Config{
		{Socket: "/s", Address: "http://127.0.0.1:1"}, {Address: "https://127.0.0.1:1"}, {Address: "127.0.0.1:1"}, {Address: "http://192.0.2.1:1"},
		{Address: "http://example.com"}, {Address: "http://c4nary@127.0.0.1:1"}, {Address: "http://127.0.0.1:1/v1"}, {Address: "http://127.0.0.1:1?c4nary"},
		{Address: "http://127.0.0.1:1#c4nary"}, {Address: "http://[::1"}, {Address: "unix:///c4nary"},
		{LookupEnv: func(name string) (string, bool) { return "c4nary/relative", name == "CREDRESOLVE_SOCKET" }},
	} {
		_, err := New(config)
		failed(t, err, backend.CodeInvalidConfig)
	}
	for _, address := range []string{"http://127.0.0.1:1", "http://localhost:1/", "http://[::1]:1"} {
		if _, err := New(Config{Address: address}); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	env := func(pairs ...string) func(string) (string, bool) {
		return func(name string) (string, bool) {
			i := slices.Index(pairs, name)
			if i < 0 {
				return "", false
			}
			return pairs[i+1], true
		}
	}
	for want, lookup := range map[string]func(string) (string, bool){
		"/x/s":                    env("CREDRESOLVE_SOCKET", "/x/s", "XDG_RUNTIME_DIR", "/run/user/1"),
		"/run/u/credresolve/sock": env("CREDRESOLVE_SOCKET", "", "XDG_RUNTIME_DIR", "/run/u"),
	} {
		if got, err := SocketPath(lookup); err != nil || got != filepath.FromSlash(want) {
			t.Errorf("%s, %v, want %s", got, err, want)
		}
	}
}

func TestResolveUnless(t *testing.T) {
	t.Parallel()
	unchanged := `{"results":[{"ref":{"provider":"app","id":"a"},"revision":"r","unchanged":true}]}`
	value := `{"results":[{"ref":{"provider":"app","id":"a"},"revision":"s","value":"v-c4nary"}]}`
	for name, tt := range map[string]struct {
		revision, text string
		code           backend.Code
		value          bool
	}{
		"the same":             {"r", unchanged, backend.CodeOK, false},
		"another":              {"r", value, backend.CodeOK, true},
		"none":                 {"", value, backend.CodeOK, true},
		"unchanged of nothing": {"", unchanged, backend.CodeInternal, false},
		"of another ref":       {"r", strings.Replace(unchanged, `"a"`, `"b"`, 1), backend.CodeInternal, false},
		"two":                  {"r", `{"results":[]}`, backend.CodeInternal, false},
		"denied":               {"r", `{"results":[{"ref":{"provider":"app","id":"a"},"unchanged":true,"error":{"code":"denied","message":"m"}}]}`, backend.CodeDenied, false},
	} {
		c := serve(t, func(w http.ResponseWriter, r *http.Request) {
			var req ResolveRequest
			if err := json.NewDecoder(r.Body).Decode(&req); err != nil || len(req.Refs) != 1 || req.Refs[0] != (RefQuery{Ref: refA, IfRevision: tt.revision}) {
				t.Errorf("%s: it asks for %+v, %v", name, req, err)
			}
			answer(200, tt.text)(w, r)
		})
		v, err := c.ResolveUnless(t.Context(), refA, tt.revision)
		failed(t, err, tt.code)
		if (v != nil) != tt.value {
			t.Errorf("%s: the value is %v", name, v)
		}
	}
	_, err := dial(t, Config{Socket: "/nowhere"}).ResolveUnless(t.Context(), credref.Ref{Provider: "C4nary"}, "r")
	failed(t, err, backend.CodeUsage)
}
