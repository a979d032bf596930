package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/credresolve/credresolve/adapters/file"
	"github.com/credresolve/credresolve/adapters/memory"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/client"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/credref"
)

// canary is in every secret of the tests, and nowhere but in the answers that are to have one.
const canary = "c4nary"

// sidecar is a Server that runs for a test.
type sidecar struct {
	t      *testing.T
	dir    string
	socket string
	server *Server
	logs   *buffer
	stop   func() error // once
	kinds  *backend.Registry
}

// buffer is a bytes.Buffer for several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

const providers = `
  m: {kind: memory, values: {plain: "plain-c4nary", db: '{"user":"u-c4nary","password":"p-c4nary","port":5432}', other: "other-c4nary"}}
  conf: {kind: file, path: conf.json, mode: json, cache: {ttl: 1h, max_stale: 1h}}
`

// start runs a sidecar of the test's providers and the section serve, which is indented by two.
func start(t *testing.T, serve string, more ...backend.Kind) *sidecar {
	t.Helper()
	sc := &sidecar{t: t, dir: t.TempDir(), logs: &buffer{}}
	sc.kinds = testKinds(more...)
	sc.socket = filepath.Join(sc.dir, "run", "sock")
	sc.write("conf.json", `{"a": "a-c4nary", "n": 7}`)
	sc.configure(providers, serve)
	sc.open()
	return sc
}

func (sc *sidecar) write(name, content string) {
	sc.t.Helper()
	if err := os.WriteFile(filepath.Join(sc.dir, name), []byte(content), 0o600); err != nil {
		sc.t.Fatal(err)
	}
}

func (sc *sidecar) configure(providers, serve string) {
	sc.t.Helper()
	text := "version: 1\nproviders:" + providers
	if serve != "" {
		text += "serve:\n" + serve
	}
	sc.write("credresolve.yaml", text)
}

// open starts the sidecar, and ends it with the test.
func (sc *sidecar) open() {
	t := sc.t
	t.Helper()
	ready := make(chan struct{})
	s, err := Open(t.Context(), sc.options(func() { close(ready) }))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	sc.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(30 * time.Second):
			return fmt.Errorf("the sidecar does not end")
		}
	})
	t.Cleanup(func() {
		if err := sc.stop(); err != nil {
			t.Error(err)
		}
		if strings.Contains(sc.logs.String(), canary) {
			t.Error("a secret is in the log")
		}
		if strings.Contains(sc.auditLog(), canary) {
			t.Error("a secret is in the audit log")
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		t.Fatalf("the sidecar ended: %v", err)
	case <-time.After(20 * time.Second):
		t.Fatal("the sidecar is not ready")
	}
	sc.server = s
}

func (sc *sidecar) options(ready func()) Options {
	return Options{
		Load: func(context.Context) (*config.File, error) {
			return config.Load(filepath.Join(sc.dir, "credresolve.yaml"), sc.kinds)
		},
		Open: config.Options{
			StateDir: filepath.Join(sc.dir, "state"),
			LookupEnv: func(name string) (string, bool) {
				value, set := map[string]string{"CREDRESOLVE_SOCKET": sc.socket}[name]
				return value, set
			},
		},
		Version: "test", Log: slog.New(slog.NewTextHandler(sc.logs, &slog.HandlerOptions{Level: slog.LevelDebug})), Ready: ready,
	}
}

func (sc *sidecar) auditLog() string {
	text, err := os.ReadFile(filepath.Join(sc.dir, "state", "audit.jsonl"))
	if err != nil && !os.IsNotExist(err) {
		sc.t.Error(err)
	}
	return string(text)
}

// client gives a client with a token, empty for none.
func (sc *sidecar) client(token string) *client.Client {
	sc.t.Helper()
	c := client.Config{Socket: sc.socket}
	if token != "" {
		c.Token = backend.Literal(backend.NewSecretString(token))
	}
	out, err := client.New(c)
	if err != nil {
		sc.t.Fatal(err)
	}
	sc.t.Cleanup(func() { _ = out.Close() })
	return out
}

// reply is an answer as a test looks at it.
type reply struct {
	status int
	header http.Header
	body   string
}

func (r reply) json(t *testing.T, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.body), into); err != nil {
		t.Fatalf("the answer is no such JSON: %v", err)
	}
}

func (r reply) code(t *testing.T) backend.Code {
	t.Helper()
	var e client.ErrorAnswer
	r.json(t, &e)
	return e.Error.Code
}

// do sends one request with the given headers, "Name: value" each.
func (sc *sidecar) do(method, path, body string, headers ...string) reply {
	sc.t.Helper()
	req, err := http.NewRequestWithContext(sc.t.Context(), method, "http://localhost"+path, strings.NewReader(body))
	if err != nil {
		sc.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
		if name == "Host" {
			req.Host = value
		}
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", sc.socket)
	}}
	res, err := transport.RoundTrip(req)
	if err != nil {
		sc.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		sc.t.Fatal(err)
	}
	return reply{res.StatusCode, res.Header, string(text)}
}

