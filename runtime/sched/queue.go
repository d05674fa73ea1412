package sched

import (
	"container/heap"
	"time"
)

// group is one who shares with others: a project among projects, or a function
// among its project's. Who waits in it is a heap: of groups that have someone
// waiting, or, in a function, of jobs. The scheduler's lock guards it.
type group struct {
	parent *group
	weight int64
	at     int   // in the parent's heap, -1 when nobody in it waits
	time   int64 // virtual: ns of processor time, over the weight
	now    int64 // the virtual time of the member that was served last
	groups groupHeap
	jobs   jobHeap
}

// memory is how much processor time is held against who used it before others waited.
const memory = int64(50 * time.Millisecond)

// settle books what the function's jobs have used since.
func (a *Account) settle() {
	spent := a.spent.Swap(0)
	if spent == 0 {
		return
	}
	for g := &a.group; g.parent != nil; g = g.parent {
		g.time += spent / g.weight
		if g.at >= 0 {
			heap.Fix(&g.parent.groups, g.at)
		}
	}
}

// push has a job of the function wait.
func (a *Account) push(j *Job) {
	heap.Push(&a.jobs, j)
	for g := &a.group; g.parent != nil && g.at < 0; g = g.parent {
		g.time = min(max(g.time, g.parent.now), g.parent.now+memory)
		heap.Push(&g.parent.groups, g)
	}
}

// remove takes a job that waits out again.
func (a *Account) remove(j *Job) {
	heap.Remove(&a.jobs, j.place)
	a.leave()
}

// leave takes the function and its project out of the heaps in which nobody of theirs waits.
func (a *Account) leave() {
	for g := &a.group; g.parent != nil && len(g.jobs)+len(g.groups) == 0; g = g.parent {
		heap.Remove(&g.parent.groups, g.at)
	}
}

// next takes the job out whose turn it is; there is one.
func (root *group) next() *Job {
	g := root
	for len(g.groups) > 0 {
		member := g.groups[0]
		g.now = max(g.now, member.time)
		g = member
	}
	j := heap.Pop(&g.jobs).(*Job)
	j.account.leave()
	return j
}

type groupHeap []*group

func (h groupHeap) Len() int           { return len(h) }
func (h groupHeap) Less(i, j int) bool { return h[i].time < h[j].time }
func (h groupHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

func (h *groupHeap) Push(x any) {
	g := x.(*group)
	g.at = len(*h)
	*h = append(*h, g)
}

func (h *groupHeap) Pop() any {
	old := *h
	g := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	g.at = -1
	return g
}

type jobHeap []*Job

func (h jobHeap) Len() int { return len(h) }
func (h jobHeap) Less(i, j int) bool {
	if h[i].used != h[j].used {
		return h[i].used < h[j].used
	}
	return h[i].order < h[j].order
}

func (h jobHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

func (h *jobHeap) Push(x any) {
	j := x.(*Job)
	j.place = len(*h)
	*h = append(*h, j)
}

func (h *jobHeap) Pop() any {
	old := *h
	j := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	j.place = -1
	return j
}
