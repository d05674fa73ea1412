package telemetry

import (
	"cmp"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// flushEvery is how long a line waits at most, and flushBytes how many do, where
// w keeps up. Where it does not, lines beyond mostWaiting are dropped; functions'
// lines beyond half of it, so that they leave room for access records.
const (
	flushEvery  = 100 * time.Millisecond
	flushBytes  = 64 << 10
	mostWaiting = 8 << 20
)

// Memory of recent lines: a source has its share of all of it, at most the leastShares'th part.
const (
	leastShares = 8
	maxSources  = 1 << 14 // functions beyond share one source; an idle one takes some 300 bytes
)

// LogConfig says what becomes of lines.
type LogConfig struct {
	Place Place
	// NoAccess keeps access records from W; who follows the log sees them all the same.
	NoAccess bool
	// RecentBytes is the memory for recent lines, of all functions. Default 16 MiB.
	RecentBytes int
	// FunctionBytes is what one function may log in a second, on average; twice as
	// much at once. More is dropped and counted. Default 1 MiB.
	FunctionBytes int
}

// Log is a node's log: access records and functions' lines, as JSON lines. They are
// written to w in batches, kept for a while, and handed to those who follow (Follow).
// Nobody who logs ever waits: what w does not take in time is dropped, and counted in
// a line of its own. At most flushEvery of lines are lost when the process is killed.
type Log struct {
	cfg   LogConfig
	enc   encoder
	rate  pace
	w     io.Writer
	stop  chan struct{}
	full  chan struct{} // told that there is enough to write
	done  sync.WaitGroup
	taps  atomic.Pointer[[]*Tap]
	lost  atomic.Uint64 // lines
	share atomic.Int64  // bytes of one source's recent lines
	mu    struct {
		sync.Mutex
		buf     []byte
		err     error // of the last write
		dropped int   // lines, since it was last told
	}
	sources struct {
		sync.RWMutex
		byID map[function.ID]*source
	}
	attaching sync.Mutex
	writing   sync.Mutex // held while w is written to; taken before mu
}

var _ hostcall.LogSink = (*Log)(nil)

// Recorder takes finished exchanges. *Log is one.
type Recorder interface{ Record(r *Record) }

var _ Recorder = (*Log)(nil)

// NewLog starts a log on w. Close it.
func NewLog(w io.Writer, cfg LogConfig) *Log {
	cfg.RecentBytes = cmp.Or(cfg.RecentBytes, 16<<20)
	cfg.FunctionBytes = cmp.Or(cfg.FunctionBytes, 1<<20)
	l := &Log{cfg: cfg, enc: newEncoder(cfg.Place), w: w, stop: make(chan struct{}), full: make(chan struct{}, 1)}
	l.rate = pace{float64(cfg.FunctionBytes), 2 * float64(cfg.FunctionBytes)}
	l.taps.Store(new([]*Tap))
	l.sources.byID = map[function.ID]*source{}
	l.done.Go(l.run)
	return l
}

func (l *Log) run() {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			l.settle()
			_ = l.Flush() // kept for Close
		case <-l.full:
			_ = l.Flush()
		case <-l.stop:
			return
		}
	}
}

var linePool = sync.Pool{New: func() any { b := make([]byte, 0, 1024); return &b }}

// Record logs a finished exchange.
func (l *Log) Record(r *Record) {
	s := l.source(function.ID{Project: r.Project, Name: r.Function})
	p := linePool.Get().(*[]byte)
	line := l.enc.exchange((*p)[:0], r)
	l.keep(s, header{r.Time, KindAccess, r.level()}, line)
	l.put(p, line)
}

// Log implements hostcall.LogSink.
func (l *Log) Log(line hostcall.Line) {
	s := l.source(line.Function)
	if !s.admit(l.rate, lineOverhead+len(line.Text), line.Time) {
		l.lost.Add(1)
		return
	}
	p := linePool.Get().(*[]byte)
	b := l.enc.function((*p)[:0], &line)
	l.keep(s, header{line.Time, KindFunction, slog.Level(line.Level)}, b)
	l.put(p, b)
}

// lineOverhead is about what stands around a function's text.
const lineOverhead = 250

func (l *Log) put(p *[]byte, b []byte) {
	if cap(b) <= 16<<10 {
		*p = b
	}
	linePool.Put(p)
}

// keep remembers the line, hands it to the taps, and has it written.
func (l *Log) keep(s *source, h header, line []byte) {
	s.add(h, line, int(l.share.Load()), *l.taps.Load())
	if h.kind != KindAccess || !l.cfg.NoAccess {
		l.write(h.kind, line)
	}
}

func (l *Log) write(k Kind, line []byte) {
	most := mostWaiting
	if k == KindFunction {
		most /= 2
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.mu.buf)+len(line) > most {
		l.mu.dropped++
		l.lost.Add(1)
		return
	}
	l.mu.buf = append(l.mu.buf, line...)
	if len(l.mu.buf) >= flushBytes {
		select {
		case l.full <- struct{}{}:
		default: // it is told already
		}
	}
}

// settle tells of the lines that functions logged over their rate.
func (l *Log) settle() {
	for _, s := range l.sourcesNow() {
		if n := s.owed(); n > 0 {
			line := l.notice(s, n, "lines were dropped: the function logs faster than it may")
			l.keep(s, header{line.Time, KindDropped, line.Level}, line.append(nil))
		}
	}
}

// notice is a line that tells of n dropped ones; of nobody's in particular without a source.
func (l *Log) notice(s *source, n int, why string) *Line {
	line := &Line{Time: time.Now().UTC(), Level: slog.LevelWarn, Kind: KindDropped, PoP: l.cfg.Place.PoP, Node: l.cfg.Place.Node, Dropped: n, Text: why}
	if s != nil {
		line.Project, line.Function = s.id.Project, s.id.Name
	}
	return line
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
		buf = l.notice(nil, dropped, "log lines were dropped: nobody reads them fast enough").append(buf)
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

// LogStats tells what became of lines.
type LogStats struct {
	Lost    uint64 // lines that were dropped, at w or over a function's rate
	Follows int    // who follows
}

// Stats returns the log's counts.
func (l *Log) Stats() LogStats { return LogStats{l.lost.Load(), len(*l.taps.Load())} }

// Close writes what is waiting and stops; it returns the last error of a write.
// It does not close w.
func (l *Log) Close() error {
	close(l.stop)
	l.done.Wait()
	l.settle()
	_ = l.Flush()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.err
}
