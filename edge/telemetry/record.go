package telemetry

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
)

// Record states one finished exchange.
type Record struct {
	Time      time.Time // when the head had been read
	RequestID string
	Method    string
	Host      string // canonical; "" if it was refused before
	Path      string // canonical, never with the query: queries carry secrets
	Protocol  string
	Client    netip.AddrPort
	Status    int // 0: no head was sent
	BytesIn   int64
	BytesOut  int64
	FirstByte time.Duration // until the response's head was written; 0 if none was
	Duration  time.Duration

	Project  string // "" if no route matched
	Function string
	Version  function.Digest
	Usage    Usage

	Refused string       // why the node answered by itself: guard's and serve's words
	Fault   *fault.Error // why the function failed; nil if it did not
}

// write logs the record as one line, whose time is when the exchange began. It
// goes to the handler directly: a Logger would look for its caller each time.
func (r *Record) write(ctx context.Context, log slog.Handler) {
	level := r.level()
	if !log.Enabled(ctx, level) {
		return
	}
	var room [24]slog.Attr
	attrs := append(room[:0],
		slog.String("request_id", r.RequestID),
		slog.String("client", r.Client.String()),
		slog.String("protocol", r.Protocol),
		slog.String("method", r.Method),
		slog.String("host", r.Host),
		slog.String("path", r.Path),
		slog.Int("status", r.Status),
		slog.Int64("bytes_in", r.BytesIn),
		slog.Int64("bytes_out", r.BytesOut),
		slog.Int64("first_byte_us", r.FirstByte.Microseconds()),
		slog.Int64("duration_us", r.Duration.Microseconds()),
	)
	if r.Function != "" {
		attrs = append(attrs,
			slog.String("project", r.Project),
			slog.String("function", r.Function),
			slog.String("version", r.Version.Short()),
			slog.Int64("cpu_us", r.Usage.CPU.Microseconds()),
			slog.Int64("memory_bytes", r.Usage.MemoryBytes),
			slog.Uint64("host_calls", r.Usage.HostCalls),
			slog.Uint64("crossings", r.Usage.Crossings),
		)
	}
	if len(r.Usage.Refused) > 0 {
		attrs = append(attrs, refusedCalls(r.Usage.Refused))
	}
	if r.Refused != "" {
		attrs = append(attrs, slog.String("refused", r.Refused))
	}
	if f := r.Fault; f != nil {
		attrs = append(attrs, slog.String("fault", f.Kind.String()), slog.String("fault_error", f.Error()))
		if f.Limit != "" {
			attrs = append(attrs, slog.String("fault_limit", f.Limit), slog.String("fault_knob", f.Knob))
		}
	}
	line := slog.NewRecord(r.Time, level, "exchange", 0)
	line.AddAttrs(attrs...)
	_ = log.Handle(ctx, line) // a Log tells its write errors when it is closed
}

// refusedCalls is how often each kind of call was refused.
func refusedCalls(all fault.Tally) slog.Attr {
	attrs := make([]slog.Attr, 0, len(all))
	for _, t := range all {
		attrs = append(attrs, slog.Int(t.Refusal.String(), t.Count))
	}
	return slog.Attr{Key: "refused_calls", Value: slog.GroupValue(attrs...)}
}

// level is error for what operators must look at: the platform's own failures.
func (r *Record) level() slog.Level {
	if r.Fault != nil && r.Fault.Kind == fault.Internal {
		return slog.LevelError
	}
	return slog.LevelInfo
}
