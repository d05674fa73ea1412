package native

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/sdk/abi"
)

// maxFetchWaits is how many handles one fetch_wait may name: as many as the
// highest ceiling lets be under way.
const maxFetchWaits = 64

// interest is what a guest waits for: some of events, of a handle.
type interest struct {
	handle int32
	events uint32
}

// wait(list, count, nanoseconds).
func (s *Session) wait(ctx context.Context, a args) (int64, error) {
	n := a.u32(1)
	if n > abi.MaxWaits {
		return s.refuse(fault.BadWait, abi.StatusTooLarge, fmt.Errorf("%d entries, want at most %d", n, abi.MaxWaits)), nil
	}
	b, err := s.borrowN("list", a.u32(0), abi.WaitSize*n)
	if err != nil {
		return 0, err
	}
	var room [abi.MaxWaits]interest
	list, err := decodeWaits(room[:0], b.Bytes())
	b.Release()
	if err != nil {
		return s.refuse(fault.BadWait, abi.StatusInvalid, err), nil
	}
	return s.firstReady(ctx, list, time.Duration(a.i64(2)))
}

// decodeWaits appends the entries of b, which holds whole ones, to list.
func decodeWaits(list []interest, b []byte) ([]interest, error) {
	const all = abi.WaitRead | abi.WaitWrite | abi.WaitHead
	for ; len(b) >= abi.WaitSize; b = b[abi.WaitSize:] {
		w := interest{int32(binary.LittleEndian.Uint32(b)), binary.LittleEndian.Uint32(b[4:])}
		if w.events == 0 || w.events&^all != 0 {
			return nil, fmt.Errorf("entry %d waits for %#x: want at least one bit of %#x and no other", len(list), w.events, all)
		}
		list = append(list, w)
	}
	return list, nil
}

// fetchWait(list, count, nanoseconds) is wait for heads alone.
func (s *Session) fetchWait(ctx context.Context, a args) (int64, error) {
	n := a.u32(1)
	if n > maxFetchWaits {
		return abi.StatusTooLarge, nil
	}
	b, err := s.borrowN("list", a.u32(0), 4*n)
	if err != nil {
		return 0, err
	}
	var list [maxFetchWaits]interest
	for i := range n {
		list[i] = interest{int32(binary.LittleEndian.Uint32(b.Bytes()[4*i:])), abi.WaitHead}
	}
	b.Release()
	return s.firstReady(ctx, list[:n], time.Duration(a.i64(2)))
}

// firstReady waits for d, or for ever if that is below 0.
func (s *Session) firstReady(ctx context.Context, list []interest, d time.Duration) (int64, error) {
	if s.bell == nil {
		s.bell = make(bell, 1)
	}
	if i := s.ready(list); i < len(list) || d == 0 {
		return int64(i), s.over(ctx)
	}
	var over <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		over = t.C
	}
	for {
		select {
		case <-s.bell:
			if i := s.ready(list); i < len(list) {
				return int64(i), s.over(ctx)
			}
		case <-over:
			return int64(s.ready(list)), s.over(ctx)
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// over is why the invocation ends: its context, or an answer that could not be sent.
func (s *Session) over(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.out.idle() {
		return s.out.err
	}
	return nil
}

// ready returns the place of the first entry of which something is ready, after
// it has looked at all: that sets them going.
func (s *Session) ready(list []interest) int {
	first := len(list)
	for i, w := range list {
		if s.isReady(w) && i < first {
			first = i
		}
	}
	return first
}

// isReady looks at all events of w. The calls on a handle that is not there do not wait.
func (s *Session) isReady(w interest) bool {
	f, q := s.fetches[w.handle], s.asks[w.handle]
	switch {
	case w.handle == abi.WaitExchange:
		read := w.events&abi.WaitRead != 0 && s.readable()
		write := w.events&abi.WaitWrite != 0 && s.out.ready()
		return read || write || w.events&abi.WaitHead != 0
	case q != nil:
		return q.idle()
	case f == nil:
		return true
	}
	read := w.events&abi.WaitRead != 0 && f.readable(s.bell)
	write := w.events&abi.WaitWrite != 0 && (f.upload == nil || f.out.ready())
	return read || write || w.events&abi.WaitHead != 0 && f.arrived()
}

// readable reports whether request_read would not wait.
func (s *Session) readable() bool {
	if s.in.src == nil {
		s.in.src = requestBody{s.Exchange}
	}
	return s.in.ready(s.bell)
}

// requestBody is an exchange as a reader of its request's body.
type requestBody struct{ Exchange }

func (b requestBody) Read(p []byte) (int, error) { return b.ReadBody(p) }
