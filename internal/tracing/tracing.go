// Package tracing makes OpenTelemetry spans of what a sidecar does and exports them by OTLP over HTTP with JSON.
//
// A span tells of a request (method, path as declared, status, consumer, how many refs) or of a call to a store (provider,
// operation, code), which is a child of the request that made it go out. No span holds an id, a field, a revision or a value.
//
// Whether a request is traced is the caller's decision where it brings a trace context (W3C Trace Context, headers traceparent
// and tracestate), else that of TracingSettings.Sample.
//
// Export runs beside the requests: what does not fit into its queue, and what the receiver does not take, is lost and counted.
package tracing

import (
	"context"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/config"
	"github.com/credresolve/credresolve/resolver"
)

// Tracing makes and exports spans. A nil *Tracing, which is what Open gives where no endpoint is set, does nothing at no cost.
// It is safe for concurrent use.
type Tracing struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
	exporter *exporter
}

const (
	scope         = "github.com/credresolve/credresolve"
	queueSpans    = 4096 // some 4 MB at the most
	batchSpans    = 512
	batchDelay    = 2 * time.Second
	exportTimeout = 5 * time.Second
	closeTimeout  = 3 * time.Second
)

// Open gives the Tracing of s; nil where s has no endpoint. It does no I/O. Its error is ErrInvalidConfig.
func Open(s config.TracingSettings, version string) (*Tracing, error) {
	if s.Endpoint == "" {
		return nil, nil
	}
	e, err := newExporter(s.Endpoint, version)
	if err != nil {
		return nil, err
	}
	sample := 1.0
	if s.Sample != nil {
		sample = *s.Sample
	}
	// The library prints its errors, which may quote settings of the environment; what matters of them is counted here.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) {}))
	t := &Tracing{exporter: e}
	// Each option is given, so that none is taken from the environment by the library.
	limits := sdk.SpanLimits{
		AttributeValueLengthLimit: 256, AttributeCountLimit: 16, EventCountLimit: 0, LinkCountLimit: 0,
		AttributePerEventCountLimit: 0, AttributePerLinkCountLimit: 0,
	}
	t.provider = sdk.NewTracerProvider(
		sdk.WithResource(resource.Empty()),
		sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(sample))),
		sdk.WithRawSpanLimits(limits),
		sdk.WithoutPanicRecording(), // what a panic says is not known to be without secrets
		sdk.WithSpanProcessor(&counted{sdk.NewBatchSpanProcessor(e,
			sdk.WithMaxQueueSize(queueSpans), sdk.WithMaxExportBatchSize(batchSpans),
			sdk.WithBatchTimeout(batchDelay), sdk.WithExportTimeout(exportTimeout)), e}),
	)
	t.tracer = t.provider.Tracer(scope)
	return t, nil
}

// On reports whether there is anything to trace for.
func (t *Tracing) On() bool { return t != nil }

// Request begins the span of a request, as a child of the trace that its header names. name is the method and the path as it is
// declared: "POST /v1/resolve". The context is for all that is done for the request; end ends the span with the HTTP status of
// the answer, and must be called once.
func (t *Tracing) Request(ctx context.Context, header http.Header, name, consumer string) (_ context.Context, end func(status int)) {
	if t == nil {
		return ctx, func(int) {}
	}
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(header))
	method, route, _ := strings.Cut(name, " ")
	ctx, span := t.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("http.request.method", method),
		attribute.String("http.route", route),
		attribute.String("credresolve.consumer", consumer),
	))
	return ctx, func(status int) {
		span.SetAttributes(attribute.Int("http.response.status_code", status))
		if status >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, "")
		}
		span.End()
	}
}

// Refs notes how many refs the request of ctx has.
func (t *Tracing) Refs(ctx context.Context, n int) {
	if t != nil {
		trace.SpanFromContext(ctx).SetAttributes(attribute.Int("credresolve.refs", n))
	}
}

// Observe makes the span of a call to a store that has ended just now; it is for resolver.Config.Observe. Its parent is the
// request that made the call go out, or none, where nobody waited for it: then it is sampled for itself.
func (t *Tracing) Observe(c resolver.Call) {
	if t == nil {
		return
	}
	ctx := c.Context
	if ctx == nil {
		ctx = context.Background()
	}
	now := time.Now()
	_, span := t.tracer.Start(ctx, "store "+c.Op, trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(now.Add(-c.Took)), trace.WithAttributes(
		attribute.String("credresolve.provider", c.Provider),
		attribute.String("credresolve.op", c.Op),
		attribute.Int("credresolve.refs", c.Refs),
		attribute.String("credresolve.code", string(c.Code)),
	))
	if c.Code != backend.CodeOK && c.Code != backend.CodeNotFound {
		span.SetStatus(codes.Error, string(c.Code))
	}
	span.End(trace.WithTimestamp(now))
}

// Lost is how many spans were not taken by the receiver, or found no place in the queue.
func (t *Tracing) Lost() uint64 {
	if t == nil {
		return 0
	}
	return t.exporter.lost.Load()
}

// Trouble tells why the last export failed; nil when it did not.
func (t *Tracing) Trouble() error {
	if t == nil {
		return nil
	}
	if e := t.exporter.trouble.Load(); e != nil {
		return e
	}
	return nil
}

// Close exports what is waiting, within ctx and three seconds, and ends the work behind. Spans that end later are not exported.
// That some are lost is no error, but counted.
func (t *Tracing) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	defer t.exporter.stop()
	_ = t.provider.Shutdown(ctx)
	return nil
}

// counted bounds the spans that wait, and counts those over the bound.
type counted struct {
	sdk.SpanProcessor
	e *exporter
}

func (c *counted) OnEnd(s sdk.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
	// The library drops what finds no place in its queue without telling. Its queue is of the same size and holds less, since
	// batches leave it before they are exported, so that none is dropped there.
	if c.e.waiting.Add(1) > queueSpans {
		c.e.waiting.Add(-1)
		c.e.lost.Add(1)
		return
	}
	c.SpanProcessor.OnEnd(s)
}
