package node

import (
	"context"
	"log/slog"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// functionLog writes what functions log as JSON lines beside the access records.
type functionLog struct{ log *slog.Logger }

var _ hostcall.LogSink = functionLog{}

// Log implements hostcall.LogSink: the handler below buffers, so it does not wait.
func (f functionLog) Log(l hostcall.Line) {
	ctx := context.Background()
	r := slog.NewRecord(l.Time, slog.Level(l.Level), l.Text, 0)
	r.AddAttrs(slog.String("room", "function"), slog.String("project", l.Function.Project), slog.String("function", l.Function.Name),
		slog.String("version", l.Version.Short()), slog.String("request_id", l.RequestID))
	if h := f.log.Handler(); h.Enabled(ctx, r.Level) {
		_ = h.Handle(ctx, r) // the log's own Close reports a write that failed
	}
}
