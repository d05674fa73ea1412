package telemetry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"
)

// TraceConfig says which exchanges are traced, and where the spans go.
type TraceConfig struct {
	Endpoint string  // URL of an OTLP/HTTP receiver, such as http://127.0.0.1:4318/v1/traces; required
	Ratio    float64 // of exchanges, 0 to 1
	// Asked is how many exchanges a second are traced because their client's
	// traceparent says that it is sampled; the others are traced by Ratio alone.
	Asked   float64
	Place   Place
	Version string      // of the program
	OnError func(error) // told of spans that could not be delivered; may be nil
}

// Times and sizes of delivery. What does not fit is dropped: no exchange waits.
const (
	spanQueue   = 2048
	spanEvery   = 2 * time.Second
	spanTimeout = 5 * time.Second
)

// Tracer makes spans of exchanges. A nil one makes none, and costs nothing.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
	ratio    float64
	asked    *rate.Limiter
}

var w3c = propagation.TraceContext{}

// NewTracer starts delivering spans. Close it. It reads the system's certificates
// now: a server that has shut itself in cannot do it later. The exporter takes
// headers (an API key) from $OTEL_EXPORTER_OTLP_HEADERS.
func NewTracer(ctx context.Context, cfg TraceConfig) (*Tracer, error) {
	u, err := url.Parse(cfg.Endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("trace endpoint %q: want http:// or https://host:port/path", cfg.Endpoint)
	}
	options := []otlptracehttp.Option{otlptracehttp.WithEndpointURL(cfg.Endpoint), otlptracehttp.WithTimeout(spanTimeout)}
	if u.Scheme == "https" {
		roots, err := x509.SystemCertPool()
		if err != nil {
			return nil, fmt.Errorf("trace: %w", err)
		}
		options = append(options, otlptracehttp.WithTLSClientConfig(&tls.Config{RootCAs: roots}))
	}
	exporter, err := otlptracehttp.New(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	if cfg.OnError == nil {
		cfg.OnError = func(error) {} // the library's own handler writes to standard error
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(cfg.OnError))
	p := sdk.NewTracerProvider(
		sdk.WithSampler(sdk.AlwaysSample()), // who is sampled is decided in Begin
		sdk.WithBatcher(exporter, sdk.WithMaxQueueSize(spanQueue), sdk.WithBatchTimeout(spanEvery), sdk.WithExportTimeout(spanTimeout)),
		sdk.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "selvage-edge"), attribute.String("service.version", cfg.Version),
			attribute.String("service.instance.id", cfg.Place.Node), attribute.String("selvage.pop", cfg.Place.PoP), attribute.String("selvage.region", cfg.Place.Region))))
	return &Tracer{provider: p, tracer: p.Tracer("selvage"), ratio: cfg.Ratio, asked: rate.NewLimiter(rate.Limit(cfg.Asked), int(math.Ceil(cfg.Asked)))}, nil
}

// Close delivers what is waiting, until ctx ends.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// Span is one exchange's, or a part's of it; nil where nothing is traced.
type Span struct {
	tracer *Tracer
	ctx    context.Context // carries the span, and nothing else
	span   trace.Span
}

// begin starts an exchange's span, as a child of the client's if it sent one. A nil
// span means that there is nothing to pass on either.
func (t *Tracer) begin(r *http.Request, at time.Time) *Span {
	parent := w3c.Extract(context.Background(), propagation.HeaderCarrier(r.Header))
	from := trace.SpanContextFromContext(parent)
	if !(from.IsSampled() && t.asked.Allow()) && rand.Float64() >= t.ratio {
		if !from.IsValid() {
			return nil
		}
		return &Span{tracer: t, ctx: parent, span: trace.SpanFromContext(parent)} // records nothing; is passed on as it came
	}
	ctx, span := t.tracer.Start(parent, r.Method, trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(at))
	return &Span{t, ctx, span}
}

// Context returns ctx with the span, for what is done in its name.
func (s *Span) Context(ctx context.Context) context.Context {
	if s == nil {
		return ctx
	}
	return trace.ContextWithSpan(ctx, s.span)
}

// Child starts a part's span. End it with Done.
func (s *Span) Child(name string) *Span {
	if s == nil || !s.span.IsRecording() {
		return s
	}
	ctx, span := s.tracer.tracer.Start(s.ctx, name)
	return &Span{s.tracer, ctx, span}
}

// Done ends a part's span; err is why it failed.
func (s *Span) Done(of *Span, err error) {
	if s == nil || s == of {
		return // nothing was started for the part
	}
	endSpan(s.span, err)
}

// Inject puts the span's trace on a request that goes on in its name (W3C traceparent), in
// place of what is there; if the span records nothing, that stays.
func (s *Span) Inject(h http.Header) {
	if s != nil && s.span.IsRecording() {
		w3c.Inject(s.ctx, propagation.HeaderCarrier(h))
	}
}

// TraceID is the trace's ID in hex if this exchange is recorded in it, or "".
func (s *Span) TraceID() string {
	if s == nil || !s.span.IsRecording() {
		return ""
	}
	return s.span.SpanContext().TraceID().String()
}

// end finishes the exchange's span with what its record says.
func (s *Span) end(r *Record) {
	if s == nil || !s.span.IsRecording() {
		return
	}
	s.span.SetAttributes(
		attribute.String("http.request.method", r.Method), attribute.String("server.address", r.Host), attribute.String("url.path", r.Path),
		attribute.String("network.protocol.version", r.Protocol), attribute.Int("http.response.status_code", r.Status),
		attribute.Int64("http.request.body.size", r.BytesIn), attribute.Int64("http.response.body.size", r.BytesOut),
		attribute.String("selvage.request_id", r.RequestID))
	if r.Function != "" {
		s.span.SetName(r.Method + " " + r.Project + "/" + r.Function)
		s.span.SetAttributes(attribute.String("selvage.project", r.Project), attribute.String("selvage.function", r.Function),
			attribute.String("selvage.version", r.Version.Short()), attribute.Int64("selvage.cpu_us", r.Usage.CPU.Microseconds()),
			attribute.Int64("selvage.memory_bytes", r.Usage.MemoryBytes), attribute.Int64("selvage.host_calls", int64(r.Usage.HostCalls)))
	}
	var err error
	if r.Fault != nil {
		s.span.SetAttributes(attribute.String("selvage.fault", r.Fault.Kind.String()))
		err = r.Fault
	} else if r.Refused != "" {
		s.span.SetAttributes(attribute.String("selvage.refused", r.Refused))
		if r.Status >= http.StatusInternalServerError {
			err = errors.New(r.Refused)
		}
	}
	endSpan(s.span, err)
}
