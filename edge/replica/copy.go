package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// Position is a place in a namespace's log; the zero Position: none.
type Position struct{ Epoch, Seq uint64 }

// Copy is one namespace. Get and List may be called from many goroutines; of the others one at a time.
type Copy struct {
	db   *DB
	name hostcall.Namespace
	mu   struct {
		sync.RWMutex
		head head
	}
}

// Position is how far changes were taken: those that follow are wanted next.
func (c *Copy) Position() Position {
	return c.head().at
}

// Complete is what the copy has everything up to, at most Position: between the two are pages of which
// what is still to come may replace what is here. No position: it is not whole.
func (c *Copy) Complete() Position {
	return c.head().complete()
}

// Head is where the copy is complete again, at least.
func (c *Copy) Head() uint64 {
	return c.head().head
}

// Whole reports whether the copy has everything up to a position, and may answer.
func (c *Copy) Whole() bool {
	return c.head().whole && c.db.broken.Load() == nil
}

// Change is what became of one key.
type Change struct {
	Key   string
	Gone  bool // deleted or expired; then nothing else but Key counts
	Value Value
}

// Value is what a key has. It is lent to Apply.
type Value struct {
	Revision uint64
	Expires  int64 // Unix milliseconds on the store's clock; 0: never
	Metadata []byte
	Value    []byte
	Absent   bool // it is too large to come with the change, and is not here
}

// SizeOf is how much a copy grows by changes of keys that it does not have, as Config.Bytes counts.
func SizeOf(list []Change) (bytes int64) {
	for i := range list {
		if !list[i].Gone {
			bytes += int64(len(list[i].Key) + list[i].Value.size())
		}
	}
	return bytes
}

// Apply takes the next changes of the log, up to the position to; complete says that nothing
// up to there is still to come, but for what pages said. What it took is on disk when it returns, if the copy is whole; of one that
// is not, a crash may lose the last. ErrRoom: it took nothing.
func (c *Copy) Apply(to Position, list []Change, complete bool) error {
	return c.take(to, list, complete, 0)
}

// ApplyPage is Apply of a page: what belongs to it is there once the log has come to head.
func (c *Copy) ApplyPage(to Position, list []Change, head uint64) error {
	return c.take(to, list, false, head)
}

func (c *Copy) take(to Position, list []Change, complete bool, head uint64) error {
	next := c.head()
	next.head = max(next.head, head)
	complete = complete && to.Seq >= next.head
	if next.at.Epoch != 0 && next.at.Epoch != to.Epoch {
		return fmt.Errorf("replica: %s/%s: changes of epoch %d for a copy of epoch %d", c.name.Project, c.name.Name, to.Epoch, next.at.Epoch)
	}
	how := pebble.NoSync
	if complete && !next.whole || next.whole && len(list) > 0 {
		how = pebble.Sync
	}
	before := next.bytes
	err := c.db.use(func(db *pebble.DB) error {
		if err := c.db.config.leaves(c.db.config.Spare / 2); err != nil {
			return err
		}
		b := db.NewBatch()
		defer b.Close()
		for i := range list {
			if err := next.change(db, b, &list[i]); err != nil {
				return err
			}
		}
		next.once = min(next.once, max(to.Seq, head))
		if next.at = to; complete {
			next.whole, next.full = true, to.Seq
		}
		if grown := next.bytes - before; grown > 0 {
			if err := c.db.room(grown); err != nil {
				return err
			}
		}
		return errors.Join(b.Set(headOf(next.key()), next.encode(), nil), b.Commit(how))
	})
	if err != nil {
		return fmt.Errorf("replica: %s/%s: %w", c.name.Project, c.name.Name, err)
	}
	c.set(next)
	return nil
}

// change writes one key's, and counts.
func (h *head) change(db *pebble.DB, b *pebble.Batch, ch *Change) error {
	key := h.place(ch.Key)
	if h.whole || ch.Gone || ch.Value.Revision > h.once { // else it is not here: what is new is written faster unseen
		old, done, err := db.Get(key)
		switch {
		case err == nil:
			h.keys, h.bytes = h.keys-1, h.bytes-int64(len(ch.Key)+len(old))
			if err := done.Close(); err != nil {
				return err
			}
		case !errors.Is(err, pebble.ErrNotFound):
			return err
		}
	}
	if ch.Gone {
		return b.Delete(key, nil)
	}
	value := ch.Value.encode()
	h.keys, h.bytes = h.keys+1, h.bytes+int64(len(ch.Key)+len(value))
	return b.Set(key, value, nil)
}

