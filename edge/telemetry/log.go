package telemetry

import (
	"io"
	"log/slog"
	"sync"
	"time"
)

// flushEvery is how long a line may wait, and flushBytes how many may.
const (
	flushEvery = 100 * time.Millisecond
	flushBytes = 64 << 10
)

// Log is an access log: JSON lines, written to w in batches, so that an
// exchange does not wait for a system call of its own. At most flushEvery of
// lines are lost when the process is killed.
type Log struct {
	*slog.Logger
	w    io.Writer
	stop chan struct{}
	done sync.WaitGroup
	mu   struct {
		sync.Mutex
		buf []byte
		err error // of the last write
	}
	writing sync.Mutex // held while w is written to; taken before mu
}

// NewLog starts a log on w. Close it.
func NewLog(w io.Writer) *Log {
	l := &Log{w: w, stop: make(chan struct{})}
	l.Logger = slog.New(slog.NewJSONHandler(lines{l}, nil))
	l.done.Go(l.run)
	return l
}

func (l *Log) run() {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			_ = l.Flush() // kept for Close
		case <-l.stop:
			return
		}
	}
}

// lines takes what the JSON handler writes: one whole line each time.
type lines struct{ l *Log }

func (b lines) Write(p []byte) (int, error) {
	b.l.mu.Lock()
	b.l.mu.buf = append(b.l.mu.buf, p...)
	full := len(b.l.mu.buf) >= flushBytes
	b.l.mu.Unlock()
	if full {
		_ = b.l.Flush() // kept for Close
	}
	return len(p), nil
}

// Flush writes what is waiting.
func (l *Log) Flush() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	buf := l.mu.buf
	l.mu.buf = nil
	l.mu.Unlock()
	if len(buf) == 0 {
		return nil
	}
	_, err := l.w.Write(buf)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.mu.err = err
	}
	if l.mu.buf == nil {
		l.mu.buf = buf[:0] // keep the memory
	}
	return err
}

// Close writes what is waiting and stops; it returns the last error of a write.
// It does not close w.
func (l *Log) Close() error {
	close(l.stop)
	l.done.Wait()
	_ = l.Flush()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.err
}
