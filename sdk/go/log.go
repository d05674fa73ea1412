package edge

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"time"
)

// levelError is slog.LevelError as the log call takes it.
const levelError = int32(slog.LevelError)

// LogLevel is the least level that slog's default logger writes to the
// function's log; slog.LevelInfo unless set.
var LogLevel slog.LevelVar

// A logHandler writes records to the function's log, one call each: the message,
// then the attributes as key=value. Time and level go beside the text.
type logHandler struct {
	attrs slog.Handler // formats the attributes into line
	line  *logBuffer
	emit  func(level int32, text string)
}

type logBuffer struct {
	mu struct {
		sync.Mutex
		bytes.Buffer
	}
}

func (b *logBuffer) Write(p []byte) (int, error) { return b.mu.Write(p) } // the lock is held

func newLogHandler(emit func(level int32, text string)) slog.Handler {
	line := new(logBuffer)
	return &logHandler{line: line, emit: emit, attrs: slog.NewTextHandler(line, &slog.HandlerOptions{ReplaceAttr: onlyAttrs})}
}

// onlyAttrs removes what does not belong to the text: the level, and the message
// (which Handle emptied). An attribute of the same name stays.
func onlyAttrs(groups []string, a slog.Attr) slog.Attr {
	_, level := a.Value.Any().(slog.Level)
	if len(groups) == 0 && (a.Key == slog.LevelKey && level || a.Key == slog.MessageKey && a.Value.String() == "") {
		return slog.Attr{}
	}
	return a
}

func (h *logHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= LogLevel.Level()
}

func (h *logHandler) Handle(ctx context.Context, r slog.Record) error {
	h.line.mu.Lock()
	defer h.line.mu.Unlock()
	h.line.mu.Reset()
	h.line.mu.WriteString(r.Message)
	h.line.mu.WriteByte(' ')
	level := int32(r.Level)
	r.Time, r.Message = time.Time{}, ""
	if err := h.attrs.Handle(ctx, r); err != nil {
		return err
	}
	h.emit(level, string(bytes.TrimRight(h.line.mu.Bytes(), " \n")))
	return nil
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &logHandler{line: h.line, emit: h.emit, attrs: h.attrs.WithAttrs(attrs)}
}

func (h *logHandler) WithGroup(name string) slog.Handler {
	return &logHandler{line: h.line, emit: h.emit, attrs: h.attrs.WithGroup(name)}
}
