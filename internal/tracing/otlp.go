package tracing

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"

	"github.com/credresolve/credresolve/backend"
)

// exporter posts spans to a receiver of OTLP/HTTP in the JSON encoding of OTLP 1: ids are hexadecimal, 64-bit integers are
// strings, enumerations are numbers, and names are in lowerCamelCase.
type exporter struct {
	url      string
	resource otlpResource
	version  string
	client   *http.Client
	life     context.Context
	stop     context.CancelFunc
	waiting  atomic.Int64 // spans between their end and their export
	lost     atomic.Uint64
	trouble  atomic.Pointer[backend.Error] // of the last export
}

var _ sdk.SpanExporter = (*exporter)(nil)

const tracesPath = "/v1/traces"

func newExporter(endpoint, version string) (*exporter, error) {
	at, err := exportURL(endpoint)
	if err != nil {
		return nil, err
	}
	e := &exporter{url: at, version: version, resource: otlpResource{Attributes: []otlpAttribute{
		{"service.name", otlpValue{String: new("credresolve")}},
		{"service.version", otlpValue{String: new(version)}},
	}}}
	e.life, e.stop = context.WithCancel(context.Background())
	e.client = &http.Client{
		// One connection: batches go out one after the other. No proxy: the receiver of a sidecar is near, and the process's
		// environment is not where a sidecar is configured.
		Transport:     &http.Transport{MaxConnsPerHost: 1, IdleConnTimeout: 30 * time.Second, TLSHandshakeTimeout: exportTimeout},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return e, nil
}

// exportURL gives where to post to: endpoint is a base, to which /v1/traces is added unless it stands there.
func exportURL(endpoint string) (string, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", &backend.Error{
			Code:   backend.CodeInvalidConfig,
			Reason: "tracing.endpoint is not the address of a receiver", // which may hold a password, and is not repeated
			Remedy: "write it as http://127.0.0.1:4318, without user, query or fragment",
		}
	}
	if !strings.HasSuffix(u.Path, tracesPath) {
		u = u.JoinPath(tracesPath)
	}
	return u.String(), nil
}

// ExportSpans implements sdk.SpanExporter. It gives no error: the library would print it.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	e.waiting.Add(-int64(len(spans)))
	err := e.post(ctx, spans)
	e.trouble.Store(err)
	if err != nil {
		e.lost.Add(uint64(len(spans)))
	}
	return nil
}

// Shutdown implements sdk.SpanExporter.
func (e *exporter) Shutdown(context.Context) error {
	e.stop()
	e.client.CloseIdleConnections()
	return nil
}

func (e *exporter) post(ctx context.Context, spans []sdk.ReadOnlySpan) *backend.Error {
	body, err := json.Marshal(e.request(spans))
	if err != nil {
		return backend.Errorf(backend.CodeInternal, "the spans cannot be written as JSON")
	}
	ctx, cancel := context.WithTimeout(ctx, exportTimeout)
	defer cancel()
	defer context.AfterFunc(e.life, cancel)()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, bytes.NewReader(body))
	if err != nil {
		return backend.Errorf(backend.CodeInternal, "the receiver of traces has no address")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "credresolve/"+e.version)
	resp, err := e.client.Do(req)
	if err != nil {
		return backend.Errorf(backend.CodeUnavailable, "the receiver of traces cannot be reached")
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection can be used again
	if resp.StatusCode/100 != 2 {
		return backend.Errorf(backend.CodeUnavailable, "the receiver of traces answered with status %d", resp.StatusCode)
	}
	return nil
}

// The messages of opentelemetry/proto/collector/trace/v1 and trace/v1, as far as they are used.
type (
	otlpRequest struct {
		ResourceSpans []otlpResourceSpans `json:"resourceSpans"`
	}
	otlpResourceSpans struct {
		Resource   otlpResource     `json:"resource"`
		ScopeSpans []otlpScopeSpans `json:"scopeSpans"`
	}
	otlpResource struct {
		Attributes []otlpAttribute `json:"attributes"`
	}
	otlpScopeSpans struct {
		Scope otlpScope  `json:"scope"`
		Spans []otlpSpan `json:"spans"`
	}
	otlpScope struct {
		Name    string `json:"name"`
		Version string `json:"version,omitempty"`
	}
	otlpSpan struct {
		TraceID      string          `json:"traceId"`
		SpanID       string          `json:"spanId"`
		TraceState   string          `json:"traceState,omitempty"`
		ParentSpanID string          `json:"parentSpanId,omitempty"`
		Flags        uint32          `json:"flags"`
		Name         string          `json:"name"`
		Kind         int             `json:"kind"`
		Start        string          `json:"startTimeUnixNano"`
		End          string          `json:"endTimeUnixNano"`
		Attributes   []otlpAttribute `json:"attributes,omitempty"`
		Dropped      int             `json:"droppedAttributesCount,omitempty"`
		Status       otlpStatus      `json:"status"`
	}
	otlpAttribute struct {
		Key   string    `json:"key"`
		Value otlpValue `json:"value"`
	}
	otlpValue struct {
		String *string `json:"stringValue,omitempty"`
		Int    *string `json:"intValue,omitempty"`
		Bool   *bool   `json:"boolValue,omitempty"`
	}
	otlpStatus struct {
		Message string `json:"message,omitempty"`
		Code    int    `json:"code,omitempty"`
	}
)

// Bits of a span's flags beside those of its trace context.
const (
	flagKnowsParent  = 0x100 // whether the parent is remote is known
	flagRemoteParent = 0x200
)

func (e *exporter) request(spans []sdk.ReadOnlySpan) otlpRequest {
	out := make([]otlpSpan, len(spans))
	for i, s := range spans {
		of, parent := s.SpanContext(), s.Parent()
		traceID, spanID := of.TraceID(), of.SpanID()
		span := otlpSpan{
			TraceID: hex.EncodeToString(traceID[:]), SpanID: hex.EncodeToString(spanID[:]), TraceState: of.TraceState().String(),
			Flags: uint32(of.TraceFlags()) | flagKnowsParent, Name: s.Name(), Kind: int(s.SpanKind()), Dropped: s.DroppedAttributes(),
			Start: strconv.FormatInt(s.StartTime().UnixNano(), 10), End: strconv.FormatInt(s.EndTime().UnixNano(), 10),
			Attributes: make([]otlpAttribute, 0, len(s.Attributes())),
		}
		if parent.SpanID().IsValid() {
			id := parent.SpanID()
			span.ParentSpanID = hex.EncodeToString(id[:])
		}
		if parent.IsRemote() {
			span.Flags |= flagRemoteParent
		}
		for _, a := range s.Attributes() {
			span.Attributes = append(span.Attributes, otlpAttribute{string(a.Key), valueOf(a.Value)})
		}
		switch status := s.Status(); status.Code { // the library numbers them otherwise
		case codes.Ok:
			span.Status.Code = 1
		case codes.Error:
			span.Status = otlpStatus{status.Description, 2}
		}
		out[i] = span
	}
	return otlpRequest{[]otlpResourceSpans{{e.resource, []otlpScopeSpans{{otlpScope{scope, e.version}, out}}}}}
}

func valueOf(v attribute.Value) otlpValue {
	switch v.Type() {
	case attribute.INT64:
		return otlpValue{Int: new(strconv.FormatInt(v.AsInt64(), 10))}
	case attribute.BOOL:
		return otlpValue{Bool: new(v.AsBool())}
	}
	return otlpValue{String: new(v.AsString())}
}
