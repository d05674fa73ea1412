package edge

import "log/slog"

func init() { slog.SetDefault(slog.New(newLogHandler(logLine))) }

// logLine writes text to the function's log. It never waits; over the limit the
// host drops the line and counts it.
func logLine(level int32, text string) {
	p, size := ofString(text)
	hostLog(level, p, size)
}
