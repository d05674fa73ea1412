package replica

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/selvage-edge/selvage/runtime/hostcall"
	"github.com/selvage-edge/selvage/runtime/tally"
)

// Load is a copy that comes from another node, page by page. Nobody reads it until Keep makes
// it the namespace's, which is to be done once somebody who is believed has said that it holds Tally. What is not kept,
// also because of a crash, is removed. It is for one goroutine.
type Load struct {
	db    *DB
	head  head
	tally tally.Tally
	bytes uint64 // of the entries in it
	last  string
	over  bool
}

// loading is before the names of loads among the heads: no namespace's begins so.
const loading = "\x00load "

var errOver = errors.New("replica: it was kept or dropped")

// Load begins a copy of what a namespace was at a position.
func (d *DB) Load(ns hostcall.Namespace, at Position) (*Load, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.next++
	l := &Load{db: d, head: head{name: ns, id: d.mu.next, at: at, full: at.Seq}}
	if err := d.use(func(db *pebble.DB) error { return db.Set(l.mark(), l.head.encodeLoad(), pebble.NoSync) }); err != nil {
		return nil, l.fault(err)
	}
	return l, nil
}

// mark is where it is said on disk that it is under way.
func (l *Load) mark() []byte {
	return binary.BigEndian.AppendUint64(headOf(loading), l.head.id)
}

// encodeLoad is encode of a load's head. An older server does not know it, and begins an empty database rather than keep what was never checked.
func (h *head) encodeLoad() []byte {
	b := h.encode()
	b[1] = loadMark
	return b
}

const loadMark = 2

func (l *Load) fault(err error) error {
	return fmt.Errorf("replica: load %s/%s: %w", l.head.name.Project, l.head.name.Name, err)
}

// Add takes the next page. ErrPage: it is none, or not the next; ErrRoom. After an error drop it.
func (l *Load) Add(page []byte) error {
	if l.over {
		return l.fault(errOver)
	}
	before := l.head.bytes
	err := l.db.use(func(db *pebble.DB) error {
		b := db.NewBatch()
		defer b.Close()
		err := decodePage(page, l.last, func(key string, v *Value) error {
			if v.Revision == 0 || v.Revision > l.head.at.Seq {
				return fmt.Errorf("%w: %q is of revision %d, the copy of %d", ErrPage, key, v.Revision, l.head.at.Seq)
			}
			l.count(key, v)
			l.last = key
			value := v.encode()
			l.head.keys, l.head.bytes = l.head.keys+1, l.head.bytes+int64(len(key)+len(value))
			return b.Set(l.head.place(key), value, nil)
		})
		if err != nil {
			return err
		}
		if err := l.db.room(l.head.bytes - before); err != nil {
			return err
		}
		return b.Commit(pebble.NoSync)
	})
	if err != nil {
		l.head.bytes = before
		return l.fault(err)
	}
	l.db.used.Add(l.head.bytes - before)
	return nil
}

func (l *Load) count(key string, v *Value) {
	e := tally.Entry{Key: key, Revision: v.Revision, Expires: v.Expires, Metadata: v.Metadata, Large: v.Absent}
	if !v.Absent {
		e.Sum = sha256.Sum256(v.Value)
	}
	l.tally.Add(&e)
	l.bytes += e.Bytes(len(v.Value))
}

// Keys is how many keys were loaded.
func (l *Load) Keys() uint64 { return l.tally.Entries() }

// Bytes is how much was loaded, as tally.Entry.Bytes counts.
func (l *Load) Bytes() uint64 { return l.bytes }

// Tally is what was loaded: how many keys, and their digest.
func (l *Load) Tally() (keys uint64, sum [32]byte) { return l.tally.Entries(), l.tally.Sum() }

// Keep makes it the namespace's copy, whole at its position, on disk when it returns. It is an error if
// that has begun meanwhile.
func (l *Load) Keep() error {
	l.db.mu.Lock()
	defer l.db.mu.Unlock()
	if l.over {
		return l.fault(errOver)
	}
	c := l.db.mu.copies[l.head.name]
	if c == nil {
		c = &Copy{db: l.db, name: l.head.name}
	}
	if at := c.head().at; at != (Position{}) {
		return l.fault(fmt.Errorf("there is a copy at %d/%d", at.Epoch, at.Seq))
	}
	next := l.head
	next.whole = true
	err := l.db.use(func(db *pebble.DB) error {
		b := db.NewBatch()
		defer b.Close()
		return errors.Join(b.Delete(l.mark(), nil), b.Set(headOf(next.key()), next.encode(), nil), b.Commit(pebble.Sync))
	})
	if err != nil {
		return l.fault(err)
	}
	l.over = true
	l.db.used.Add(-l.head.bytes) // set counts them
	c.set(next)
	l.db.mu.copies[next.name] = c
	return nil
}

// Drop removes it, unless it was kept.
func (l *Load) Drop() error {
	if l.over {
		return nil
	}
	l.over = true
	l.db.used.Add(-l.head.bytes)
	err := l.db.use(func(db *pebble.DB) error { return unload(db, l.mark(), l.head.id) })
	if err != nil && !errors.Is(err, errBroken) {
		return l.fault(err)
	}
	return nil
}

// unload removes what was loaded under a number.
func unload(db *pebble.DB, mark []byte, id uint64) error {
	b := db.NewBatch()
	defer b.Close()
	from, to := binary.BigEndian.AppendUint64(nil, id), binary.BigEndian.AppendUint64(nil, id+1)
	return errors.Join(b.Delete(mark, nil), b.DeleteRange(from, to, nil), b.Commit(pebble.NoSync))
}

// leftOf returns the number of a load whose head this is; ok is false for a copy's.
func leftOf(b []byte) (id uint64, ok bool) {
	if len(b) < 2 || b[0] != version || b[1] != loadMark {
		return 0, false
	}
	plain := append([]byte(nil), b...)
	plain[1] = 0
	h, err := decodeHead(plain)
	return h.id, err == nil
}