// Get returns what the copy has of a key as of a position that it gives, Complete's: the key was so
// then, or has changed since to what is returned. found is false for a key that is not there.
// ok is false where the copy cannot say: it is not whole, has failed, or the value is not here.
func (c *Copy) Get(key string) (v Value, at Position, found, ok bool) {
	h := c.head()
	if !h.whole {
		return v, h.complete(), false, false
	}
	err := c.db.use(func(db *pebble.DB) error {
		raw, done, err := db.Get(h.place(key))
		if errors.Is(err, pebble.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		found = true
		if v, err = decodeValue(append([]byte(nil), raw...)); err != nil {
			c.db.fail(err)
		}
		return errors.Join(err, done.Close())
	})
	// A copy that was reset meanwhile has another number: the keys of the old one may be half gone.
	if err != nil || v.Absent || c.head().id != h.id {
		return Value{}, h.complete(), false, false
	}
	return v, h.complete(), found, true
}

// List calls do for each key with the prefix that comes after a key, in byte order, until it
// returns false; the value is lent to it. at and ok are as of Get.
func (c *Copy) List(prefix, after string, do func(key string, v *Value) bool) (at Position, ok bool) {
	h := c.head()
	if !h.whole {
		return h.complete(), false
	}
	err := c.db.use(func(db *pebble.DB) (err error) {
		it, err := db.NewIter(h.span(prefix, after))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, it.Close()) }()
		for it.First(); it.Valid(); it.Next() {
			raw, err := it.ValueAndErr()
			if err != nil {
				return err
			}
			v, err := decodeValue(raw)
			if err != nil {
				c.db.fail(err)
				return err
			}
			if !do(string(it.Key()[keyBytes:]), &v) {
				return nil
			}
		}
		return it.Error()
	})
	return h.complete(), err == nil && c.head().id == h.id
}

// span is the places of keys with the prefix that come after a key.
func (h *head) span(prefix, after string) *pebble.IterOptions {
	from := prefix
	if after != "" && after >= prefix {
		from = after + "\x00"
	}
	end := h.place(prefix)
	for i := len(end) - 1; ; i-- { // a copy's number is below the largest, so that this ends
		if end[i]++; end[i] != 0 {
			return &pebble.IterOptions{LowerBound: h.place(from), UpperBound: end[:i+1]}
		}
	}
}

// Reset empties the copy: it begins again at no position.
func (c *Copy) Reset() error { return c.drop(true) }

// Drop gives the copy up.
func (c *Copy) Drop() error { return c.drop(false) }

func (c *Copy) drop(again bool) error {
	c.db.mu.Lock()
	defer c.db.mu.Unlock()
	old := c.head()
	c.db.mu.next++
	c.set(begin(c.name, c.db.mu.next)) // nobody reads the old keys from here on
	if !again {
		delete(c.db.mu.copies, c.name)
	}
	err := c.db.use(func(db *pebble.DB) error {
		b := db.NewBatch()
		defer b.Close()
		return errors.Join(b.Delete(headOf(old.key()), nil), b.DeleteRange(old.place(""), binary.BigEndian.AppendUint64(nil, old.id+1), nil), b.Commit(pebble.Sync))
	})
	if err != nil && !errors.Is(err, errBroken) {
		return fmt.Errorf("replica: drop %s/%s: %w", c.name.Project, c.name.Name, err)
	}
	return nil
}

// Size is the copy's keys and bytes; a key that changed in the moment in which a page was made may count twice.
func (c *Copy) Size() (keys, bytes int64) {
	h := c.head()
	return h.keys, h.bytes
}

func (c *Copy) head() head {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.mu.head
}

func (c *Copy) set(h head) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.db.used.Add(h.bytes - c.mu.head.bytes)
	c.mu.head = h
}

// place is where a key of the copy is in the database. Numbers begin at 1; below are the heads.
func (h *head) place(key string) []byte {
	b := make([]byte, 0, keyBytes+len(key))
	return append(binary.BigEndian.AppendUint64(b, h.id), key...)
}

func headOf(key string) []byte { return append(make([]byte, keyBytes), key...) }

var errRecord = errors.New("replica: not a record")

