package native

import (
	"context"
	"encoding/binary"
	"math"
	"strconv"
	"time"

	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/hostcall"
	"github.com/selvage-edge/selvage/sdk/abi"
)

// kvOpen(name, name_len): the handle is the binding's place in the list.
func (s *Session) kvOpen(a args) (int64, error) {
	name, err := s.text("name", a, 0)
	if err != nil {
		return 0, err
	}
	if s.KV == nil {
		return s.denyKV("this node has no KV"), nil
	}
	for i := range s.Version.Bindings.KV {
		if s.Version.Bindings.KV[i].Name == name {
			return int64(i), nil
		}
	}
	return s.denyKV("no namespace is bound as " + strconv.Quote(name[:min(len(name), 80)])), nil
}

// kvKey decodes what every call on a key begins with, (ns, key, key_len), and
// charges the call. A status below zero is the call's answer.
func (s *Session) kvKey(a args) (bound *function.KVBinding, key string, refused int64, err error) {
	if key, err = s.text("key", a, 1); err != nil {
		return nil, "", 0, err
	}
	if bound, refused = s.kvCharge(a.u32(0)); refused < 0 {
		return nil, "", refused, nil
	}
	switch {
	case key == "":
		refused = abi.StatusInvalid
	case len(key) > hostcall.MaxKeyBytes:
		refused = abi.StatusTooLarge
	}
	return bound, key, refused, nil
}

func (s *Session) kvCharge(handle uint32) (*function.KVBinding, int64) {
	if s.KV == nil || uint64(handle) >= uint64(len(s.Version.Bindings.KV)) {
		return nil, abi.StatusInvalid
	}
	if s.kvOperations >= s.Limits.KVOperations {
		s.refused.Add(fault.KVOperations, 1, strconv.Itoa(s.Limits.KVOperations), "")
		return nil, abi.StatusLimit
	}
	s.kvOperations++
	return &s.Version.Bindings.KV[handle], abi.StatusOK
}

// denyKV counts a refusal and returns its status.
func (s *Session) denyKV(why string) int64 {
	s.refused.Add(fault.KVDenied, 1, "", why)
	return abi.StatusDenied
}

func (s *Session) namespace(b *function.KVBinding) hostcall.Namespace {
	return hostcall.Namespace{Project: s.Version.ID.Project, Name: b.Namespace}
}

// kvGet(ns, key, key_len, buf, cap, entry).
func (s *Session) kvGet(ctx context.Context, a args) (int64, error) {
	bound, key, refused, err := s.kvKey(a)
	if err != nil || refused < 0 {
		return refused, err
	}
	buf, err := s.peek("buf", a.u32(3), a.u32(4))
	if err != nil {
		return 0, err
	}
	header, err := s.peek("entry", a.u32(5), abi.KVEntrySize)
	if err != nil {
		return 0, err
	}
	e, err := s.KV.Get(ctx, s.namespace(bound), key)
	if err != nil {
		return status(ctx, err)
	}
	return giveEntry(e, header, buf), nil
}

// giveEntry writes header and value, or the header alone if the value is longer than buf.
func giveEntry(e hostcall.Entry, header, buf []byte) int64 {
	putEntry(header, e)
	if len(e.Value) > len(buf) {
		return abi.StatusTooSmall
	}
	copy(buf, e.Value)
	return abi.StatusOK
}

func putEntry(p []byte, e hostcall.Entry) {
	binary.LittleEndian.PutUint64(p, e.Revision)
	binary.LittleEndian.PutUint64(p[8:], uint64(expiry(e.Expires)))
	binary.LittleEndian.PutUint32(p[16:], uint32(len(e.Value)))
	binary.LittleEndian.PutUint32(p[20:], 0)
}

