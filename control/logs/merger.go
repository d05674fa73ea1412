package logs

import (
	"cmp"
	"log/slog"
	"slices"
	"time"

	"github.com/selvage-edge/selvage/edge/telemetry"
)

// merger puts lines of several nodes in the order of their times. What it holds is
// bounded in bytes: for a line that finds no room, the oldest lines of the node that
// has most are dropped and counted, so that no node crowds out another (longest queue
// drop: Suter et al., "Design considerations for supporting TCP with per-flow queueing",
// INFOCOM 1998). One goroutine uses it.
type merger struct {
	pool   *pool
	bytes  int
	queues map[string]*queue // by node
}

// queue is what one node, or this one about it, said, as it came.
type queue struct {
	node    Node
	held    []held
	bytes   int
	dropped int // lines, since it was last told
}

// held is a line, when it came and what it takes.
type held struct {
	line  telemetry.Line
	came  time.Time
	bytes int
}

func (m *merger) add(n Node, l telemetry.Line) {
	q := m.queues[n.Name]
	if q == nil {
		q = &queue{node: n}
		m.queues[n.Name] = q
	}
	size := l.Size()
	for !m.room(size) {
		m.dropOldest()
	}
	q.held = append(q.held, held{l, time.Now(), size})
	q.bytes += size
}

// over is what of so many bytes the reserve does not hold.
func over(bytes int) int { return max(0, bytes-reserveBytes) }

// room takes size bytes if they are to be had.
func (m *merger) room(size int) bool {
	if m.bytes+size > followerBytes || !m.pool.take(over(m.bytes+size)-over(m.bytes)) {
		return false
	}
	m.bytes += size
	return true
}

func (m *merger) free(size int) {
	m.pool.give(over(m.bytes) - over(m.bytes-size))
	m.bytes -= size
}

// dropOldest makes room at the cost of the node that has most. There is a line to
// drop: the reserve has room for the longest, even of
// bytes that are not UTF-8, each of which grows to three.
func (m *merger) dropOldest() {
	var most *queue
	for _, q := range m.queues {
		if most == nil || q.bytes > most.bytes {
			most = q
		}
	}
	size := most.held[0].bytes
	most.held[0] = held{} // let go of its texts
	most.held = most.held[1:]
	most.bytes -= size
	most.dropped++
	m.free(size)
}

// tell hands on what all said so far, the newest of it at most; the lines count as held
// until out returns. What was dropped is told if it would have been among them.
func (m *merger) tell(newest int, out func([]telemetry.Line) error) error {
	return m.hand(func(held) bool { return true }, newest, out)
}

// tellBefore hands on what came before then, or says it did. It goes by when lines
// came too, not by their own times only: a node's clock may be off.
func (m *merger) tellBefore(then time.Time, out func([]telemetry.Line) error) error {
	return m.hand(func(h held) bool { return !h.came.After(then) || !h.line.Time.After(then) }, 0, out)
}

func (m *merger) hand(due func(held) bool, newest int, out func([]telemetry.Line) error) error {
	var lines, notices []telemetry.Line
	size := 0
	for _, q := range m.queues {
		n := len(q.held)
		for n > 0 && !due(q.held[n-1]) {
			n--
		}
		for _, h := range q.held[:n] {
			lines = append(lines, h.line)
			size += h.bytes
			q.bytes -= h.bytes
		}
		q.held = slices.Clone(q.held[n:]) // the rest of the old array is let go
		if q.dropped > 0 {
			notices = append(notices, q.notice())
		}
		if q.dropped = 0; len(q.held) == 0 {
			delete(m.queues, q.node.Name)
		}
	}
	defer m.free(size)
	order := func(a, b telemetry.Line) int { return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Node, b.Node)) }
	slices.SortStableFunc(lines, order)
	if newest > 0 && len(lines) >= newest {
		return out(lines[len(lines)-newest:])
	}
	slices.SortFunc(notices, order)
	return out(append(lines, notices...))
}

// close gives back what is held.
func (m *merger) close() {
	m.free(m.bytes)
	m.queues = nil
}

func (q *queue) notice() telemetry.Line {
	return telemetry.Line{Time: time.Now().UTC(), Level: slog.LevelWarn, Kind: telemetry.KindDropped, PoP: q.node.PoP, Node: q.node.Name,
		Dropped: q.dropped, Text: "lines were dropped: they came faster than they are read"}
}
