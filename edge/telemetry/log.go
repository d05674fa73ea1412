package telemetry

import (
	"io"
	"log/slog"
	"sync"
	"time"
)

// flushEvery is how long a line waits at most, and flushBytes how many do, where
// w keeps up. Where it does not, lines beyond mostWaiting are dropped.
const (
	flushEvery  = 100 * time.Millisecond
	flushBytes  = 64 << 10
	mostWaiting = 8 << 20
)

// Log is an access log: JSON lines, written to w in batches, so that an
// exchange never waits for who reads them: what w does not take in time is
// dropped, and counted in a line of its own. At most flushEvery of lines are lost
// when the process is killed.
type Log struct {
	*slog.Logger
	w    io.Writer
	stop chan struct{}
	full chan struct{} // told that there is enough to write
	done sync.WaitGroup
	mu   struct {
		sync.Mutex
		buf     []byte
		err     error // of the last write
		dropped int   // lines, since it was last told
	}
	writing sync.Mutex // held while w is written to; taken before mu
}

// NewLog starts a log on w. Close it.
func NewLog(w io.Writer) *Log {
	l := &Log{w: w, stop: make(chan struct{}), full: make(chan struct{}, 1)}
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
		case <-l.full:
			_ = l.Flush()
		case <-l.stop:
			return
		}
	}
}

// lines takes what the JSON handler writes: one whole line each time.
type lines struct{ l *Log }

func (b lines) Write(p []byte) (int, error) {
	l := b.l
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.mu.buf)+len(p) > mostWaiting {
		l.mu.dropped++
		return len(p), nil
	}
	l.mu.buf = append(l.mu.buf, p...)
	if len(l.mu.buf) >= flushBytes {
		select {
		case l.full <- struct{}{}:
		default: // it is told already
		}
	}
	return len(p), nil
}

// Flush writes what is waiting.
func (l *Log) Flush() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	buf, dropped := l.mu.buf, l.mu.dropped
	l.mu.buf, l.mu.dropped = nil, 0
	l.mu.Unlock()
	if dropped > 0 {
		l.Warn("log lines were dropped: nobody reads them fast enough", slog.Int("dropped", dropped))
	}
	if len(buf) == 0 {
		return nil
	}
	_, err := l.w.Write(buf)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.mu.err = err
	}
	if l.mu.buf == nil && cap(buf) <= 4*flushBytes {
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
	_ = l.Flush() // what the first had to tell of lines that were dropped
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.err
}
