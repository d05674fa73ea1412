package telemetry

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/runtime/function"
)

// Filter says which lines are wanted; its zero value wants all.
type Filter struct {
	Project  string // "" for every project, and for exchanges that reached no function
	Function string
	Kind     Kind
	Level    slog.Level // this and above; the zero value is info
	AnyLevel bool       // debug and below too
	Request  string     // the exchange's ID
}

func (f *Filter) from(id function.ID) bool {
	return (f.Project == "" || f.Project == id.Project) && (f.Function == "" || f.Function == id.Name)
}

// wants is asked of lines whose source is right.
func (f *Filter) wants(h header, line []byte) bool {
	if f.Kind != "" && f.Kind != h.kind && h.kind != KindDropped || !f.AnyLevel && h.level < f.Level {
		return false
	}
	// An encoded text cannot hold these bytes: its quotes are escaped.
	return f.Request == "" || h.kind != KindDropped && bytes.Contains(line, []byte(`"request_id":"`+f.Request+`"`))
}

// What one tap holds for who reads it too slowly; a single function has at most
// its part of it.
const (
	tapBytes     = 256 << 10
	tapPerSource = tapBytes / 4
	// tapPause is the time between two readings: it bounds what following costs.
	tapPause = 50 * time.Millisecond
	maxTaps  = 128 // control nodes bound their followers, and of one token, below it
)

// ErrTaps means that too many follow this log already.
var ErrTaps = errors.New("too many follow this node's log: end one of them and try again")

// Tap is one who follows a Log. What it does not read in time is dropped and
// counted; nobody waits for it.
type Tap struct {
	log    *Log
	filter Filter
	past   []kept
	known  map[*source]uint64 // the newest line of the past, by source
	wake   chan struct{}
	mu     struct {
		sync.Mutex
		buf     []byte
		marks   []mark          // of the lines in buf, in order
		per     map[*source]int // bytes of buf
		dropped map[*source]int // lines
	}
}

// mark says whose line it is, and which.
type mark struct {
	source *source
	seq    uint64
	bytes  int
}

// Follow begins to hand on lines that f wants: those of the past since then, the
// newest tail of them at most, and those to come. Close the tap.
func (l *Log) Follow(f Filter, since time.Time, tail int) (*Tap, error) {
	t := &Tap{log: l, filter: f, wake: make(chan struct{}, 1), known: map[*source]uint64{}}
	t.mu.per, t.mu.dropped = map[*source]int{}, map[*source]int{}
	if !l.attach(t) {
		return nil, ErrTaps
	}
	for _, s := range l.sourcesNow() {
		if !f.from(s.id) {
			continue
		}
		lines, seq := s.past(&f, since)
		t.known[s] = seq
		t.past = append(t.past, lines...)
	}
	slices.SortStableFunc(t.past, func(a, b kept) int { return a.at.Compare(b.at) })
	t.past = t.past[max(0, len(t.past)-tail):]
	return t, nil
}

// Past appends the encoded lines of the past; they are told once.
func (t *Tap) Past(b []byte) []byte {
	for _, k := range t.past {
		b = append(b, k.line...)
	}
	t.past = nil
	return b
}

// offer takes a line if it is wanted and there is room; the source's lock is held.
func (t *Tap) offer(s *source, seq uint64, h header, line []byte) {
	if !t.filter.from(s.id) || !t.filter.wants(h, line) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(line) > MaxLineBytes || len(t.mu.buf)+len(line) > tapBytes || t.mu.per[s]+len(line) > tapPerSource {
		t.mu.dropped[s]++
	} else {
		t.mu.buf = append(t.mu.buf, line...)
		t.mu.marks = append(t.mu.marks, mark{s, seq, len(line)})
		t.mu.per[s] += len(line)
	}
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// Next waits for new lines and appends them, encoded, and after them how many
// were dropped meanwhile. It is called by one goroutine; it returns at most
// every tapPause, and ctx's error when that ends.
func (t *Tap) Next(ctx context.Context, b []byte) ([]byte, error) {
	pause := time.NewTimer(tapPause)
	defer pause.Stop()
	select {
	case <-t.wake:
	case <-ctx.Done():
		return b, ctx.Err()
	}
	select {
	case <-pause.C:
	case <-ctx.Done():
		return b, ctx.Err()
	}
	return t.take(b), nil
}

func (t *Tap) take(b []byte) []byte {
	t.mu.Lock()
	buf, marks, dropped := t.mu.buf, t.mu.marks, t.mu.dropped
	t.mu.buf, t.mu.marks = nil, nil
	t.mu.per, t.mu.dropped = map[*source]int{}, map[*source]int{}
	t.mu.Unlock()
	for _, m := range marks {
		if m.seq > t.known[m.source] {
			b = append(b, buf[:m.bytes]...)
		}
		buf = buf[m.bytes:]
	}
	sources := make([]*source, 0, len(dropped))
	for s := range dropped {
		sources = append(sources, s)
	}
	slices.SortFunc(sources, func(a, b *source) int {
		return cmp.Or(cmp.Compare(a.id.Project, b.id.Project), cmp.Compare(a.id.Name, b.id.Name))
	})
	for _, s := range sources {
		n := t.log.notice(s, dropped[s], "lines were dropped: they came faster than they are read")
		b = n.append(b)
	}
	return b
}

// Close ends the following.
func (t *Tap) Close() { t.log.detach(t) }