func expiry(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// kvPut(ns, key, key_len, value, value_len, ttl_ms, if_revision).
func (s *Session) kvPut(ctx context.Context, a args) (int64, error) {
	bound, key, refused, err := s.kvKey(a)
	if err != nil || refused < 0 {
		return refused, err
	}
	value, err := s.borrow("value", a, 3)
	if err != nil {
		return 0, err
	}
	defer value.Release()
	return s.put(ctx, bound, key, value.Bytes(), nil, a.i64(5), a.i64(6))
}

// kvWrite(ns, key, key_len, value, value_len, metadata, metadata_len, ttl_ms, if_revision).
func (s *Session) kvWrite(ctx context.Context, a args) (int64, error) {
	bound, key, refused, err := s.kvKey(a)
	if err != nil || refused < 0 {
		return refused, err
	}
	value, err := s.borrow("value", a, 3)
	if err != nil {
		return 0, err
	}
	defer value.Release()
	metadata, err := s.text("metadata", a, 5)
	if err != nil {
		return 0, err
	}
	return s.put(ctx, bound, key, value.Bytes(), []byte(metadata), a.i64(7), a.i64(8))
}

// put is what kv_put and kv_write have in common.
func (s *Session) put(ctx context.Context, bound *function.KVBinding, key string, value, metadata []byte, ttl, expect int64) (int64, error) {
	switch {
	case !bound.Write:
		return s.denyKV(bound.Name + " is bound for reading"), nil
	case len(value) > hostcall.MaxValueBytes || len(metadata) > hostcall.MaxMetadataBytes:
		return abi.StatusTooLarge, nil
	case ttl < 0 || ttl > math.MaxInt64/int64(time.Millisecond) || expect < hostcall.AnyRevision:
		return abi.StatusInvalid, nil
	}
	revision, err := s.KV.Put(ctx, s.namespace(bound), key, value,
		hostcall.PutOptions{TTL: time.Duration(ttl) * time.Millisecond, Metadata: metadata, IfRevision: expect})
	if err != nil {
		return status(ctx, err)
	}
	return int64(revision), nil
}

// kvDelete(ns, key, key_len, if_revision).
func (s *Session) kvDelete(ctx context.Context, a args) (int64, error) {
	bound, key, refused, err := s.kvKey(a)
	if err != nil || refused < 0 {
		return refused, err
	}
	switch expect := a.i64(3); {
	case !bound.Write:
		return s.denyKV(bound.Name + " is bound for reading"), nil
	case expect < hostcall.AnyRevision:
		return abi.StatusInvalid, nil
	}
	revision, err := s.KV.Delete(ctx, s.namespace(bound), key, a.i64(3))
	if err != nil {
		return status(ctx, err)
	}
	return int64(revision), nil
}

// kvIncrement(ns, key, key_len, delta, sum).
func (s *Session) kvIncrement(ctx context.Context, a args) (int64, error) {
	bound, key, refused, err := s.kvKey(a)
	if err != nil || refused < 0 {
		return refused, err
	}
	sum, err := s.borrowN("sum", a.u32(4), 8)
	if err != nil {
		return 0, err
	}
	defer sum.Release()
	if !bound.Write {
		return s.denyKV(bound.Name + " is bound for reading"), nil
	}
	value, revision, err := s.KV.Increment(ctx, s.namespace(bound), key, a.i64(3))
	if err != nil {
		return status(ctx, err)
	}
	binary.LittleEndian.PutUint64(sum.Bytes(), uint64(value))
	return int64(revision), nil
}

// kvList(ns, prefix, prefix_len, cursor, cursor_len, limit, buf, cap); encode lays the page out.
func (s *Session) kvList(ctx context.Context, a args, encode encoder) (int64, error) {
	prefix, err := s.text("prefix", a, 1)
	if err != nil {
		return 0, err
	}
	cursor, err := s.text("cursor", a, 3)
	if err != nil {
		return 0, err
	}
	buf, err := s.borrow("buf", a, 6)
	if err != nil {
		return 0, err
	}
	defer buf.Release()
	limit := int(a.i32(5))
	switch bound, refused := s.kvCharge(a.u32(0)); {
	case refused < 0:
		return refused, nil
	case limit <= 0:
		return abi.StatusInvalid, nil
	case len(prefix) > hostcall.MaxKeyBytes:
		return abi.StatusTooLarge, nil
	default:
		page := kvPage{ns: s.namespace(bound), prefix: prefix, cursor: cursor, room: len(buf.Bytes()), encode: encode}
		encoded, err := page.list(ctx, s.KV, min(limit, hostcall.MaxListKeys))
		if err != nil {
			return status(ctx, err)
		}
		if encoded == nil {
			return abi.StatusTooSmall, nil
		}
		return length(copy(buf.Bytes(), encoded)), nil
	}
}

// kvPage is one page of a listing that has to fit a guest's buffer.
type kvPage struct {
	ns             hostcall.Namespace
	prefix, cursor string
	room           int
	encode         encoder
}

// encoder lays a page out.
type encoder func(keys []hostcall.KeyInfo, next string) []byte

// list returns the encoded page, nil if not even one key fits. Only the port
// knows how to go on after a key, so a page too long for the buffer is asked for
// again with as many keys as will fit.
func (p *kvPage) list(ctx context.Context, kv hostcall.KV, limit int) ([]byte, error) {
	for limit > 0 {
		keys, next, err := kv.List(ctx, p.ns, p.prefix, p.cursor, limit)
		if err != nil {
			return nil, err
		}
		encoded := p.encode(keys, next)
		if len(encoded) <= p.room {
			return encoded, nil
		}
		limit = min(fitting(keys, p.room), len(keys)-1)
	}
	return nil, nil
}

func encodePage(keys []hostcall.KeyInfo, next string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(keys)))
	for _, k := range keys {
		b = AppendString(b, k.Key)
		b = binary.LittleEndian.AppendUint64(b, k.Revision)
		b = binary.LittleEndian.AppendUint64(b, uint64(expiry(k.Expires)))
	}
	return AppendString(b, next)
}

// encodeKeys is encodePage with metadata.
func encodeKeys(keys []hostcall.KeyInfo, next string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(keys)))
	for _, k := range keys {
		b = AppendString(b, k.Key)
		b = binary.LittleEndian.AppendUint64(b, k.Revision)
		b = binary.LittleEndian.AppendUint64(b, uint64(expiry(k.Expires)))
		b = AppendString(b, string(k.Metadata))
	}
	return AppendString(b, next)
}

// fitting is how many of keys fit in room, with a cursor as long as the longest key.
func fitting(keys []hostcall.KeyInfo, room int) int {
	const count, cursor, fixed = 4, 4 + hostcall.MaxKeyBytes, 4 + 8 + 8
	size := count + cursor
	for i, k := range keys {
		// Metadata counts also where it is not laid out: a page with fewer keys is one too.
		if size += fixed + len(k.Key) + 4 + len(k.Metadata); size > room {
			return max(i, 1) // a shorter cursor may yet make one fit
		}
	}
	return len(keys)
}