func (sc *sidecar) resolve(refs ...string) []client.Result {
	sc.t.Helper()
	got := sc.do("POST", "/v1/resolve", `{"refs":[`+strings.Join(refs, ",")+`]}`)
	if got.status != http.StatusOK {
		sc.t.Fatalf("status %d", got.status)
	}
	var answer client.ResolveAnswer
	got.json(sc.t, &answer)
	return answer.Results
}

func text(t *testing.T, r client.Result) string {
	t.Helper()
	if r.Error != nil || r.Value == nil {
		t.Fatalf("no value: %+v", r.Error)
	}
	return string(r.Value.Reveal())
}

func TestResolve(t *testing.T) {
	t.Parallel()
	sc := start(t, "")
	got := sc.resolve(
		`{"provider":"m","id":"db","field":"password"}`, `{"provider":"m","id":"none"}`, `{"provider":"m","id":"db"}`,
		`{"provider":"x","id":"y"}`, `{"provider":"m","id":"db","field":"port"}`, `{"provider":"conf","id":"/n"}`, `{"provider":"M!","id":"y"}`)
	if text(t, got[0]) != "p-c4nary" || got[0].Revision == "" || got[0].Type != backend.TypeUserValue || got[0].Fields != nil {
		t.Errorf("a field: %+v", got[0])
	}
	for i, code := range map[int]backend.Code{1: backend.CodeNotFound, 3: backend.CodeInvalidConfig, 6: backend.CodeUsage} {
		if got[i].Error == nil || got[i].Error.Code != code || got[i].Error.Message == "" {
			t.Errorf("result %d: %+v, want %s", i, got[i].Error, code)
		}
	}
	if len(got[2].Fields) != 3 || got[2].Value == nil {
		t.Errorf("a whole secret: %+v", got[2])
	}
	if text(t, got[4]) != "5432" || !got[4].JSON || text(t, got[5]) != "7" || !got[5].JSON {
		t.Error("a number lost its type")
	}
	if again := sc.resolve(fmt.Sprintf(`{"provider":"m","id":"db","field":"password","if_revision":%q}`, got[0].Revision)); !again[0].Unchanged || again[0].Value != nil || again[0].Revision != got[0].Revision {
		t.Errorf("an equal revision: %+v", again[0])
	}
	if old := sc.resolve(`{"provider":"m","id":"db","field":"password","if_revision":"0123"}`); old[0].Unchanged || text(t, old[0]) != "p-c4nary" {
		t.Errorf("another revision: %+v", old[0])
	}
}

func TestResolveOneByGet(t *testing.T) {
	t.Parallel()
	sc := start(t, "")
	const path = "/v1/resolve?ref=cred%3A%2F%2Fm%2Fdb%23password"
	got := sc.do("GET", path, "")
	var r client.Result
	got.json(t, &r)
	etag := got.header.Get("ETag")
	if got.status != http.StatusOK || text(t, r) != "p-c4nary" || etag != `"`+r.Revision+`"` || got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("status %d, ETag %s, Cache-Control %s", got.status, etag, got.header.Get("Cache-Control"))
	}
	for _, match := range []string{etag, "W/" + etag, `"x", ` + etag, "*"} {
		if got := sc.do("GET", path, "", "If-None-Match: "+match); got.status != http.StatusNotModified || got.body != "" || got.header.Get("ETag") != etag {
			t.Errorf("If-None-Match %s: status %d", match, got.status)
		}
	}
	if got := sc.do("GET", path, "", `If-None-Match: "x"`); got.status != http.StatusOK {
		t.Errorf("another tag: status %d", got.status)
	}
	for query, want := range map[string]int{
		"?ref=cred%3A%2F%2Fm%2Fnone": 404, "?ref=cred%3A%2F%2Fx%2Fy": 400, "": 400, "?ref=c4nary": 400, "?ref=%zz": 400,
		"?ref=cred%3A%2F%2Fm%2Fplain&ref=cred%3A%2F%2Fm%2Fdb": 400, "?ref=cred%3A%2F%2Fm%2Fplain&what=1": 400,
		"?ref=cred%3A%2F%2Fm%2Fplain&min_freshness=-1s": 400, "?ref=cred%3A%2F%2Fm%2Fplain&max_stale=0s&min_freshness=5m&no_cache=true": 200,
	} {
		got := sc.do("GET", "/v1/resolve"+query, "")
		if got.status != want || want != 200 && strings.Contains(got.body, canary) {
			t.Errorf("%q: status %d, want %d", query, got.status, want)
		}
	}
}

