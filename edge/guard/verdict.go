package guard

import (
	"crypto/rand"
	"crypto/subtle"
	"net/http"
	"strconv"
	"strings"
)

// A head that Wire refuses is replaced, in its place in the stream, by a request
// that carries the verdict, so that the refusal is answered in order, recorded
// and counted like every other exchange. The token keeps clients from making one.

const verdictHeader = PrivatePrefix + "Verdict"

var verdictToken = rand.Text()

// The verdicts of Wire. Their index travels.
var (
	errLineEnd   = bad("line-end", "a line of the request head does not end in CRLF")
	errLine      = bad("request-line", "the request line is not well-formed")
	errField     = bad("field", "a header field is not well-formed")
	errFold      = bad("field-fold", "a header field is folded over several lines")
	errCoding    = refuse(http.StatusNotImplemented, "transfer-coding", "only Transfer-Encoding: chunked is supported")
	errCoding10  = bad("transfer-coding-1.0", "HTTP/1.0 has no Transfer-Encoding")
	errBothSizes = bad("body-size", "the request has both Content-Length and Transfer-Encoding")
	errLength    = bad("content-length", "Content-Length is not one number")
	errSlowHead  = refuse(http.StatusRequestTimeout, "slow-head", "the request head did not come in time")

	verdicts = []*Error{errLineEnd, errLine, errField, errFold, errCoding, errCoding10, errBothSizes, errLength,
		errMethod, errVersion, errURL, errHead, errLines, errSlowHead}
)

// verdictHead is the request that stands for a refused one.
func verdictHead(e *Error) []byte {
	for i, v := range verdicts {
		if v == e {
			return []byte("GET / HTTP/1.1\r\nHost: refused.invalid\r\nConnection: close\r\n" +
				verdictHeader + ": " + verdictToken + " " + strconv.Itoa(i) + "\r\n\r\n")
		}
	}
	panic("guard: a verdict that is not in the list: " + e.Reason)
}

// verdict returns what Wire found, or nil.
func verdict(r *http.Request) error {
	if r.ProtoMajor != 1 {
		return nil
	}
	v := r.Header[verdictHeader]
	if len(v) != 1 {
		return nil
	}
	token, index, _ := strings.Cut(v[0], " ")
	if subtle.ConstantTimeCompare([]byte(token), []byte(verdictToken)) != 1 {
		return nil // a client's: checkHead removes it
	}
	i, err := strconv.Atoi(index)
	if err != nil || i < 0 || i >= len(verdicts) {
		return nil
	}
	return verdicts[i]
}
