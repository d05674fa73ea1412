package edge

import (
	"context"
	"encoding/binary"
	"math"
	"unsafe"
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

func (n *Namespace) get(ctx context.Context, key string) (Entry, error) {
	ns, err := n.handle()
	if err != nil {
		return Entry{}, err
	}
	k, keySize := ofString(key)
	if asked >= maxAsks || alone(context.Background()) {
		return gatherEntry(func(p unsafe.Pointer, size uint32, entry unsafe.Pointer) int32 {
			return hostKVGet(ns, k, keySize, p, size, entry)
		})
	}
	h := hostKVAsk(ns, k, keySize)
	if err := failure(h); err != nil {
		return Entry{}, err
	}
	asked++
	defer func() { asked-- }()
	if err := await(ctx, h, waitHead); err != nil {
		hostFetchClose(h)
		return Entry{}, err
	}
	return gatherEntry(func(p unsafe.Pointer, size uint32, entry unsafe.Pointer) int32 {
		return hostKVTake(h, p, size, entry)
	})
}

// asked is how many gets are under way beside their goroutines, maxAsks how many may be.
var asked int

const maxAsks = 32

// entryHead is where the host puts an entry's header; what scratch is for values.
var entryHead [kvEntrySize]byte

// gatherEntry makes a call that answers with an entry, again if there was no
// room for the value.
func gatherEntry(call func(p unsafe.Pointer, size uint32, entry unsafe.Pointer) int32) (Entry, error) {
	buf := scratch
	for {
		p, size := of(buf)
		status := Status(call(p, size, unsafe.Pointer(&entryHead)))
		n := binary.LittleEndian.Uint32(entryHead[16:])
		switch {
		case status == ErrTooSmall && n > size:
			buf = make([]byte, n) // the value may grow meanwhile: then once more
			continue
		case status < 0:
			return Entry{}, status
		}
		return newEntry(entryHead[:], buf, n), nil
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

func (n *Namespace) many(keys []string, atLeast int64) ([]*Entry, error) {
	ns, err := n.handle()
	if err != nil {
		return nil, err
	}
	list := appendU32(nil, uint32(len(keys)))
	for _, key := range keys {
		list = appendString(list, key)
	}
	l, listSize := of(list)
	// What was too long for the buffer is kept by the host for the next call.
	for room := scratch; ; {
		buf, size := of(room)
		got := hostKVRead(ns, l, listSize, atLeast, buf, size)
		if err := failure(got); err != nil {
			return nil, err
		}
		if uint32(got) <= size {
			return decodeRead(string(room[:got]))
		}
		room = make([]byte, got)
	}
}

func (n *Namespace) increment(key string, delta int64) (int64, error) {
	ns, err := n.handle()
	if err != nil {
		return 0, err
	}
	k, keySize := ofString(key)
	if err := failure(hostKVIncrement(ns, k, keySize, delta, unsafe.Pointer(&sumOut))); err != nil {
		return 0, err
	}
	return int64(binary.LittleEndian.Uint64(sumOut[:])), nil
}

// sumOut is where the host puts an increment's sum.
var sumOut [8]byte

func (n *Namespace) put(key string, value, metadata []byte, ttl, ifRevision int64) (uint64, error) {
	if int64(len(value)) > math.MaxInt32 || len(metadata) > math.MaxInt32 {
		return 0, ErrTooLarge
	}
	ns, err := n.handle()
	if err != nil {
		return 0, err
	}
	k, keySize := ofString(key)
	v, size := of(value)
	m, metadataSize := of(metadata)
	revision := hostKVWrite(ns, k, keySize, v, size, m, metadataSize, ttl, ifRevision)
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
	got := hostKVKeys(ns, p, prefixSize, c, cursorSize, uint32(limit), buf, size)
	if err := failure(got); err != nil {
		return Page{}, err
	}
	return decodePage(string(room[:got]))
}

// pageBytes is room for one page of keys; the host returns fewer when it fills.
const pageBytes = 64 << 10
