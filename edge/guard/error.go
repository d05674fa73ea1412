package guard

import "net/http"

// Error says why a request is not let in.
type Error struct {
	Status int    // the HTTP status the client sees
	Reason string // a stable word for logs and metrics: "url-too-long"
	Detail string // for the client: what was wrong, never what it sent
}

// Error returns the detail.
func (e *Error) Error() string { return e.Detail }

func bad(reason, detail string) *Error {
	return &Error{Status: http.StatusBadRequest, Reason: reason, Detail: detail}
}

func refuse(status int, reason, detail string) *Error {
	return &Error{Status: status, Reason: reason, Detail: detail}
}
