// Package fair says whose turn it is: first among projects, then among the
// functions of that project, each by what it has had for its weight.
//
// It is weighted fair queueing (Demers, Keshav and Shenker, 1989) in the start-time
// form (Goyal, Vin and Cheng, 1996). Whoever comes back after having wanted nothing
// begins where the others are: idle time is not saved up, and what was used while
// nobody waited is remembered a little only.
package fair

import "container/heap"

// Weight is that of a project, and of a function that asks for none other: as in
// function.Default.
const Weight = 10

// Queue is the projects and functions for which somebody waits. Its owner guards
// it, and all its members, with one lock.
type Queue[T any] struct {
	// Memory is how much is held against who used it before others waited, in the
	// unit of Charge.
	Memory   int64
	root     group[T]
	projects map[string]*group[T]
}

// Member is one function. Its zero value is to Join.
type Member[T any] struct {
	group[T]
	queue   *Queue[T]
	project string
}

// group is one who shares with others: a project, or a function.
type group[T any] struct {
	parent  *group[T] // nil: the root
	of      T
	weight  int64
	members int   // that joined
	at      int   // in the parent's heap, -1 when nobody in it waits
	time    int64 // virtual: what it had, over the weight
	now     int64 // the virtual time of the member that was served last
	waiting groupHeap[T]
}

// Join enters a function, for which of stands. Take it out with Quit.
func (q *Queue[T]) Join(m *Member[T], project string, of T) {
	if q.projects == nil {
		q.projects = map[string]*group[T]{}
	}
	p := q.projects[project]
	if p == nil {
		p = &group[T]{parent: &q.root, weight: Weight, at: -1}
		q.projects[project] = p
	}
	p.members++
	*m = Member[T]{queue: q, project: project, group: group[T]{parent: p, of: of, weight: Weight, at: -1}}
}

// Quit takes the function out, and its project with the last of it. Nobody waits for it.
func (m *Member[T]) Quit() {
	if m.parent.members--; m.parent.members == 0 {
		delete(m.queue.projects, m.project)
	}
}

// SetWeight sets the function's share against its project's other functions;
// below 1: Weight.
func (m *Member[T]) SetWeight(w int) {
	if w < 1 {
		w = Weight
	}
	m.weight = int64(w)
}

// Waiting reports whether somebody waits for the function.
func (m *Member[T]) Waiting() bool { return m.at >= 0 }

// Wait says that somebody waits for the function, if it was not said yet.
func (m *Member[T]) Wait() {
	for g := &m.group; g.parent != nil && g.at < 0; g = g.parent {
		g.time = min(max(g.time, g.parent.now), g.parent.now+m.queue.Memory)
		heap.Push(&g.parent.waiting, g)
	}
}

// Withdraw says that nobody does any more.
func (m *Member[T]) Withdraw() {
	for g := &m.group; g.parent != nil && g.at >= 0 && len(g.waiting) == 0; g = g.parent {
		heap.Remove(&g.parent.waiting, g.at)
	}
}

// Charge books what the function has had. At the default weight it is as much
// virtual time.
func (m *Member[T]) Charge(had int64) {
	for g := &m.group; g.parent != nil; g = g.parent {
		g.time += had * Weight / g.weight
		if g.at >= 0 {
			heap.Fix(&g.parent.waiting, g.at)
		}
	}
}

// Next returns whose turn it is; false if nobody waits.
func (q *Queue[T]) Next() (of T, ok bool) {
	g := &q.root
	for len(g.waiting) > 0 {
		member := g.waiting[0]
		g.now = max(g.now, member.time)
		g = member
	}
	return g.of, g != &q.root
}

// Projects returns how many projects somebody waits for.
func (q *Queue[T]) Projects() int { return len(q.root.waiting) }

// Known returns how many projects have a function that joined.
func (q *Queue[T]) Known() int { return len(q.projects) }

type groupHeap[T any] []*group[T]

func (h groupHeap[T]) Len() int           { return len(h) }
func (h groupHeap[T]) Less(i, j int) bool { return h[i].time < h[j].time }
func (h groupHeap[T]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

func (h *groupHeap[T]) Push(x any) {
	g := x.(*group[T])
	g.at = len(*h)
	*h = append(*h, g)
}

func (h *groupHeap[T]) Pop() any {
	old := *h
	g := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	g.at = -1
	return g
}
