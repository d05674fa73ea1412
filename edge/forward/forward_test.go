package forward

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
)

// silent is a node whose address swallows what is sent there.
type silent struct{ dialled int }

func (s *silent) Do(r *http.Request) (*http.Response, error) {
	s.dialled++
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func exchange() Exchange {
	return Exchange{W: httptest.NewRecorder(), R: httptest.NewRequest("GET", "/", nil), Version: &function.Version{}, Envelope: whole}
}

// Nodes out of reach cost an exchange a bounded time, and those after it none until
// they are tried again.
func TestReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s silent
		f, err := New(Config{Overflow: 1, Peers: func(function.Placement) []Peer {
			return []Peer{{Name: "a", Node: &s}, {Name: "b", Node: &s}, {Name: "c", Node: &s}}
		}})
		if err != nil {
			t.Fatal(err)
		}
		ask := func(what string, hand func(context.Context, Exchange) (string, error), takes time.Duration, dials int) {
			t.Helper()
			start, before := time.Now(), s.dialled
			_, err := hand(t.Context(), exchange())
			if took := time.Since(start); !errors.Is(err, ErrNowhere) || took != takes || s.dialled-before != dials {
				t.Errorf("%s: %v, after %v and %d dials", what, err, took, s.dialled-before)
			}
		}
		ask("all are tried", f.Placed, reachPlaced, 3)
		ask("none again", f.Placed, 0, 0)
		ask("nor for want of room", f.Overflow, 0, 0)
		time.Sleep(shyFirst)
		ask("all are tried again", f.Overflow, reachOverflow, 3)
		time.Sleep(shyFirst)
		ask("they are left alone for longer", f.Placed, 0, 0)
		f.shy.reached("b")
		ask("but not who is there again", f.Placed, reachPlaced, 1)
	})
}

// A client that reads nothing is cut off.
func TestStalledClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		type result struct {
			err   error
			after time.Duration
		}
		over := make(chan result, 1)
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			start := time.Now()
			err := answer(r.Context(), Exchange{W: w, R: r}, &http.Response{StatusCode: 200, Body: io.NopCloser(endless{}), Header: http.Header{}})
			over <- result{err, time.Since(start)}
		})}
		l := &oneConn{conn: make(chan net.Conn, 1), closed: make(chan struct{})}
		l.conn <- near
		done := make(chan error, 1)
		go func() { done <- s.Serve(l) }()
		if _, err := io.WriteString(far, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReaderSize(far, 16), nil) // and then nothing
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
		if r := <-over; fault.Of(r.err).Kind != fault.Canceled || r.after != clientStall {
			t.Errorf("%v after %v", r.err, r.after)
		}
		s.Close()
		<-done
	})
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// oneConn is a listener for one connection.
type oneConn struct {
	conn   chan net.Conn
	closed chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *oneConn) Close() error   { close(l.closed); return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

// A query's separators take no more room than others.
func TestEnvelopeIsSmall(t *testing.T) {
	e := whole
	e.Target = "/?" + strings.Repeat("&", 15<<10)
	h := http.Header{}
	if err := e.set(h); err != nil || len(h.Get(envelopeHeader)) > 22<<10 {
		t.Errorf("%d bytes, %v", len(h.Get(envelopeHeader)), err)
	}
}
