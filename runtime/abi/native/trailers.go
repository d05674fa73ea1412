package native

import (
	"context"

	"github.com/selvage-edge/selvage/sdk/abi"
)

// requestTrailers(buf, cap).
func (s *Session) requestTrailers(a args) (int64, error) {
	b, err := s.borrow("buf", a, 0)
	if err != nil {
		return 0, err
	}
	defer b.Release()
	list, ended := s.Exchange.RequestTrailers()
	if !ended {
		return abi.StatusState, nil
	}
	if len(list) <= len(b.Bytes()) {
		copy(b.Bytes(), list)
	}
	return length(len(list)), nil
}

// responseTrailers(list, list_len). They count against the head's limit anew.
func (s *Session) responseTrailers(a args) (int64, error) {
	b, err := s.borrow("list", a, 0)
	if err != nil {
		return 0, err
	}
	defer b.Release()
	if len(b.Bytes()) > int(s.Limits.ResponseHead) {
		return abi.StatusTooLarge, nil
	}
	if s.out.join(); s.out.err != nil {
		return 0, s.out.err
	}
	return abi.StatusOK, s.Exchange.SetTrailers(b.Bytes())
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
