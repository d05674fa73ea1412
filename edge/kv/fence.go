package kv

import "container/list"

// fences remembers, for the keys that changed last, the newest revision told
// of each, and one floor for all that it no longer remembers.
type fences struct {
	most  int
	floor uint64 // the newest revision of any fence given up
	byKey map[string]*list.Element
	order *list.List // of fence; the longest unchanged first
}

type fence struct {
	key string
	rev uint64
}

func newFences(most int) fences {
	return fences{most: most, byKey: map[string]*list.Element{}, order: list.New()}
}

// of returns the key's fence.
func (f *fences) of(key string) (rev uint64, known bool) {
	if e := f.byKey[key]; e != nil {
		return e.Value.(fence).rev, true
	}
	return 0, false
}

// raise sets the key's fence to rev; false if that is no news. Below the floor
// nothing is: a newer revision of the key may be among those given up, and a
// fence of its own would hide the floor, which is stricter.
func (f *fences) raise(key string, rev uint64) bool {
	e := f.byKey[key]
	if e != nil && e.Value.(fence).rev >= rev || e == nil && rev <= f.floor {
		return false
	}
	if e != nil {
		e.Value = fence{key, rev}
		f.order.MoveToBack(e)
		return true
	}
	f.byKey[key] = f.order.PushBack(fence{key, rev})
	for f.order.Len() > f.most {
		old := f.order.Remove(f.order.Front()).(fence)
		delete(f.byKey, old.key)
		f.floor = max(f.floor, old.rev)
	}
	return true
}

// passes reports whether e is at least as new as what was told of its key.
func (f *fences) passes(e *entry) bool {
	rev, known := f.of(e.key)
	switch {
	case !known:
		return e.began >= f.floor
	case e.found:
		return e.revision >= rev
	}
	return e.began >= rev
}
