package native

import (
	"io"
	"net/http"
	"strconv"

	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/sdk/abi"
)

// requestRead(buf, cap) fills the guest's buffer straight from the connection.
func (s *Session) requestRead(a args) (int64, error) {
	b, err := s.borrow("buf", a, 0)
	if err != nil {
		return 0, err
	}
	defer b.Release()
	if s.in.src == nil {
		return readInto(b.Bytes(), s.Exchange.ReadBody)
	}
	return readInto(b.Bytes(), s.in.Read)
}

// readInto reads until something came: 0 would be the end.
func readInto(p []byte, read func([]byte) (int, error)) (int64, error) {
	for len(p) > 0 {
		n, err := read(p)
		if n > 0 || err == io.EOF {
			return length(n), nil
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, nil
}

// responseHead(status, headers, headers_len) comes here for 1xx heads only.
func (s *Session) responseHead(a args) (int64, error) {
	if s.headSent {
		s.refused.Add(fault.SecondHead, 1, "", "")
		return abi.StatusState, nil
	}
	b, err := s.borrow("headers", a, 1)
	if err != nil {
		return 0, err
	}
	defer b.Release()
	return abi.StatusOK, s.Exchange.WriteHead(int(a.i32(0)), b.Bytes())
}

// responseWrite(ptr, len) comes here when the gathered bytes and these are too
// many to gather: both are sent, these straight from the guest's memory.
func (s *Session) responseWrite(a args) (int64, error) {
	b, err := s.borrow("ptr", a, 0)
	if err != nil {
		return 0, err
	}
	defer b.Release()
	behind, err := s.beginSend(len(b.Bytes()))
	switch {
	case err != nil:
		return 0, err
	case behind:
		s.out.write(s.bell, s.Exchange.WriteBody, s.Instance.Response().Body, b.Bytes())
		s.Instance.ClearBody()
		return length(len(b.Bytes())), nil
	}
	if err := s.sendGathered(); err != nil {
		return 0, err
	}
	return length(len(b.Bytes())), s.Exchange.WriteBody(b.Bytes())
}

func (s *Session) responseFlush() (int64, error) {
	behind, err := s.beginSend(0)
	switch {
	case err != nil:
		return 0, err
	case behind:
		s.out.write(s.bell, s.writeAndFlush, s.Instance.Response().Body)
		s.Instance.ClearBody()
		return abi.StatusOK, nil
	}
	if err := s.sendGathered(); err != nil {
		return 0, err
	}
	return abi.StatusOK, s.Exchange.Flush()
}

func (s *Session) writeAndFlush(p []byte) error {
	if err := s.Exchange.WriteBody(p); err != nil {
		return err
	}
	return s.Exchange.Flush()
}

// beginSend waits for what is being sent, sends the head, and reports whether n
// bytes more may be sent behind the guest.
func (s *Session) beginSend(n int) (bool, error) {
	behind, err := s.out.may(n)
	if err != nil {
		return false, err
	}
	return behind, s.sendHead()
}

func (s *Session) sendGathered() error {
	err := s.Exchange.WriteBody(s.Instance.Response().Body)
	s.Instance.ClearBody()
	return err
}

func (s *Session) sendHead() error {
	if s.headSent {
		return nil
	}
	s.headSent = true
	head := s.Instance.Response()
	if !head.HeadSet {
		head.Status, head.Headers = http.StatusOK, nil
	}
	err := s.Exchange.WriteHead(head.Status, head.Headers)
	s.Instance.MarkSent()
	return err
}

// Answered reports whether the guest has begun to answer.
func (s *Session) Answered() bool {
	r := s.Instance.Response()
	return s.headSent || r.HeadSet || len(r.Body) > 0
}

// Finish sends what is left of the answer of a guest that has returned.
func (s *Session) Finish() error {
	if !s.Answered() {
		return fault.New(fault.NoResponse, "call response_head or response_write before handle returns", nil)
	}
	if _, err := s.beginSend(0); err != nil {
		return err
	}
	return s.Exchange.Finish(s.Instance.Response().Body)
}

// Refused is what the guest was refused, with n log records that were dropped.
func (s *Session) Refused(logDropped int) fault.Tally {
	second, large := s.Instance.RefusedHeads()
	if second+large+logDropped == 0 {
		return s.refused // nearly always: no text is made for it
	}
	s.refused.Add(fault.SecondHead, second, "", "")
	s.refused.Add(fault.LargeHead, large, bytesOf(int64(s.Limits.ResponseHead)), "")
	s.refused.Add(fault.LogFull, logDropped, bytesOf(int64(s.Limits.LogBytes)), "")
	return s.refused
}

func bytesOf(n int64) string { return strconv.FormatInt(n, 10) + " bytes" }
