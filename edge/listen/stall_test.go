package listen_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/selvage-edge/selvage/edge/listen"
	"github.com/selvage-edge/selvage/edge/listen/listentest"
)

// TestBodyThatStalls: after the answer net/http reads what is left of the
// request, and a client that sends no more must not keep the connection.
func TestBodyThatStalls(t *testing.T) {
	store, client := listentest.Certificates(t, name)
	sockets := listentest.Open(t)
	server := listentest.Start(t, sockets, listen.Config{
		Certificate: store.Get, HeadTimeout: 200 * time.Millisecond,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "short") }),
	})
	conn, err := tls.Dial("tcp", sockets.Addr(), client)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: 1000\r\n\r\n", name)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	if body, err := io.ReadAll(resp.Body); string(body) != "short" || err != nil {
		t.Errorf("answered %q, %v", body, err)
	}
	for range 100 {
		if server.Stats().TCP == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("the connection is still open")
}

// TestClientThatDoesNotRead asks on and on and takes no answer.
func TestClientThatDoesNotRead(t *testing.T) {
	store, client := listentest.Certificates(t, name)
	sockets := listentest.Open(t)
	answer := make([]byte, 2000) // net/http keeps it until the handler is done
	server := listentest.Start(t, sockets, listen.Config{
		Certificate: store.Get, IdleTimeout: 300 * time.Millisecond,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(answer) }),
	})
	raw, err := net.Dial("tcp", sockets.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	_ = raw.(*net.TCPConn).SetReadBuffer(4 << 10)
	conn := tls.Client(raw, client)
	batch := strings.Repeat(fmt.Sprintf("GET / HTTP/1.1\r\nHost: %s\r\n\r\n", name), 200)
	for err == nil {
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second)) // until the server has gone, or reads no more
		_, err = conn.Write([]byte(batch))
	}
	for range 100 {
		if server.Stats().TCP == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("the connection is still open")
}

// TestHalfAHeadOverHTTP3: PINGs do not keep a connection whose request never
// becomes complete; one that asked before, and was answered, neither.
func TestHalfAHeadOverHTTP3(t *testing.T) {
	store, client := listentest.Certificates(t, name)
	sockets := listentest.Open(t)
	listentest.Start(t, sockets, listen.Config{
		Certificate: store.Get, HeadTimeout: 200 * time.Millisecond, IdleTimeout: 300 * time.Millisecond,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "whole") }),
	})
	conf := client.Clone()
	conf.NextProtos = []string{http3.NextProtoH3}
	for _, first := range []bool{false, true} {
		t.Run(fmt.Sprintf("a whole one first: %v", first), func(t *testing.T) {
			ctx := listentest.Context(t)
			idle := quic.ApplicationErrorCode(http3.ErrCodeNoError)
			code := idle
			for code == idle { // the machine was slower than the limit: it had begun nothing yet
				conn, err := quic.DialAddr(ctx, sockets.Addr(), conf, &quic.Config{KeepAlivePeriod: 50 * time.Millisecond})
				if err != nil {
					t.Fatal(err)
				}
				defer conn.CloseWithError(0, "")
				if err := halfAHead(ctx, conn, first); err != nil && conn.Context().Err() == nil {
					t.Fatal(err)
				}
				select {
				case <-conn.Context().Done():
				case <-ctx.Done():
					t.Fatal("the connection is still open")
				}
				var closed *quic.ApplicationError
				if err := context.Cause(conn.Context()); !errors.As(err, &closed) {
					t.Fatalf("it ended by itself: %v", err)
				}
				code = closed.ErrorCode
			}
			if code != quic.ApplicationErrorCode(http3.ErrCodeRequestIncomplete) {
				t.Errorf("closed with %#x", code)
			}
		})
	}
}

// halfAHead begins a request on one stream, and asks for all of one on another if first.
func halfAHead(ctx context.Context, conn *quic.Conn, first bool) error {
	str, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return err
	}
	if _, err := str.Write([]byte{1, 40, 0, 0, 0xd1}); err != nil || !first { // HEADERS (RFC 9114, 7.2.2) of 40 bytes, and three of them
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+name+"/", nil)
	if err != nil {
		return err
	}
	resp, err := (&http3.Transport{}).NewClientConn(conn).RoundTrip(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.ReadAll(resp.Body)
	return err
}

// TestNextRequestAfterABody: the time that the rest of a body is given does not
// go on counting.
func TestNextRequestAfterABody(t *testing.T) {
	store, client := listentest.Certificates(t, name)
	sockets := listentest.Open(t)
	listentest.Start(t, sockets, listen.Config{
		Certificate: store.Get, HeadTimeout: 200 * time.Millisecond, IdleTimeout: 5 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(300 * time.Millisecond)
			body, err := io.ReadAll(r.Body)
			fmt.Fprint(w, len(body), err)
		}),
	})
	conn, err := tls.Dial("tcp", sockets.Addr(), client)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	r := bufio.NewReader(conn)
	for i := range 3 {
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: 4\r\n\r\nbody", name)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		if body, err := io.ReadAll(resp.Body); string(body) != "4 <nil>" || err != nil {
			t.Errorf("request %d: answered %q, %v", i, body, err)
		}
		time.Sleep(300 * time.Millisecond)
	}
}

// TestSocketFails: Serve says so, although the other socket is well.
func TestSocketFails(t *testing.T) {
	store, _ := listentest.Certificates(t, name)
	cfg := listen.Config{Certificate: store.Get, Handler: http.NotFoundHandler()}
	cfg.TCP, cfg.UDP = listentest.Open(t).Dup(t)
	server, err := listen.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve() }()
	time.Sleep(50 * time.Millisecond)
	_ = cfg.TCP.Close()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("no error")
		}
	case <-time.After(5 * time.Second):
		t.Error("still serving with one socket")
	}
	ctx, cancel := context.WithTimeout(listentest.Context(t), 5*time.Second)
	defer cancel()
	if err := server.Drain(ctx); err != nil {
		t.Errorf("drain: %v", err)
	}
}
