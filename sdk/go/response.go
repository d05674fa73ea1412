package edge

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"unsafe"
)

// firstBuffer is how much of a body is held back before the head is sent: a body
// that fits gets its Content-Length. It is net/http's own figure, so that a
// handler is answered with the same headers here and there.
const firstBuffer = 2048

// response is the http.ResponseWriter of one request. It follows net/http's
// HTTP/1.1 server: when headers freeze, what is sniffed, which lengths are set.
type response struct {
	x       exchange
	isHead  bool // answers HEAD: no body goes out
	header  http.Header
	status  int   // 0 until WriteHeader
	length  int64 // the Content-Length the handler declared, or -1
	written int64 // bytes the handler wrote
	err     error // the exchange's first failure: nothing more gets through

	frozen  pairList // the headers as they were at WriteHeader
	noSniff bool     // the handler chose a type or an encoding
	noCount bool     // Content-Length must not be added
	sent    bool     // the head is with the host
	done    bool     // the handler returned
	held    []byte   // written, not yet with the host; at most firstBuffer
}

var (
	_ http.Flusher    = (*response)(nil)
	_ io.StringWriter = (*response)(nil)
)

// begin makes w answer r through x. It keeps the buffers w has.
func (w *response) begin(x exchange, isHead bool) {
	*w = response{x: x, isHead: isHead, length: -1, header: make(http.Header, 4), frozen: w.frozen, held: w.held[:0]}
}

func (w *response) Header() http.Header { return w.header }

func (w *response) WriteHeader(status int) {
	if w.status != 0 {
		_, file, line, _ := runtime.Caller(1)
		log.Printf("http: superfluous response.WriteHeader call from %s:%d", file, line)
		return
	}
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("invalid WriteHeader code %v", status))
	}
	if status < 200 && status != http.StatusSwitchingProtocols {
		w.inform(status)
		return
	}
	w.setHeader(status)
}

// inform sends an informational response: 103 Early Hints and the like.
func (w *response) inform(status int) {
	w.frozen.reset()
	for name, values := range w.header {
		if name != "Content-Length" && name != "Transfer-Encoding" {
			w.freeze(name, values)
		}
	}
	w.fail(w.x.writeHead(status, w.frozen.bytes()))
}

// setHeader fixes the final status and the headers as they are now.
func (w *response) setHeader(status int) {
	w.status = status
	w.length = w.declared()
	w.noCount = !bodyAllowed(status)
	w.noSniff = w.noCount
	w.frozen.reset()
	for name, values := range w.header {
		if w.keep(name, values) {
			w.freeze(name, values)
		}
	}
}

// declared returns the handler's Content-Length, -1 if it gave none. One that is
// no length is dropped.
func (w *response) declared() int64 {
	s := w.header.Get("Content-Length")
	if s == "" {
		return -1
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		log.Printf("http: invalid Content-Length of %q", s)
		w.header.Del("Content-Length")
		return -1
	}
	return n
}

// keep reports whether a header goes out, and notes what it decides for others.
func (w *response) keep(name string, values []string) bool {
	switch name {
	case "Content-Type":
		w.noSniff = true
		return w.status != http.StatusNotModified
	case "Content-Encoding":
		w.noSniff = w.noSniff || len(values) > 0 && values[0] != ""
	case "Content-Length":
		w.noCount = true
		return bodyAllowed(w.status) && w.header.Get("Transfer-Encoding") == ""
	case "Transfer-Encoding": // the connection's business, not the function's
		if len(values) > 0 && values[0] != "" {
			w.noSniff, w.noCount = true, true
		}
		return false
	case "Trailer": // trailers are not carried
		w.noCount = true
		return false
	}
	if strings.HasPrefix(name, http.TrailerPrefix) {
		w.noCount = true
		return false
	}
	return true
}

// freeze copies one header. As in net/http, a name that is no header name is
// left out, and a line break (here any control character) becomes a space.
func (w *response) freeze(name string, values []string) {
	if !isToken(name) {
		return
	}
	for _, v := range values {
		w.frozen.add(name, oneLine(v))
	}
}

