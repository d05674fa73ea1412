package telemetry

import (
	"encoding/binary"
	"log/slog"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/runtime/function"
)

// source is where lines come from: one function, or the exchanges that reached
// none. Each has its own share of memory and of the log, so that who floods it
// floods nobody else's.
type source struct {
	id function.ID
	mu struct {
		sync.Mutex
		ring    ring
		seq     uint64    // of the newest line
		tokens  float64   // bytes the function may log now
		at      time.Time // when tokens was right
		dropped int       // lines over its rate, since that was last told
	}
}

// pace bounds what one function logs, in bytes a second, and how much at once.
type pace struct{ perSecond, burst float64 }

// admit takes n bytes of the function's rate; a line over it is counted instead.
func (s *source) admit(r pace, n int, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if since := now.Sub(s.mu.at); since > 0 {
		s.mu.tokens = min(r.burst, s.mu.tokens+since.Seconds()*r.perSecond)
		s.mu.at = now
	}
	if s.mu.tokens < float64(n) {
		s.mu.dropped++
		return false
	}
	s.mu.tokens -= float64(n)
	return true
}

// owed returns the lines dropped since it was last asked.
func (s *source) owed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.mu.dropped
	s.mu.dropped = 0
	return n
}

// header is what filters need to know of a line.
type header struct {
	at    time.Time
	kind  Kind
	level slog.Level
}

// add keeps the line within share bytes and offers it to the taps.
func (s *source) add(h header, line []byte, share int, taps []*Tap) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.seq++
	if len(line) <= MaxLineBytes {
		s.mu.ring.add(h, line, share)
	}
	for _, t := range taps {
		t.offer(s, s.mu.seq, h, line)
	}
}

// trim gives back what is over share.
func (s *source) trim(share int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &s.mu.ring
	r.fit(share / 2)
	if cap(r.buf) > share {
		r.buf, r.start = append([]byte(nil), r.buf[r.start:]...), 0
	}
}

// past copies the kept lines that f wants; seq is the newest line's, wanted or not.
func (s *source) past(f *Filter, since time.Time) (lines []kept, seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.ring.each(func(h header, line []byte) {
		if !h.at.Before(since) && f.wants(h, line) {
			lines = append(lines, kept{h.at, append([]byte(nil), line...)})
		}
	})
	return lines, s.mu.seq
}

// kept is one line of the past.
type kept struct {
	at   time.Time
	line []byte
}

// ring holds the newest lines in one block of bytes, in which the garbage
// collector has nothing to look through. The block has at most share bytes and is
// at most half full when it is put in order, so that each byte is moved about once.
type ring struct {
	buf   []byte // records: ringHead and a line each, oldest first from start
	start int
}

// ringHead is a record's length, time, kind and level.
const ringHead = 4 + 8 + 1 + 4

var ringKinds = [...]Kind{KindAccess, KindFunction, KindDropped}

func kindIndex(k Kind) byte {
	for i, have := range ringKinds {
		if have == k {
			return byte(i)
		}
	}
	return 0
}

func (r *ring) size() int { return len(r.buf) - r.start }

func (r *ring) add(h header, line []byte, share int) {
	n := ringHead + len(line)
	if n > share/2 {
		return
	}
	r.fit(share/2 - n)
	if len(r.buf)+n > cap(r.buf) {
		r.makeRoom(n, share)
	}
	var head [ringHead]byte
	binary.LittleEndian.PutUint32(head[0:], uint32(len(line)))
	binary.LittleEndian.PutUint64(head[4:], uint64(h.at.UnixNano()))
	head[12] = kindIndex(h.kind)
	binary.LittleEndian.PutUint32(head[13:], uint32(int32(h.level)))
	r.buf = append(append(r.buf, head[:]...), line...)
}

// makeRoom moves what is kept to the front, of a larger block if it may grow.
func (r *ring) makeRoom(n, share int) {
	live, next := r.buf[r.start:], r.buf[:0]
	if cap(r.buf) < share && r.start < len(r.buf)/2+1 {
		next = make([]byte, 0, max(min(2*cap(r.buf), share), len(live)+n))
	}
	r.buf, r.start = append(next, live...), 0
}

// fit forgets the oldest lines until the rest fits into share.
func (r *ring) fit(share int) {
	for r.size() > max(0, share) {
		r.start += ringHead + int(binary.LittleEndian.Uint32(r.buf[r.start:]))
	}
	if r.size() == 0 {
		r.buf, r.start = r.buf[:0], 0
	}
}

func (r *ring) each(do func(h header, line []byte)) {
	for b := r.buf[r.start:]; len(b) > 0; {
		n := int(binary.LittleEndian.Uint32(b))
		h := header{time.Unix(0, int64(binary.LittleEndian.Uint64(b[4:]))), ringKinds[b[12]], slog.Level(int32(binary.LittleEndian.Uint32(b[13:])))}
		do(h, b[ringHead:ringHead+n])
		b = b[ringHead+n:]
	}
}
