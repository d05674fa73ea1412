package telemetry

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

func endSpan(s trace.Span, err error) {
	if err != nil {
		s.SetStatus(codes.Error, err.Error())
	}
	s.End()
}

// TraceKV returns kv, whose calls are spans of the exchanges they are made for. Keys
// are not told: they may be whatever a function's users say.
func (t *Tracer) TraceKV(kv hostcall.KV) hostcall.KV {
	if t == nil {
		return kv
	}
	return tracedKV{t, kv}
}

type tracedKV struct {
	tracer *Tracer
	kv     hostcall.KV
}

var _ hostcall.KV = tracedKV{}

// part starts a span under ctx's, if that is recorded.
func (t *Tracer) part(ctx context.Context, name string, kind trace.SpanKind, attrs ...attribute.KeyValue) (context.Context, trace.Span) {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return ctx, trace.SpanFromContext(context.Background())
	}
	return t.tracer.Start(ctx, name, trace.WithSpanKind(kind), trace.WithAttributes(attrs...))
}

func (k tracedKV) start(ctx context.Context, what string, ns hostcall.Namespace) (context.Context, trace.Span) {
	return k.tracer.part(ctx, "kv "+what, trace.SpanKindClient, attribute.String("selvage.namespace", ns.Project+"/"+ns.Name))
}

func (k tracedKV) Get(ctx context.Context, ns hostcall.Namespace, key string) (hostcall.Entry, error) {
	ctx, span := k.start(ctx, "get", ns)
	e, err := k.kv.Get(ctx, ns, key)
	endSpan(span, err)
	return e, err
}

func (k tracedKV) Put(ctx context.Context, ns hostcall.Namespace, key string, value []byte, o hostcall.PutOptions) (uint64, error) {
	ctx, span := k.start(ctx, "put", ns)
	n, err := k.kv.Put(ctx, ns, key, value, o)
	endSpan(span, err)
	return n, err
}

func (k tracedKV) Delete(ctx context.Context, ns hostcall.Namespace, key string, ifRevision int64) (uint64, error) {
	ctx, span := k.start(ctx, "delete", ns)
	n, err := k.kv.Delete(ctx, ns, key, ifRevision)
	endSpan(span, err)
	return n, err
}

func (k tracedKV) Read(ctx context.Context, ns hostcall.Namespace, keys []string, o hostcall.ReadOptions) ([]hostcall.Result, error) {
	ctx, span := k.start(ctx, "read", ns)
	list, err := k.kv.Read(ctx, ns, keys, o)
	endSpan(span, err)
	return list, err
}

func (k tracedKV) Increment(ctx context.Context, ns hostcall.Namespace, key string, delta int64) (int64, uint64, error) {
	ctx, span := k.start(ctx, "increment", ns)
	value, rev, err := k.kv.Increment(ctx, ns, key, delta)
	endSpan(span, err)
	return value, rev, err
}

func (k tracedKV) List(ctx context.Context, ns hostcall.Namespace, prefix, cursor string, limit int) ([]hostcall.KeyInfo, string, error) {
	ctx, span := k.start(ctx, "list", ns)
	keys, next, err := k.kv.List(ctx, ns, prefix, cursor, limit)
	endSpan(span, err)
	return keys, next, err
}

// TraceFetch returns f, whose requests carry the trace on (W3C traceparent) and are spans
// of the exchanges they are made for, until the response's head is there.
func (t *Tracer) TraceFetch(f hostcall.Fetcher) hostcall.Fetcher {
	if t == nil {
		return f
	}
	return tracedFetch{t, f}
}

type tracedFetch struct {
	tracer *Tracer
	fetch  hostcall.Fetcher
}

var _ hostcall.Fetcher = tracedFetch{}

func (f tracedFetch) Fetch(ctx context.Context, v *function.Version, r *http.Request) (*http.Response, error) {
	ctx, span := f.tracer.part(ctx, "fetch "+r.Method, trace.SpanKindClient, attribute.String("http.request.method", r.Method), attribute.String("server.address", r.URL.Host))
	if trace.SpanContextFromContext(ctx).IsValid() {
		w3c.Inject(ctx, propagation.HeaderCarrier(r.Header)) // in place of what the guest may have set
	}
	resp, err := f.fetch.Fetch(ctx, v, r)
	if err == nil {
		span.SetAttributes(attribute.Int("http.response.status_code", resp.StatusCode))
	}
	endSpan(span, err)
	return resp, err
}