func (w *response) Write(p []byte) (int, error) { return w.write(p) }

func (w *response) WriteString(s string) (int, error) {
	return w.write(unsafe.Slice(unsafe.StringData(s), len(s))) // write only reads
}

func (w *response) write(p []byte) (int, error) {
	if w.status == 0 {
		w.setHeader(http.StatusOK)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if !bodyAllowed(w.status) {
		return 0, http.ErrBodyNotAllowed
	}
	w.written += int64(len(p))
	if w.length != -1 && w.written > w.length {
		return 0, http.ErrContentLength
	}
	return w.hold(p)
}

// hold gathers small writes; what does not fit goes out in full buffers, or at
// once when nothing is held.
func (w *response) hold(p []byte) (n int, err error) {
	for len(p) > firstBuffer-len(w.held) && w.err == nil {
		taken := len(p)
		if len(w.held) == 0 {
			w.emit(p)
		} else {
			taken = firstBuffer - len(w.held)
			w.held = append(w.held, p[:taken]...)
			w.emitHeld()
		}
		n += taken
		p = p[taken:]
	}
	if w.err != nil {
		return n, w.err
	}
	w.held = append(w.held, p...)
	return n + len(p), nil
}

func (w *response) emitHeld() {
	if len(w.held) > 0 {
		w.emit(w.held)
		w.held = w.held[:0]
	}
}

// emit hands p to the host, the head before it.
func (w *response) emit(p []byte) {
	w.sendHead(p)
	if !w.isHead && w.err == nil {
		w.fail(w.x.writeBody(p))
	}
}

// sendHead sends the head unless it is sent; first is the beginning of the body.
func (w *response) sendHead(first []byte) {
	if w.sent {
		return
	}
	w.sent = true
	if w.done && !w.noCount && (!w.isHead || len(first) > 0) {
		var digits [20]byte
		w.frozen.add("Content-Length", string(strconv.AppendInt(digits[:0], int64(len(first)), 10)))
	}
	if !w.noSniff && len(first) > 0 {
		w.frozen.add("Content-Type", http.DetectContentType(first))
	}
	w.fail(w.x.writeHead(w.status, w.frozen.bytes()))
}

// FlushError sends what was written and returns once the edge has taken it; its
// error says that the client is gone. http.ResponseController uses it.
func (w *response) FlushError() error {
	if w.status == 0 {
		w.setHeader(http.StatusOK)
	}
	w.emitHeld()
	w.sendHead(nil)
	if w.err == nil {
		w.fail(w.x.flush())
	}
	return w.err
}

func (w *response) Flush() { _ = w.FlushError() }

// EnableFullDuplex is there for http.ResponseController: on the edge a request's
// body can always be read on while the response is written.
func (w *response) EnableFullDuplex() error { return nil }

// finish completes the answer after the handler returned.
func (w *response) finish() {
	w.done = true
	if w.status == 0 {
		w.setHeader(http.StatusOK)
	}
	w.emitHeld()
	w.sendHead(nil)
}

// fail remembers the exchange's first failure. The client having left is one:
// the handler learns it from its next write.
func (w *response) fail(err error) {
	if err == nil || w.err != nil {
		return
	}
	if !errors.Is(err, ErrClosed) {
		logLine(levelError, "edge: response: "+err.Error())
	}
	w.err = fmt.Errorf("edge: response: %w", err)
}

// bodyAllowed reports whether a response of this status may have a body (RFC
// 9110, section 6.4.1).
func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

// isToken reports whether s is a token of RFC 9110, section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

// oneLine returns s without blanks around it and with a space for each control
// character, which no field value may have (RFC 9110, section 5.5).
func oneLine(s string) string {
	if strings.IndexFunc(s, isControl) >= 0 {
		s = strings.Map(func(c rune) rune {
			if isControl(c) {
				return ' '
			}
			return c
		}, s)
	}
	return strings.Trim(s, " \t")
}

func isControl(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }
