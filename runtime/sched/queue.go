package sched

import (
	"container/heap"
	"time"
)

// memory is how much processor time is held against who used it before others waited.
const memory = int64(50 * time.Millisecond)

// settle books what the function's jobs have used since.
func (a *Account) settle() {
	a.SetWeight(int(a.weight.Load()))
	if spent := a.spent.Swap(0); spent > 0 {
		a.Charge(spent)
	}
}

// push has a job of the function wait.
func (a *Account) push(j *Job) {
	heap.Push(&a.jobs, j)
	a.Wait()
}

// remove takes a job that waits out again.
func (a *Account) remove(j *Job) {
	heap.Remove(&a.jobs, j.place)
	if len(a.jobs) == 0 {
		a.Withdraw()
	}
}

// pop takes out the job whose turn it is; there is one.
func (a *Account) pop() *Job {
	j := a.jobs[0]
	a.remove(j)
	return j
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
