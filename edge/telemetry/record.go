package telemetry

import (
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

	PassedTo string       // the node that it was handed on to; "" if to none
	PassedBy string       // the node that handed it on
	TraceID  string       // hex; "" if it is in no trace
	Refused  string       // why the node answered by itself: guard's and serve's words
	Fault    *fault.Error // why the function failed; nil if it did not
}

// level is error for what operators must look at, the platform's own failures,
// and warn for what developers must, their functions'.
func (r *Record) level() slog.Level {
	switch {
	case r.Fault == nil || r.Fault.Kind == fault.Canceled:
		return slog.LevelInfo
	case r.Fault.Kind == fault.Internal:
		return slog.LevelError
	}
	return slog.LevelWarn
}
