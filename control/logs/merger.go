package logs

import (
	"log/slog"
	"slices"
	"time"

	"github.com/selvage-edge/selvage/edge/telemetry"
)

// merger puts lines of several nodes in the order of their times. It holds at most
// so many; of more, the oldest are dropped and counted.
type merger struct {
	most    int
	lines   []telemetry.Line
	arrived []time.Time // when each of lines came
	dropped int
}

func (m *merger) add(l telemetry.Line) {
	m.lines = append(m.lines, l)
	m.arrived = append(m.arrived, time.Now())
	if m.most > 0 && len(m.lines) >= 2*m.most {
		m.cut()
	}
}

// cut keeps the newest.
func (m *merger) cut() {
	m.sort()
	if n := len(m.lines) - m.most; m.most > 0 && n > 0 {
		m.dropped += n
		m.lines, m.arrived = slices.Delete(m.lines, 0, n), slices.Delete(m.arrived, 0, n)
	}
}

func (m *merger) sort() {
	order := make([]int, len(m.lines))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return m.lines[a].Time.Compare(m.lines[b].Time) })
	lines, arrived := make([]telemetry.Line, len(order)), make([]time.Time, len(order))
	for i, from := range order {
		lines[i], arrived[i] = m.lines[from], m.arrived[from]
	}
	m.lines, m.arrived = lines, arrived
}

// all returns the newest, in order: of the past nobody misses the others.
func (m *merger) all() []telemetry.Line {
	m.cut()
	out := m.lines
	*m = merger{most: m.most}
	return out
}

// before returns, in order, the lines that came before then, and how many were dropped.
// It goes by when they came, not by their own times: a node's clock may be off.
func (m *merger) before(then time.Time) []telemetry.Line {
	if len(m.lines) == 0 && m.dropped == 0 {
		return nil
	}
	m.cut()
	n := len(m.arrived)
	for n > 0 && m.arrived[n-1].After(then) && m.lines[n-1].Time.After(then) {
		n--
	}
	out := slices.Clone(m.lines[:n])
	m.lines, m.arrived = slices.Delete(m.lines, 0, n), slices.Delete(m.arrived, 0, n)
	if m.dropped > 0 {
		out = append(out, telemetry.Line{Time: time.Now().UTC(), Level: slog.LevelWarn, Kind: telemetry.KindDropped, Dropped: m.dropped,
			Text: "lines were dropped: they came faster than they are read"})
		m.dropped = 0
	}
	return out
}
