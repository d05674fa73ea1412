package native

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/selvage-edge/selvage/runtime/hostcall"
	"github.com/selvage-edge/selvage/sdk/abi"
)

// kvAnswer is an answer of kv_read that the guest's buffer was too small for. It is
// memory of the guest's: what its limit has no room for is read anew.
type kvAnswer struct {
	ns      uint32
	keys    string
	atLeast int64
	encoded []byte
}

// kvRead(ns, keys, keys_len, at_least, buf, cap).
func (s *Session) kvRead(ctx context.Context, a args) (int64, error) {
	asked, err := s.text("keys", a, 1)
	if err != nil {
		return 0, err
	}
	buf, err := s.borrow("buf", a, 4)
	if err != nil {
		return 0, err
	}
	defer buf.Release()
	q := kvAnswer{ns: a.u32(0), keys: asked, atLeast: a.i64(3)}
	held := s.kvAnswer
	s.kvAnswer = kvAnswer{}
	q.encoded = held.encoded
	if held.encoded == nil || held.ns != q.ns || held.keys != q.keys || held.atLeast != q.atLeast {
		var refused int64
		if q.encoded, refused, err = s.read(ctx, q); err != nil || refused < 0 {
			return refused, err
		}
	}
	if len(q.encoded) <= len(buf.Bytes()) {
		copy(buf.Bytes(), q.encoded)
	} else if s.affords(2 * len(q.encoded)) { // for as large a buffer too
		s.kvAnswer = q
	}
	return length(len(q.encoded)), nil
}

// keptAlways is how much is kept beside any memory.
const keptAlways = 64 << 10

// affords reports whether the guest's memory could be larger by so many bytes.
func (s *Session) affords(n int) bool {
	return n <= keptAlways || s.Instance.Usage().MemoryBytes+int64(n) <= s.Limits.MemoryBytes
}

// dropKept gives the kept answer up once the guest has grown into its room.
func (s *Session) dropKept() {
	if n := len(s.kvAnswer.encoded); n > 0 && !s.affords(n) {
		s.kvAnswer = kvAnswer{}
	}
}

// read asks the port, after it has charged for each key.
func (s *Session) read(ctx context.Context, q kvAnswer) (encoded []byte, refused int64, err error) {
	keys, ok := decodeKeys(q.keys)
	if !ok || q.atLeast < abi.ReadStrong {
		return nil, abi.StatusInvalid, nil
	}
	var ns hostcall.Namespace
	for _, key := range keys {
		bound, refused := s.kvCharge(q.ns)
		switch {
		case refused < 0:
			return nil, refused, nil
		case key == "":
			return nil, abi.StatusInvalid, nil
		case len(key) > hostcall.MaxKeyBytes:
			return nil, abi.StatusTooLarge, nil
		}
		ns = s.namespace(bound)
	}
	list, err := s.KV.Read(ctx, ns, keys, hostcall.ReadOptions{Strong: q.atLeast == abi.ReadStrong, AtLeast: uint64(max(q.atLeast, 0))})
	if err != nil {
		refused, err = status(ctx, err)
		return nil, refused, err
	}
	return encodeResults(list), abi.StatusOK, nil
}

// decodeKeys reads u32 count and as many strings, with nothing after them.
func decodeKeys(s string) ([]string, bool) {
	if len(s) < 4 {
		return nil, false
	}
	n := binary.LittleEndian.Uint32([]byte(s[:4]))
	if n == 0 || n > abi.MaxReadKeys {
		return nil, false
	}
	s = s[4:]
	keys := make([]string, 0, n)
	for range n {
		if len(s) < 4 {
			return nil, false
		}
		size := binary.LittleEndian.Uint32([]byte(s[:4]))
		if s = s[4:]; uint64(size) > uint64(len(s)) {
			return nil, false
		}
		keys, s = append(keys, s[:size]), s[size:]
	}
	return keys, s == ""
}

func encodeResults(list []hostcall.Result) []byte {
	size := 4
	for i := range list {
		size += 4 + 8 + 8 + 8 + 4 + len(list[i].Metadata) + 4 + len(list[i].Value)
	}
	b := binary.LittleEndian.AppendUint32(make([]byte, 0, size), uint32(len(list)))
	for _, r := range list {
		status := int32(abi.StatusOK)
		if errors.Is(r.Err, hostcall.ErrNotFound) {
			status = abi.StatusNotFound
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(status))
		b = binary.LittleEndian.AppendUint64(b, r.Revision)
		b = binary.LittleEndian.AppendUint64(b, uint64(expiry(r.Expires)))
		b = binary.LittleEndian.AppendUint64(b, uint64(staleness(r.Stale)))
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(r.Metadata))), r.Metadata...)
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(r.Value))), r.Value...)
	}
	return b
}

// staleness is d in whole milliseconds, rounded up; -1 if it is not known.
func staleness(d time.Duration) int64 {
	if d < 0 {
		return -1
	}
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}
