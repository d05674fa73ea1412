package native

import "github.com/selvage-edge/selvage/sdk/abi"

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
	return abi.StatusOK, s.Exchange.SetTrailers(b.Bytes())
}
