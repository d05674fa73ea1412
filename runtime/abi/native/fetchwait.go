package native

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/selvage-edge/selvage/sdk/abi"
)

// maxWaits is how many handles one fetch_wait may name: as many as the highest
// ceiling lets be under way.
const maxWaits = 64

// fetchWait(list, count, nanoseconds).
func (s *Session) fetchWait(ctx context.Context, a args) (int64, error) {
	n := a.u32(1)
	if n > maxWaits {
		return abi.StatusTooLarge, nil
	}
	b, err := s.borrowN("list", a.u32(0), 4*n)
	if err != nil {
		return 0, err
	}
	var list [maxWaits]int32
	for i := range n {
		list[i] = int32(binary.LittleEndian.Uint32(b.Bytes()[4*i:]))
	}
	b.Release()
	return s.firstReady(ctx, list[:n], time.Duration(a.i64(2)))
}

// firstReady waits for d, or for ever if that is below 0.
func (s *Session) firstReady(ctx context.Context, list []int32, d time.Duration) (int64, error) {
	if i := s.ready(list); i < len(list) || d == 0 {
		return int64(i), ctx.Err()
	}
	var over <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		over = t.C
	}
	for {
		select {
		case <-s.arrived:
			if i := s.ready(list); i < len(list) {
				return int64(i), nil
			}
		case <-over:
			return int64(s.ready(list)), nil
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// ready returns the place of the first handle whose fetch_head would not wait;
// one that is not there would not either.
func (s *Session) ready(list []int32) int {
	for i, h := range list {
		f := s.fetches[h]
		if f == nil {
			return i
		}
		select {
		case <-f.ready:
			return i
		default:
		}
	}
	return len(list)
}

// fetchTrailers(h, buf, cap). The trailers are what came with the body's end.
func (s *Session) fetchTrailers(ctx context.Context, a args) (int64, error) {
	b, err := s.borrow("buf", a, 1)
	if err != nil {
		return 0, err
	}
	defer b.Release()
	f, refused, err := s.await(ctx, a.i32(0))
	if err != nil || refused < 0 {
		return refused, err
	}
	if !f.ended {
		return abi.StatusState, nil
	}
	encoded := AppendPairs(nil, trailerPairs(f))
	if len(encoded) <= len(b.Bytes()) {
		copy(b.Bytes(), encoded)
	}
	return length(len(encoded)), nil
}

// trailerPairs leaves out what is no header: nothing has looked at them yet.
func trailerPairs(f *fetch) []Pair {
	var good []Pair
	for _, p := range responsePairs(f.res.Trailer) {
		if ValidName(p.Name) && IllegalAt(p.Value) < 0 {
			good = append(good, p)
		}
	}
	return good
}
