package guest

import (
	"bytes"
	"log/slog"
	"strings"
	"time"

	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// logEvery is how long a guest's lines may stay behind while it runs on.
const logEvery = time.Second

// logWriter hands one invocation's records to the sink, line by line.
type logWriter struct {
	sink      hostcall.LogSink // nil drops everything
	version   *function.Version
	requestID string
	last      time.Time
	open      *[engine.Stderr + 1]line // what has no line end yet, by stream; nil before anything is written
	dump      dump                     // on standard error
	dropped   int
}

// line is one line of what a guest wrote.
type line struct {
	at    time.Time
	level int
	text  []byte
}

// due reports whether it is time to hand lines on.
func (w *logWriter) due() bool {
	if now := time.Now(); now.Sub(w.last) > logEvery {
		w.last = now
		return true
	}
	return false
}

// take hands on the records of i.
func (w *logWriter) take(i *engine.Instance) {
	records, dropped := i.TakeLog()
	w.dropped += dropped
	for _, r := range records {
		w.record(&r)
	}
}

// record cuts a record into lines. What is written to a stream goes on in the
// stream's next record until a line ends; a log call ends its own.
func (w *logWriter) record(r *engine.LogRecord) {
	if w.open == nil {
		w.open = new([engine.Stderr + 1]line)
	}
	l := &w.open[r.Stream]
	if len(l.text) == 0 {
		l.at, l.level = r.Time, level(r)
	}
	rest := r.Text
	for {
		before, after, ended := bytes.Cut(rest, []byte("\n"))
		l.text = append(l.text, before...)
		if !ended {
			break
		}
		w.whole(r.Stream, l)
		*l = line{at: r.Time, level: level(r), text: l.text[:0]}
		rest = after
	}
	if r.Stream == engine.LogCall {
		w.end(r.Stream)
	}
}

// end hands on what the stream left without a line end.
func (w *logWriter) end(s engine.Stream) {
	if l := &w.open[s]; len(l.text) > 0 {
		w.whole(s, l)
		l.text = l.text[:0]
	}
}

// whole hands a line on, unless it is more of a stack dump than is kept.
func (w *logWriter) whole(s engine.Stream, l *line) {
	text := string(l.text)
	if s == engine.Stderr {
		ok, left := w.dump.takes(text)
		w.left(l, left)
		if !ok {
			return
		}
	}
	w.emit(l.at, l.level, text)
}

// left says how much of a dump was left out, if any.
func (w *logWriter) left(l *line, lines int) {
	if lines > 0 {
		w.emit(l.at, l.level, leftOut(lines))
	}
}

// close hands on what is left, what was refused (the records that were lost
// among it), and how the guest failed.
func (w *logWriter) close(refused fault.Tally, failure error) {
	if w.open != nil {
		for s := range w.open {
			w.end(engine.Stream(s))
		}
		w.left(&w.open[engine.Stderr], w.dump.end())
	}
	for _, r := range refused {
		w.emit(time.Now(), int(slog.LevelWarn), r.String())
	}
	if failure != nil {
		w.emit(time.Now(), int(slog.LevelError), failure.Error())
	}
}

func (w *logWriter) emit(at time.Time, level int, text string) {
	if w.sink == nil {
		return
	}
	w.sink.Log(hostcall.Line{
		Time: at, Function: w.version.ID, Version: w.version.Digest, RequestID: w.requestID,
		Level: level, Text: strings.ToValidUTF8(text, "\uFFFD"),
	})
}

func level(r *engine.LogRecord) int {
	switch r.Stream {
	case engine.Stderr:
		return int(slog.LevelWarn)
	case engine.Stdout:
		return int(slog.LevelInfo)
	}
	return r.Level
}
