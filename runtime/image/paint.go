package image

import (
	"cmp"
	"container/heap"
	"slices"
)

// joinGap is the largest stretch of zeroes kept inside a run: a run's header
// costs about as much.
const joinGap = 32

// paint lays active segments over one another, the later on top, and returns
// what a memory of zeroes then holds. It takes no more memory than the data,
// however the segments overlap.
func paint(segments []segment) []Run {
	var b builder
	for _, p := range flatten(segments) {
		b.add(p)
	}
	return b.runs
}

// piece is a segment or a part of one.
type piece struct {
	at   uint64
	data []byte
	seq  int
}

func (p piece) end() uint64 { return p.at + uint64(len(p.data)) }

// from is the rest of p after at.
func (p piece) from(at uint64) piece {
	if at <= p.at {
		return p
	}
	return piece{at, p.data[at-p.at:], p.seq}
}

// top holds the pieces that cover the present place, the latest first.
type top []piece

func (t top) Len() int           { return len(t) }
func (t top) Less(i, j int) bool { return t[i].seq > t[j].seq }
func (t top) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }
func (t *top) Push(x any)        { *t = append(*t, x.(piece)) }
func (t *top) Pop() any {
	last := len(*t) - 1
	p := (*t)[last]
	*t = (*t)[:last]
	return p
}

// flatten returns disjoint pieces in ascending order.
func flatten(segments []segment) []piece {
	var todo []piece
	for i, s := range segments {
		if s.active && len(s.data) > 0 {
			todo = append(todo, piece{s.offset.bits, s.data, i})
		}
	}
	slices.SortStableFunc(todo, func(a, b piece) int { return cmp.Compare(a.at, b.at) })
	var out []piece
	var open top
	var at uint64
	for len(todo) > 0 || len(open) > 0 {
		if len(open) == 0 {
			at = max(at, todo[0].at)
		}
		for len(todo) > 0 && todo[0].at <= at {
			heap.Push(&open, todo[0])
			todo = todo[1:]
		}
		if open[0].end() <= at {
			heap.Pop(&open)
			continue
		}
		p := open[0].from(at)
		end := p.end()
		if len(todo) > 0 && todo[0].at < end {
			end = todo[0].at // something begins here: look again
		}
		out = append(out, piece{at: at, data: p.data[:end-at], seq: p.seq})
		at = end
	}
	return out
}

// builder makes runs out of ascending pieces: zeroes at the ends are left out,
// near ones joined.
type builder struct{ runs []Run }

func (b *builder) add(p piece) {
	at, data := p.at, p.data
	for len(data) > 0 && data[0] == 0 {
		at, data = at+1, data[1:]
	}
	for len(data) > 0 && data[len(data)-1] == 0 {
		data = data[:len(data)-1]
	}
	if len(data) == 0 {
		return
	}
	if n := len(b.runs); n > 0 {
		last := &b.runs[n-1]
		if gap := at - last.Offset - uint64(len(last.Data)); gap <= joinGap {
			last.Data = append(last.Data, make([]byte, gap)...)
			last.Data = append(last.Data, data...)
			return
		}
	}
	b.runs = append(b.runs, Run{Offset: at, Data: slices.Clone(data)})
}
