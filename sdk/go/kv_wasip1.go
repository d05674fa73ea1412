package edge

import (
	"encoding/binary"
	"math"
)

// opened is the host's handle for the namespace, good in one request.
type opened struct {
	handle     int32
	generation uint32
}

// handle opens the namespace at its first use in a request.
func (n *Namespace) handle() (int32, error) {
	if n.open.generation == generation && generation != 0 {
		return n.open.handle, nil
	}
	h := hostKVOpen(ofString(n.name))
	if err := failure(h); err != nil {
		return 0, err
	}
	n.open = opened{handle: h, generation: generation}
	return h, nil
}

func (n *Namespace) get(key string) (Entry, error) {
	ns, err := n.handle()
	if err != nil {
		return Entry{}, err
	}
	k, keySize := ofString(key)
	buf := scratch
	for {
		var head [kvEntrySize]byte
		p, size := of(buf)
		entry, _ := of(head[:])
		status := Status(hostKVGet(ns, k, keySize, p, size, entry))
		n := binary.LittleEndian.Uint32(head[16:])
		switch {
		case status == ErrTooSmall && n > size:
			buf = make([]byte, n) // the value may grow meanwhile: then once more
			continue
		case status < 0:
			return Entry{}, status
		}
		return newEntry(head[:], buf, n), nil
	}
}

// newEntry makes the caller's own entry of what kv_get wrote.
func newEntry(head, buf []byte, n uint32) Entry {
	value := buf[:n:n]
	if &buf[0] == &scratch[0] {
		value = append(make([]byte, 0, n), value...)
	}
	return Entry{
		Value:    value,
		Revision: binary.LittleEndian.Uint64(head),
		Expires:  expiry(binary.LittleEndian.Uint64(head[8:])),
	}
}

func (n *Namespace) put(key string, value []byte, ttl, ifRevision int64) (uint64, error) {
	if int64(len(value)) > math.MaxInt32 {
		return 0, ErrTooLarge
	}
	ns, err := n.handle()
	if err != nil {
		return 0, err
	}
	k, keySize := ofString(key)
	v, size := of(value)
	revision := hostKVPut(ns, k, keySize, v, size, ttl, ifRevision)
	return uint64(max(revision, 0)), failure(revision)
}

func (n *Namespace) delete(key string, ifRevision int64) (uint64, error) {
	ns, err := n.handle()
	if err != nil {
		return 0, err
	}
	k, keySize := ofString(key)
	revision := hostKVDelete(ns, k, keySize, ifRevision)
	return uint64(max(revision, 0)), failure(revision)
}

func (n *Namespace) list(prefix, cursor string, limit int) (Page, error) {
	ns, err := n.handle()
	if err != nil {
		return Page{}, err
	}
	p, prefixSize := ofString(prefix)
	c, cursorSize := ofString(cursor)
	room := make([]byte, pageBytes)
	buf, size := of(room)
	got := hostKVList(ns, p, prefixSize, c, cursorSize, uint32(limit), buf, size)
	if err := failure(got); err != nil {
		return Page{}, err
	}
	return decodePage(string(room[:got]))
}

// pageBytes is room for one page of keys; the host returns fewer when it fills.
const pageBytes = 64 << 10
