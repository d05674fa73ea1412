package edge

import "fmt"

// Status is why the host refused a call. The Err constants are its values;
// errors of this package wrap one of them: test with errors.Is.
type Status int32

// What the host may answer.
const (
	ErrInvalid     Status = -1  // an argument is not of the call's form
	ErrNotFound    Status = -2  // no such key
	ErrDenied      Status = -3  // not bound in selvage.toml, or bound without that access
	ErrConflict    Status = -4  // the key is at another revision
	ErrTooSmall    Status = -5  // the buffer does not hold the answer; the SDK deals with it
	ErrTooLarge    Status = -6  // over a documented limit
	ErrUnavailable Status = -7  // the other side cannot be reached now; may be tried again; a write may have happened
	ErrLimit       Status = -8  // the request's allowance for this call is used up
	ErrClosed      Status = -9  // the client, the body or the handle is gone
	ErrState       Status = -10 // not now: the response head was already sent, and the like
	ErrInternal    Status = -11 // the platform's own fault
)

var statusText = map[Status]string{
	ErrInvalid:     "invalid argument",
	ErrNotFound:    "not found",
	ErrDenied:      "denied: bind it in selvage.toml with the access it needs",
	ErrConflict:    "conflict: the key is at another revision",
	ErrTooSmall:    "buffer too small",
	ErrTooLarge:    "too large",
	ErrUnavailable: "unavailable now; try again",
	ErrLimit:       "the request's allowance is used up; raise it under [limits] in selvage.toml",
	ErrClosed:      "closed by the other side",
	ErrState:       "not possible in this state",
	ErrInternal:    "internal error of the platform",
}

func (s Status) Error() string {
	if text, ok := statusText[s]; ok {
		return text
	}
	return fmt.Sprintf("status %d", int32(s))
}

// failure turns a call's result into an error: nil unless below zero.
func failure[T int32 | int64](result T) error {
	if result >= 0 {
		return nil
	}
	return Status(result)
}
