package guard

import (
	"bytes"
	"strconv"
)

// framing is how the body after a head is delimited.
type framing struct {
	chunked bool
	length  int64
}

// checkWireHead checks one complete HTTP/1 head, blank line included, more
// strictly than net/http parses it: RFC 9112 with every "may accept" refused,
// because what stands behind us may read such a head differently.
func checkWireHead(head []byte) (framing, *Error) {
	line, rest, err := cutLine(head)
	if err != nil {
		return framing{}, err
	}
	minor, err := checkRequestLine(line)
	if err != nil {
		return framing{}, err
	}
	var f fields
	for lines := 0; ; lines++ {
		if line, rest, err = cutLine(rest); err != nil {
			return framing{}, err
		}
		if len(line) == 0 {
			return f.framing(minor)
		}
		if lines == MaxHeadLines {
			return framing{}, errLines
		}
		if err = f.add(line); err != nil {
			return framing{}, err
		}
	}
}

// cutLine cuts at the first LF and insists on the CR before it. NUL and a CR
// elsewhere are refused too: some parsers end a line or a string there.
func cutLine(b []byte) (line, rest []byte, err *Error) {
	i := bytes.IndexByte(b, '\n')
	if i < 1 || b[i-1] != '\r' {
		return nil, nil, errLineEnd
	}
	line = b[:i-1]
	if bytes.IndexByte(line, '\r') >= 0 || bytes.IndexByte(line, 0) >= 0 {
		return nil, nil, errLineEnd
	}
	return line, b[i+1:], nil
}

// checkRequestLine wants method SP target SP "HTTP/1." digit.
func checkRequestLine(line []byte) (minor byte, err *Error) {
	method, rest, ok1 := bytes.Cut(line, []byte(" "))
	target, version, ok2 := bytes.Cut(rest, []byte(" "))
	switch {
	case !ok1 || !ok2 || len(target) == 0 || !bytes.HasPrefix(version, []byte("HTTP/")):
		return 0, errLine
	case !isMethod(string(method)):
		return 0, errMethod
	case len(target) > MaxURLBytes:
		return 0, errURL
	case string(version) == "HTTP/1.1":
		return 1, nil
	case string(version) == "HTTP/1.0":
		return 0, nil
	}
	return 0, errVersion
}

// fields gathers what decides where the body ends.
type fields struct {
	length  []byte
	lengths int
	codings int
	chunked bool
}

func (f *fields) add(line []byte) *Error {
	if line[0] == ' ' || line[0] == '\t' {
		return errFold
	}
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok || !isToken(name) || !isFieldValue(value) {
		return errField
	}
	value = bytes.Trim(value, " \t")
	switch {
	case bytes.EqualFold(name, []byte("Content-Length")):
		f.length = value
		f.lengths++
	case bytes.EqualFold(name, []byte("Transfer-Encoding")):
		f.chunked = bytes.EqualFold(value, []byte("chunked"))
		f.codings++
	}
	return nil
}

// framing decides as RFC 9112 §6.3, and refuses where it leaves a choice.
func (f *fields) framing(minor byte) (framing, *Error) {
	switch {
	case f.codings > 0 && f.lengths > 0:
		return framing{}, errBothSizes
	case f.codings > 0 && minor == 0:
		return framing{}, errCoding10
	case f.codings > 1 || f.codings == 1 && !f.chunked:
		return framing{}, errCoding
	case f.codings == 1:
		return framing{chunked: true}, nil
	case f.lengths == 0:
		return framing{}, nil
	}
	n, ok := parseDigits(f.length)
	if !ok || f.lengths > 1 {
		return framing{}, errLength
	}
	return framing{length: n}, nil
}

// parseDigits reads a decimal number of digits only: no sign, no list.
func parseDigits(b []byte) (int64, bool) {
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(string(b), 10, 64)
	return n, err == nil
}

var tokenByte = func() (t [256]bool) {
	for _, c := range "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" {
		t[c] = true
	}
	return t
}()

func isToken(b []byte) bool {
	for _, c := range b {
		if !tokenByte[c] {
			return false
		}
	}
	return len(b) > 0
}

func isFieldValue(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
