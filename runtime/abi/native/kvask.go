package native

import (
	"context"
	"fmt"

	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/hostcall"
	"github.com/selvage-edge/selvage/sdk/abi"
)

// An ask is a kv_get that goes on beside the guest.
type ask struct {
	work
	cancel context.CancelFunc
	entry  hostcall.Entry
	err    error
}

// kvAsk(ns, key, key_len).
func (s *Session) kvAsk(ctx context.Context, a args) (int64, error) {
	if len(s.asks) >= abi.MaxAsks {
		s.refused.Add(fault.KVNow, 1, fmt.Sprint(abi.MaxAsks), "")
		return abi.StatusLimit, nil
	}
	bound, key, refused, err := s.kvKey(a)
	if err != nil || refused < 0 {
		return refused, err
	}
	if s.bell == nil {
		s.bell = make(bell, 1)
	}
	if s.asks == nil {
		s.asks = map[int32]*ask{}
	}
	ctx, cancel := context.WithCancel(ctx)
	q, ns := &ask{cancel: cancel}, s.namespace(bound)
	q.begin(s.bell, func() { q.entry, q.err = s.KV.Get(ctx, ns, key) })
	s.lastHandle++
	s.asks[s.lastHandle] = q
	return int64(s.lastHandle), nil
}

// kvTake(h, buf, cap, entry).
func (s *Session) kvTake(ctx context.Context, a args) (int64, error) {
	buf, err := s.borrow("buf", a, 1)
	if err != nil {
		return 0, err
	}
	defer buf.Release()
	header, err := s.borrowN("entry", a.u32(3), abi.KVEntrySize)
	if err != nil {
		return 0, err
	}
	defer header.Release()
	q := s.asks[a.i32(0)]
	if q == nil {
		return s.refuse(fault.Ended, abi.StatusInvalid, fmt.Errorf("KV call %d was answered, or never was", a.i32(0))), nil
	}
	q.join()
	answer, err := status(ctx, q.err)
	if err == nil && answer == abi.StatusOK {
		answer = giveEntry(q.entry, header.Bytes(), buf.Bytes())
	}
	if answer != abi.StatusTooSmall {
		s.dropAsk(a.i32(0))
	}
	return answer, err
}

func (s *Session) dropAsk(h int32) bool {
	q := s.asks[h]
	if q == nil {
		return false
	}
	delete(s.asks, h)
	q.cancel()
	q.join()
	return true
}
