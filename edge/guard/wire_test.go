package guard

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// script is a connection whose reads give what is in it, a few bytes at a time.
type script struct {
	net.Conn
	r    io.Reader
	step int
}

func (s *script) Read(p []byte) (int, error) {
	return s.r.Read(p[:min(len(p), s.step)])
}
func (s *script) SetReadDeadline(time.Time) error { return nil }
func (s *script) Close() error                    { return nil }

// serveWire reads requests as net/http does and tells what came of each.
func serveWire(t *testing.T, in string, step int) (got []string) {
	t.Helper()
	br := bufio.NewReader(Wire(&script{r: strings.NewReader(in), step: step}, 0))
	for {
		r, err := http.ReadRequest(br)
		if err != nil {
			if err != io.EOF {
				got = append(got, "error")
			}
			return got
		}
		var e *Error
		if errors.As(verdict(r), &e) {
			got = append(got, e.Reason)
			continue
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return append(got, fmt.Sprintf("%s %q body error", r.URL.Path, body))
		}
		got = append(got, fmt.Sprintf("%s %q", r.URL.Path, body))
	}
}

func TestWire(t *testing.T) {
	const next = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
	tests := []struct {
		name, in string
		want     string // joined by ", "
	}{
		{"pipelined", "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n" + next, `/1 "", /next ""`},
		{"length", "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello" + next, `/1 "hello", /next ""`},
		{"chunks", "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n5;x=y\r\nhello\r\nA\r\n0123456789\r\n0\r\nT: x\r\n\r\n" + next,
			`/1 "hello0123456789", /next ""`},
		{"no headers", "GET /1 HTTP/1.0\r\n\r\n", `/1 ""`},
		{"both sizes", "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + next, "body-size"},
		{"both sizes, other order", "POST /1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: a\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + next, "body-size"},
		{"after a good one", "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\nHost: a\n\n" + next, `/1 "", line-end`},
		{"xchunked", "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", "transfer-coding"},
		{"gzip, chunked", "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "transfer-coding"},
		{"chunked twice", "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "transfer-coding"},
		{"TE space", "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n", "field"},
		{"TE on 1.0", "POST /1 HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "transfer-coding-1.0"},
		{"CL twice, equal", "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nabcd", "content-length"},
		{"CL list", "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 4\r\n\r\nabcd", "content-length"},
		{"CL sign", "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\nabcd", "content-length"},
		{"CL empty", "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\nabcd", "content-length"},
		{"CL huge", "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", "content-length"},
		{"bare LF in fields", "GET /1 HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", "line-end"},
		{"bare LF at the end", "GET /1 HTTP/1.1\r\nHost: a\r\n\n", "line-end"},
		{"bare CR", "GET /1 HTTP/1.1\r\nHost: a\rX: y\r\n\r\n", "line-end"},
		{"NUL", "GET /1 HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n", "line-end"},
		{"fold", "GET /1 HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", "field-fold"},
		{"fold first", "GET /1 HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n", "field-fold"},
		{"no colon", "GET /1 HTTP/1.1\r\nHost\r\n\r\n", "field"},
		{"no name", "GET /1 HTTP/1.1\r\n: a\r\n\r\n", "field"},
		{"no version", "GET /1\r\nHost: a\r\n\r\n", "request-line"},
		{"two spaces", "GET  /1 HTTP/1.1\r\nHost: a\r\n\r\n", "request-line"},
		{"space in the target", "GET /1 2 HTTP/1.1\r\nHost: a\r\n\r\n", "request-line"},
		{"empty line first", "\r\nGET /1 HTTP/1.1\r\nHost: a\r\n\r\n", "request-line"},
		{"preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "method"},
		{"version", "GET / HTTP/1.9\r\nHost: a\r\n\r\n", "version"},
		{"method", "get / HTTP/1.1\r\nHost: a\r\n\r\n", "method"},
		{"lines", "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: y\r\n", MaxHeadLines) + "\r\n", "head-lines"},
		{"most lines", "GET /1 HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: y\r\n", MaxHeadLines-1) + "\r\n", `/1 ""`},
		{"endless URL", "GET /" + strings.Repeat("a", 3*MaxHeadBytes), "url-too-long"},
		{"long URL", "GET /" + strings.Repeat("a", MaxURLBytes) + " HTTP/1.1\r\nHost: a\r\n\r\n", "url-too-long"},
		{"endless field", "GET / HTTP/1.1\r\nX: " + strings.Repeat("a", 3*MaxHeadBytes), "head-too-large"},
		{"large head", "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("a", MaxHeadBytes) + "\r\n\r\n", "head-too-large"},
		{"cut head", "GET / HTTP/1.1\r\nHost:", ""},
		{"chunk size with LF", "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", `/1 "" body error`},
		{"chunk size with sign", "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n", `/1 "" body error`},
		{"chunk size with prefix", "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", `/1 "" body error`},
		{"garbage after a chunk", "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n", `/1 "hello" body error`},
		{"chunk too long to count", "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", `/1 "" body error`},
		{"a client's verdict", "GET /1 HTTP/1.1\r\nHost: a\r\nSelvage-Verdict: x 0\r\n\r\n", `/1 ""`},
	}
	for _, tt := range tests {
		for _, step := range []int{1, 7, 64 << 10} {
			if got := strings.Join(serveWire(t, tt.in, step), ", "); got != tt.want {
				t.Errorf("%s, %d bytes at a time: got %s, want %s", tt.name, step, got, tt.want)
			}
		}
	}
}

// TestWireHeadTimeout checks that the first byte of a head starts its clock,
// and that the head's end stops it.
func TestWireHeadTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		w := Wire(server, 5*time.Second)
		defer w.Close()
		go func() {
			time.Sleep(time.Minute) // idle: nothing runs
			_, _ = io.WriteString(client, "GET / HTTP/1.1\r\n")
			time.Sleep(4 * time.Second)
			_, _ = io.WriteString(client, "\r\n")
			time.Sleep(time.Minute)
			_, _ = io.WriteString(client, "GET / HT")
		}()
		p := make([]byte, 1000)
		if n, err := w.Read(p); err != nil || string(p[:n]) != "GET / HTTP/1.1\r\n\r\n" {
			t.Fatalf("a slow head: %q, %v", p[:n], err)
		}
		start := time.Now()
		n, err := w.Read(p)
		r := parse(t, string(p[:n]))
		if verdict(r) != error(errSlowHead) || err != nil || time.Since(start) != 65*time.Second {
			t.Fatalf("an endless head: %q, %v after %v", p[:n], err, time.Since(start))
		}
		if n, err := w.Read(p); n > 0 || err != io.EOF {
			t.Errorf("after the refusal: %q, %v", p[:n], err)
		}
	})
}

// TestWireDeadlines: net/http's own time for a head counts too; being woken by
// it, and waiting for a head that has not begun, are not a slow head.
func TestWireDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		w := Wire(server, 5*time.Second)
		defer w.Close()
		p := make([]byte, 1000)
		_ = w.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := w.Read(p); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("no head: %v", err)
		}
		_ = w.SetReadDeadline(time.Now().Add(3 * time.Second))
		go func() {
			time.Sleep(time.Second)
			_, _ = io.WriteString(client, "GET / HT")
			time.Sleep(time.Second)
			_ = w.SetReadDeadline(time.Unix(1, 0))
		}()
		if _, err := w.Read(p); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("woken: %v", err)
		}
		_ = w.SetReadDeadline(time.Now().Add(time.Second))
		n, err := w.Read(p)
		if err != nil || verdict(parse(t, string(p[:n]))) != error(errSlowHead) {
			t.Errorf("late for net/http: %q, %v", p[:n], err)
		}
	})
}