// head is what is known of a copy.
type head struct {
	name  hostcall.Namespace
	id    uint64 // before its keys
	at    Position
	whole bool
	full  uint64 // whole: it has everything up to this
	head  uint64 // it has everything again once it is here
	keys  int64
	bytes int64
	// A key whose revision is not above this comes for the first time, if the copy is not whole: each batch so far was made
	// when the log was here or further, and a batch has what was newest then. Not kept on disk: 0 says nothing.
	once uint64
}

// begin is the head of a new copy.
func begin(ns hostcall.Namespace, id uint64) head {
	return head{name: ns, id: id, once: math.MaxUint64}
}

func (h head) complete() Position {
	if !h.whole {
		return Position{}
	}
	return Position{Epoch: h.at.Epoch, Seq: h.full}
}

func (h *head) key() string { return h.name.Project + "/" + h.name.Name }

const version = 2

// encode returns u8 version, u8 whole, then uvarints: id, epoch, seq, full, head, keys, bytes; string project, string name.
func (h *head) encode() []byte {
	b := []byte{version, 0}
	if h.whole {
		b[1] = 1
	}
	for _, n := range []uint64{h.id, h.at.Epoch, h.at.Seq, h.full, h.head, uint64(max(h.keys, 0)), uint64(max(h.bytes, 0))} {
		b = binary.AppendUvarint(b, n)
	}
	for _, s := range []string{h.name.Project, h.name.Name} {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	return b
}

func decodeHead(b []byte) (h head, err error) {
	if len(b) < 2 || b[0] != version || b[1] > 1 {
		return h, fmt.Errorf("%w: a copy's head of another version", errRecord)
	}
	r := reader{b: b[2:]}
	h.whole = b[1] == 1
	h.id, h.at.Epoch, h.at.Seq = r.uvarint(), r.uvarint(), r.uvarint()
	h.full, h.head = r.uvarint(), r.uvarint()
	h.keys, h.bytes = int64(r.uvarint()), int64(r.uvarint())
	h.name.Project, h.name.Name = string(r.take(r.uvarint())), string(r.take(r.uvarint()))
	if r.bad || len(r.b) > 0 || h.id == 0 || h.id == math.MaxUint64 || h.keys < 0 || h.bytes < 0 || h.full > h.at.Seq {
		return head{}, fmt.Errorf("%w: a copy's head of %d bytes", errRecord, len(b))
	}
	return h, nil
}

// encode returns u8 1, or 2 if the value is not here, uvarint revision, uvarint expires, string metadata, the value.
func (v *Value) encode() []byte {
	b := make([]byte, 1, 1+3*binary.MaxVarintLen64+len(v.Metadata)+len(v.Value))
	b[0] = 1
	if v.Absent {
		b[0] = 2
	}
	b = binary.AppendUvarint(b, v.Revision)
	b = binary.AppendUvarint(b, uint64(max(v.Expires, 0)))
	b = binary.AppendUvarint(b, uint64(len(v.Metadata)))
	b = append(b, v.Metadata...)
	if !v.Absent {
		b = append(b, v.Value...)
	}
	return b
}

// size is the length of what encode returns.
func (v *Value) size() int {
	head := Value{Revision: v.Revision, Expires: v.Expires, Metadata: v.Metadata, Absent: true}
	return len(head.encode()) + len(v.Value)
}

// decodeValue reads what encode wrote; the value aliases b.
func decodeValue(b []byte) (v Value, err error) {
	if len(b) == 0 || b[0] < 1 || b[0] > 2 {
		return v, fmt.Errorf("%w: a value of another version", errRecord)
	}
	r := reader{b: b[1:]}
	v.Absent = b[0] == 2
	v.Revision, v.Expires = r.uvarint(), int64(r.uvarint())
	if m := r.take(r.uvarint()); len(m) > 0 {
		v.Metadata = m
	}
	if r.bad || v.Expires < 0 || len(v.Metadata) > hostcall.MaxMetadataBytes || v.Absent && len(r.b) > 0 {
		return Value{}, fmt.Errorf("%w: a value of %d bytes", errRecord, len(b))
	}
	if !v.Absent {
		v.Value = r.b[:len(r.b):len(r.b)]
	}
	return v, nil
}

// reader takes fields off the front of b; bad stays once one is not there.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uvarint() uint64 {
	n, size := binary.Uvarint(r.b)
	if r.bad || size <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}