// What is written by hand is what encoding/json makes of the public types.
func TestResultIsOfThePublicType(t *testing.T) {
	t.Parallel()
	sc := start(t, "")
	for _, ref := range []string{`{"provider":"m","id":"db"}`, `{"provider":"m","id":"no\u2028\"<ne"}`, `{"provider":"conf","id":"/n"}`} {
		got := sc.do("POST", "/v1/resolve", `{"refs":[`+ref+`]}`)
		var answer client.ResolveAnswer
		got.json(t, &answer)
		var want bytes.Buffer
		enc := json.NewEncoder(&want)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(answer); err != nil || want.String() != got.body {
			t.Errorf("%s is written as\n%s, not as\n%s%v", ref, got.body, want.String(), err)
		}
	}
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	sc := start(t, "  limits: {body: 4096, batch: 10}\n")
	one := `{"provider":"m","id":"plain"}`
	for name, c := range map[string]struct {
		method, path, body string
		headers            []string
		status             int
	}{
		"no JSON":            {"POST", "/v1/resolve", "c4nary", nil, 400},
		"an empty body":      {"POST", "/v1/resolve", "", []string{"Content-Type: application/json"}, 400},
		"a list":             {"POST", "/v1/resolve", "[]", nil, 400},
		"an unknown key":     {"POST", "/v1/resolve", `{"refs":[],"c4nary":1}`, nil, 400},
		"a subject":          {"POST", "/v1/resolve", `{"refs":[` + one + `],"subject":{"tenant":"t"}}`, nil, 400},
		"a wrong type":       {"POST", "/v1/resolve", `{"refs":"c4nary"}`, nil, 400},
		"two values":         {"POST", "/v1/resolve", `{"refs":[]} {"refs":[]}`, nil, 400},
		"a negative":         {"POST", "/v1/resolve", `{"refs":[],"max_stale":"-1s"}`, nil, 400},
		"another type":       {"POST", "/v1/resolve", `{"refs":[]}`, []string{"Content-Type: text/plain"}, 415},
		"a form":             {"POST", "/v1/resolve", `{"refs":[]}`, []string{"Content-Type: application/x-www-form-urlencoded"}, 415},
		"too large":          {"POST", "/v1/resolve", `{"refs":[` + strings.Repeat(" ", 5000) + `]}`, nil, 413},
		"too many refs":      {"POST", "/v1/resolve", `{"refs":[` + strings.Repeat(one+",", 10) + one + `]}`, nil, 413},
		"another method":     {"PUT", "/v1/resolve", "", nil, 405},
		"another path":       {"GET", "/v1/c4nary", "", nil, 404},
		"a browser":          {"GET", "/v1/providers", "", []string{"Origin: https://evil.example"}, 403},
		"a browser's fetch":  {"GET", "/v1/providers", "", []string{"Sec-Fetch-Site: cross-site"}, 403},
		"a proxy":            {"GET", "/v1/providers", "", []string{"X-Forwarded-For: 10.0.0.1"}, 403},
		"a standard proxy":   {"GET", "/v1/providers", "", []string{"Forwarded: for=10.0.0.1"}, 403},
		"a token of nobody":  {"GET", "/v1/providers", "", []string{"Authorization: Bearer c4nary"}, 401},
		"another scheme":     {"GET", "/v1/providers", "", []string{"Authorization: Basic c4nary"}, 401},
		"an unknown session": {"DELETE", "/v1/sessions/c4nary", "", nil, 404},
		"no provider":        {"POST", "/v1/invalidate", `{"provider":"nowhere"}`, nil, 400},
		"neither":            {"POST", "/v1/invalidate", `{}`, nil, 400},
		"nothing to revoke":  {"POST", "/v1/revoke", `{"ref":` + one + `}`, nil, 404},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := sc.do(c.method, c.path, c.body, c.headers...)
			var e client.ErrorAnswer
			if got.json(t, &e); got.status != c.status || e.Error.Code == "" || e.Error.Message == "" || e.RequestID == "" {
				t.Errorf("status %d, want %d: %s", got.status, c.status, e.Error.Message)
			}
			if strings.Contains(got.body, canary) {
				t.Error("the answer repeats what was sent")
			}
		})
	}
}

// A ref of a request is in its result, also one that is no UTF-8 or too long: the answer stays JSON.
func TestOddRefs(t *testing.T) {
	t.Parallel()
	sc := start(t, "")
	for _, ref := range []string{"{\"provider\":\"m\",\"id\":\"\xff\xfe\"}", `{"provider":"m","id":""}`, `{"provider":"m","id":"` + strings.Repeat("x", 5000) + `"}`, `{"provider":"m","id":"a\u0000b"}`, `{}`} {
		got := sc.resolve(ref)
		if len(got) != 1 || got[0].Error == nil {
			t.Errorf("%.40q: %+v", ref, got)
		}
	}
}

func refOf(s string) credref.Ref {
	ref, err := credref.Parse(s)
	if err != nil {
		panic(err)
	}
	return ref
}

func testKinds(more ...backend.Kind) *backend.Registry {
	return backend.NewRegistry(append([]backend.Kind{memory.Kind(), file.Kind()}, more...)...)
}
