package store

import (
	"strings"
	"time"

	"github.com/google/btree"
)

// Op says what a change did to its key.
type Op uint8

// The operations.
const (
	OpPut    Op = iota + 1 // the key has a new value
	OpDelete               // the key was deleted
	OpExpire               // the key's time was up
)

// item is the newest change of one key. Immutable once it is in an index.
type item struct {
	key      string
	seq      uint64
	op       Op
	expires  int64 // Unix ms, 0 never
	at       int64 // Unix ms, when it was stored
	size     uint32
	sum      [32]byte // OpPut: SHA-256 of the value
	metadata []byte   // OpPut
}

// live reports whether the key has a value at now.
func (i *item) live(now time.Time) bool {
	return i.op == OpPut && (i.expires == 0 || now.UnixMilli() < i.expires)
}

// index holds the keys of one space, by key and by sequence. The table's lock guards it.
type index struct {
	keys *btree.BTreeG[*item]
	log  *btree.BTreeG[*item]
	size Size
	held *held // nil: nobody asks what it holds
}

// Size is what a namespace holds. What has ended counts until its end is a change.
type Size struct {
	Keys  int64 `json:"keys"`
	Bytes int64 `json:"bytes"` // of keys, values and metadata
}

// count adds it times n to the size, if it has a value.
func (s *Size) count(it *item, n int64) {
	if it.op == OpPut {
		s.Keys += n
		s.Bytes += n * int64(len(it.key)+int(it.size)+len(it.metadata))
	}
}

func newIndex() *index {
	return &index{
		keys: btree.NewG(32, func(a, b *item) bool { return a.key < b.key }),
		log:  btree.NewG(32, func(a, b *item) bool { return a.seq < b.seq }),
	}
}

func (x *index) get(key string) (*item, bool) { return x.keys.Get(&item{key: key}) }

// apply makes it the key's newest change; an older one than what is there is ignored.
func (x *index) apply(it *item) {
	old, ok := x.get(it.key)
	if ok && old.seq >= it.seq {
		return
	}
	if ok {
		x.log.Delete(old)
		x.size.count(old, -1)
	}
	x.size.count(it, 1)
	x.keys.ReplaceOrInsert(it)
	x.log.ReplaceOrInsert(it)
	if x.held != nil {
		x.held.replace(old, it)
	}
}

// forget drops deletions and expiries stored before cutoff (Unix ms) and returns the highest sequence dropped.
func (x *index) forget(cutoff int64) (highest uint64) {
	var dead []*item
	x.log.Ascend(func(it *item) bool {
		if it.op != OpPut && it.at < cutoff {
			dead = append(dead, it)
		}
		return it.at < cutoff
	})
	for _, it := range dead {
		x.log.Delete(it)
		x.keys.Delete(it)
		highest = max(highest, it.seq)
	}
	return highest
}

// list returns up to limit live items with the prefix after cursor, in byte order, and whether there are more.
func (x *index) list(prefix, cursor string, limit int, now time.Time) (items []*item, more bool) {
	from := prefix
	if cursor >= prefix && cursor != "" {
		from = cursor + "\x00"
	}
	x.keys.AscendGreaterOrEqual(&item{key: from}, func(it *item) bool {
		if !strings.HasPrefix(it.key, prefix) {
			return false
		}
		if !it.live(now) {
			return true
		}
		if len(items) == limit {
			more = true
			return false
		}
		items = append(items, it)
		return true
	})
	return items, more
}

// after returns the changes after seq, oldest first: at most n, and no more
// once their values, counted up to inline bytes each, pass budget. more says that some are left.
func (x *index) after(seq uint64, n, budget, inline int) (items []*item, more bool) {
	x.log.AscendGreaterOrEqual(&item{seq: seq + 1}, func(it *item) bool {
		if len(items) >= n || budget <= 0 {
			more = true
			return false
		}
		items = append(items, it)
		budget -= len(it.key) + 64
		if int(it.size) <= inline {
			budget -= int(it.size)
		}
		return true
	})
	return items, more
}