// FuzzWire checks that whatever comes, only bytes of the input are handed on,
// in order and up to a refusal, and that net/http frames them as Wire did.
func FuzzWire(f *testing.F) {
	f.Add([]byte("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), uint8(3))
	f.Add([]byte("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\nHost: a\n\n"), uint8(1))
	f.Add([]byte("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nheTTP/1"), uint8(105)) // a chunk that does not end where it says
	f.Add([]byte("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"), uint8(30))
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		w := Wire(&script{r: bytes.NewReader(in), step: int(step) + 1}, 0).(*wire)
		out, err := io.ReadAll(w)
		if w.refused {
			i := bytes.LastIndex(out, []byte("GET / HTTP/1.1\r\nHost: refused.invalid\r\n"))
			if i < 0 {
				i = len(out) - len(brokenChunk)
			}
			if i < 0 || err != nil || !bytes.Equal(out[i:], []byte(brokenChunk)) && !bytes.HasPrefix(out[i:], []byte("GET ")) {
				t.Fatalf("refused, but handed on %q, %v", out, err)
			}
			out = out[:i]
		}
		if !bytes.HasPrefix(in, out) {
			t.Fatalf("handed on %q of %q", out, in)
		}
		br := bufio.NewReader(bytes.NewReader(out))
		for {
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			if len(r.TransferEncoding) > 0 && r.Header.Get("Content-Length") != "" {
				t.Fatalf("both sizes got through: %q", out)
			}
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				return
			}
		}
	})
}
