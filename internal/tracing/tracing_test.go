package tracing_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/internal/tracing"
	"github.com/credresolve/credresolve/resolver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const canary = "c4nary-of-traces"

// The messages as the specification of OTLP's JSON encoding has them, written down apart from the code.
type message struct {
	ResourceSpans []struct {
		Resource struct {
			Attributes []attribute `json:"attributes"`
		} `json:"resource"`
		ScopeSpans []struct {
			Scope struct{ Name, Version string } `json:"scope"`
			Spans []span                         `json:"spans"`
		} `json:"scopeSpans"`
	} `json:"resourceSpans"`
}

type span struct {
	TraceID           string      `json:"traceId"`
	SpanID            string      `json:"spanId"`
	ParentSpanID      string      `json:"parentSpanId"`
	TraceState        string      `json:"traceState"`
	Flags             uint32      `json:"flags"`
	Name              string      `json:"name"`
	Kind              int         `json:"kind"`
	StartTimeUnixNano string      `json:"startTimeUnixNano"`
	EndTimeUnixNano   string      `json:"endTimeUnixNano"`
	Attributes        []attribute `json:"attributes"`
	Status            struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"status"`
}

type attribute struct {
	Key   string `json:"key"`
	Value struct {
		StringValue *string `json:"stringValue"`
		IntValue    *string `json:"intValue"`
	} `json:"value"`
}

func texts(list []attribute) map[string]string {
	out := map[string]string{}
	for _, a := range list {
		switch {
		case a.Value.StringValue != nil:
			out[a.Key] = *a.Value.StringValue
		case a.Value.IntValue != nil:
			out[a.Key] = "int " + *a.Value.IntValue
		}
	}
	return out
}

// receiver is a server that takes traces.
type receiver struct {
	*httptest.Server
	t      *testing.T
	handle func(http.ResponseWriter, *http.Request) // nil: 200
	mu     sync.Mutex
	spans  []span
	posts  int
}

func listen(t *testing.T, handle func(http.ResponseWriter, *http.Request)) *receiver {
	r := &receiver{t: t, handle: handle}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // the exporter gave up
	}
	r.mu.Lock()
	r.posts++
	r.mu.Unlock()
	if r.handle != nil {
		r.handle(w, req)
		return
	}
	if req.Method != "POST" || req.URL.Path != "/v1/traces" || req.Header.Get("Content-Type") != "application/json" {
		r.t.Errorf("%s %s, %s", req.Method, req.URL, req.Header.Get("Content-Type"))
	}
	if bytes.Contains(body, []byte("c4nary")) {
		r.t.Error("what was exported holds what no span may hold")
	}
	var m message
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		r.t.Errorf("no message of OTLP: %v", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, of := range m.ResourceSpans {
		about := texts(of.Resource.Attributes)
		if len(about) != 2 || about["service.name"] != "credresolve" || about["service.version"] != "1.2.3" {
			r.t.Errorf("the resource is %v", about)
		}
		for _, in := range of.ScopeSpans {
			if in.Scope.Name == "" || in.Scope.Version != "1.2.3" {
				r.t.Errorf("the scope is %+v", in.Scope)
			}
			r.spans = append(r.spans, in.Spans...)
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"partialSuccess":{}}`)
}

func open(t *testing.T, r *receiver, sample *float64) *tracing.Tracing {
	t.Helper()
	tr, err := tracing.Open(config.TracingSettings{Endpoint: r.URL, Sample: sample}, "1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeIt(t, tr) })
	return tr
}

func closeIt(t *testing.T, tr *tracing.Tracing) {
	t.Helper()
	if err := tr.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

const (
	theirTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	theirSpan  = "00f067aa0ba902b7"
)

func header(parent string) http.Header {
	h := http.Header{"Authorization": {"Bearer " + canary}, "X-Vault-Token": {canary}, "Cookie": {canary}}
	if parent != "" {
		h.Set("traceparent", parent)
		h.Set("tracestate", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE")
	}
	return h
}

func TestSpans(t *testing.T) {
	t.Parallel()
	r := listen(t, nil)
	tr := open(t, r, nil)
	before := time.Now()
	ctx, end := tr.Request(context.Background(), header("00-"+theirTrace+"-"+theirSpan+"-01"), "POST /v1/resolve", "web")
	tr.Refs(ctx, 3)
	tr.Observe(resolver.Call{Context: ctx, Provider: "app", Op: "batch", Refs: 3, Code: backend.CodeUnavailable, Took: 20 * time.Millisecond})
	tr.Observe(resolver.Call{Context: ctx, Provider: "app", Op: "get", Refs: 1, Code: backend.CodeNotFound})
	end(503)
	tr.Observe(resolver.Call{Provider: "app", Op: "renew", Refs: 1, Code: backend.CodeOK}) // nobody waits for it
	closeIt(t, tr)
	if len(r.spans) != 4 {
		t.Fatalf("%d spans", len(r.spans))
	}
	hexadecimal := regexp.MustCompile(`^[0-9a-f]+$`)
	named := map[string]span{}
	for _, s := range r.spans {
		named[s.Name] = s
		if len(s.TraceID) != 32 || len(s.SpanID) != 16 || !hexadecimal.MatchString(s.TraceID+s.SpanID) {
			t.Errorf("%s: ids %q, %q", s.Name, s.TraceID, s.SpanID)
		}
		began, err1 := strconv.ParseInt(s.StartTimeUnixNano, 10, 64)
		ended, err2 := strconv.ParseInt(s.EndTimeUnixNano, 10, 64)
		if errors.Join(err1, err2) != nil || began > ended || began < before.Add(-time.Second).UnixNano() || ended > time.Now().UnixNano() {
			t.Errorf("%s: from %q to %q", s.Name, s.StartTimeUnixNano, s.EndTimeUnixNano)
		}
	}
	request, batch, get, renew := named["POST /v1/resolve"], named["store batch"], named["store get"], named["store renew"]
	if request.TraceID != theirTrace || request.ParentSpanID != theirSpan || request.Kind != 2 || request.Flags != 0x301 || request.Status.Code != 2 {
		t.Errorf("request: %+v", request)
	}
	if request.TraceState != "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE" {
		t.Errorf("trace state: %q", request.TraceState)
	}
	for _, s := range []span{batch, get} {
		if s.TraceID != theirTrace || s.ParentSpanID != request.SpanID || s.Kind != 3 || s.Flags != 0x101 {
			t.Errorf("store call: %+v", s)
		}
	}
	if batch.Status.Code != 2 || batch.Status.Message != "unavailable" || get.Status.Code != 0 {
		t.Errorf("statuses of store calls: %+v, %+v", batch.Status, get.Status)
	}
	if renew.ParentSpanID != "" || renew.TraceID == theirTrace || renew.TraceID == "" {
		t.Errorf("a call that nobody waited for: %+v", renew)
	}
	for _, tt := range []struct {
		of   span
		want map[string]string
	}{
		{request, map[string]string{"http.request.method": "POST", "http.route": "/v1/resolve", "http.response.status_code": "int 503", "credresolve.consumer": "web", "credresolve.refs": "int 3"}},
		{batch, map[string]string{"credresolve.provider": "app", "credresolve.op": "batch", "credresolve.refs": "int 3", "credresolve.code": "unavailable"}},
	} {
		got := texts(tt.of.Attributes)
		if len(got) != len(tt.want) {
			t.Errorf("%s has %v", tt.of.Name, got)
		}
		for k, v := range tt.want {
			if got[k] != v {
				t.Errorf("%s: %s = %q, want %q", tt.of.Name, k, got[k], v)
			}
		}
	}
	if tr.Lost() != 0 || tr.Trouble() != nil {
		t.Errorf("lost %d, %v", tr.Lost(), tr.Trouble())
	}
}

func TestSampling(t *testing.T) {
	t.Parallel()
	none, half := 0.0, 0.5
	for _, tt := range []struct {
		name     string
		sample   *float64
		parent   string
		min, max int // of 400 requests
		trace    bool
	}{
		{"no setting", nil, "", 400, 400, false},
		{"none", &none, "", 0, 0, false},
		{"half", &half, "", 120, 280, false},
		{"the caller samples", &none, "00-" + theirTrace + "-" + theirSpan + "-01", 400, 400, true},
		{"the caller does not", nil, "00-" + theirTrace + "-" + theirSpan + "-00", 0, 0, false},
		{"malformed", nil, "00-" + strings.ToUpper(theirTrace) + "-" + theirSpan + "-01", 400, 400, false},
		{"zero trace", nil, "00-" + strings.Repeat("0", 32) + "-" + theirSpan + "-01", 400, 400, false},
		{"huge", nil, "00-" + strings.Repeat("c4nary", 10_000), 400, 400, false},
		{"of tomorrow", &none, "01-" + theirTrace + "-" + theirSpan + "-01-" + canary, 400, 400, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := listen(t, nil)
			tr := open(t, r, tt.sample)
			for range 400 {
				ctx, end := tr.Request(context.Background(), header(tt.parent), "GET /v1/resolve", "owner")
				tr.Observe(resolver.Call{Context: ctx, Provider: "app", Op: "get"})
				end(200)
			}
			closeIt(t, tr)
			// A call to a store shares the fate of its request.
			if n := len(r.spans); n < 2*tt.min || n > 2*tt.max || n%2 != 0 {
				t.Errorf("%d spans, want twice %d to %d", n, tt.min, tt.max)
			}
			for _, s := range r.spans {
				if (s.TraceID == theirTrace) != tt.trace {
					t.Fatalf("trace %s", s.TraceID)
				}
			}
		})
	}
}

func TestOff(t *testing.T) {
	tr, err := tracing.Open(config.TracingSettings{}, "1.2.3")
	if err != nil || tr.On() {
		t.Fatalf("On = %v, %v", tr.On(), err)
	}
	h, ctx, call := header(""), context.Background(), resolver.Call{Provider: "app"}
	if n := testing.AllocsPerRun(100, func() {
		ctx, end := tr.Request(ctx, h, "GET /livez", "owner")
		tr.Refs(ctx, 1)
		tr.Observe(call)
		end(200)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if tr.Lost() != 0 || tr.Trouble() != nil {
		t.Error("something was lost")
	}
	closeIt(t, tr)
}

// A receiver that fails in any way neither fails nor delays a request, and what it did not take is counted.
func TestReceiverFails(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	for name, handle := range map[string]func(http.ResponseWriter, *http.Request){
		"status": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, canary, http.StatusInternalServerError) },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/"+canary, http.StatusTemporaryRedirect)
		},
		"reset": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"hangs": func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		},
		"endless": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			for r.Context().Err() == nil {
				if _, err := io.WriteString(w, strings.Repeat(canary, 1000)); err != nil {
					return
				}
			}
		},
		"gone": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := listen(t, handle)
			tr := open(t, r, nil)
			if handle == nil {
				r.Close()
			}
			began := time.Now()
			const many = 10_000 // more than the queue has places
			for range many {
				_, end := tr.Request(context.Background(), header(""), "GET /v1/resolve", "owner")
				end(200)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("the requests took %s", took)
			}
			began = time.Now()
			closeIt(t, tr)
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("Close took %s", took)
			}
			deadline := time.Now().Add(5 * time.Second) // what Close left behind ends by itself
			for tr.Lost() != many && time.Now().Before(deadline) {
				time.Sleep(10 * time.Millisecond)
			}
			if tr.Lost() != many {
				t.Errorf("lost %d of %d", tr.Lost(), many)
			}
			err := tr.Trouble()
			if !errors.Is(err, backend.ErrUnavailable) || strings.Contains(err.Error(), "c4nary") || strings.Contains(err.Error(), "http:") {
				t.Errorf("Trouble = %v", err)
			}
		})
	}
}

func TestEndpoint(t *testing.T) {
	t.Parallel()
	for endpoint, ok := range map[string]bool{
		"http://127.0.0.1:4318":                 true,
		"https://otel.example/base/":            true,
		"http://[::1]:4318/v1/traces":           true,
		"127.0.0.1:4318":                        false,
		"grpc://127.0.0.1:4317":                 false,
		"http://":                               false,
		"http://u:" + canary + "@h":             false,
		"http://h/?token=" + canary:             false,
		"http://h/#" + canary:                   false,
		"http://h/%zz" + canary:                 false,
		"http://" + canary + " " + canary + "/": false,
	} {
		tr, err := tracing.Open(config.TracingSettings{Endpoint: endpoint}, "1.2.3")
		if (err == nil) != ok || err != nil && (!errors.Is(err, backend.ErrInvalidConfig) || strings.Contains(err.Error(), "c4nary")) {
			t.Errorf("an endpoint of %d bytes: %v, want ok=%v", len(endpoint), backend.CodeOf(err), ok)
		}
		closeIt(t, tr)
	}
}

// Nothing of the environment is exported or heeded.
func TestEnvironment(t *testing.T) {
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "password="+canary+",broken")
	t.Setenv("OTEL_SERVICE_NAME", canary)
	t.Setenv("OTEL_TRACES_SAMPLER", "always_off")
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	r := listen(t, nil)
	tr := open(t, r, nil)
	_, end := tr.Request(context.Background(), header(""), "GET /livez", "owner")
	end(200)
	closeIt(t, tr)
	if len(r.spans) != 1 {
		t.Errorf("%d spans", len(r.spans))
	}
}

func BenchmarkRequest(b *testing.B) {
	r := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer r.Close()
	none := 0.0
	for name, s := range map[string]config.TracingSettings{"off": {}, "unsampled": {Endpoint: r.URL, Sample: &none}, "sampled": {Endpoint: r.URL}} {
		b.Run(name, func(b *testing.B) {
			tr, err := tracing.Open(s, "1.2.3")
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = tr.Close(context.Background()) }()
			h := http.Header{}
			b.ReportAllocs()
			for b.Loop() {
				_, end := tr.Request(b.Context(), h, "GET /v1/resolve", "owner")
				end(200)
			}
		})
	}
}
