package serve_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/edge/serve"
)

// TestAnswersBeforeTheBody refuses, and answers, requests whose body never
// comes: a client that asked first (RFC 9110 §10.1.1) waits for us, one that
// announced more than is ever read must not be read from, and any other may wait
// for the answer before it sends more. None keeps the connection for ever.
func TestAnswersBeforeTheBody(t *testing.T) {
	n := newNode(t, map[string]invoker{"shop.example/": func(_ context.Context, w http.ResponseWriter, _ *http.Request, _ serve.Meta) (serve.Usage, error) {
		_, err := w.Write(make([]byte, 64<<10)) // more than net/http holds back
		return serve.Usage{}, err
	}})
	server := httptest.NewServer(n)
	t.Cleanup(server.Close)
	for _, c := range []struct {
		name, host, fields string
		status             int
	}{
		{"refused, asked first", "other.example", "Expect: 100-continue\r\nContent-Length: 5\r\n", 404},
		{"answered, asked first", "shop.example", "Expect: 100-continue\r\nContent-Length: 5\r\n", 200},
		{"refused, large", "other.example", "Content-Length: 1000000\r\n", 404},
		{"answered, large", "shop.example", "Content-Length: 1000000\r\n", 200},
		{"half sent, of much", "shop.example", "Content-Length: 300000\r\n\r\n" + strings.Repeat("x", 60000), 200},
		{"refused, small", "other.example", "Content-Length: 5\r\n", 404},
		{"answered, small", "shop.example", "Content-Length: 5\r\n", 200},
		{"refused, chunked", "other.example", "Transfer-Encoding: chunked\r\n", 404},
		{"answered, chunked", "shop.example", "Transfer-Encoding: chunked\r\n", 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(time.Minute))
			fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: %s\r\n%s\r\n", c.host, c.fields) // or some of the body
			r := bufio.NewReader(conn)
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatalf("no answer before the body: %v", err)
			}
			if _, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != c.status || !resp.Close {
				t.Errorf("status %d, close %v, %v; want %d and the connection's end", resp.StatusCode, resp.Close, err, c.status)
			}
			if n, err := r.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("after the answer: %d bytes, %v, want the connection's end", n, err)
			}
		})
	}
}

// TestConnectionOutlivesAnIgnoredBody sends bodies that nobody reads: what came
// with the request, or soon after, does not cost the connection. How soon is a
// matter of time, so one connection of many is enough.
func TestConnectionOutlivesAnIgnoredBody(t *testing.T) {
	n := newNode(t, map[string]invoker{"shop.example/": func(_ context.Context, w http.ResponseWriter, r *http.Request, _ serve.Meta) (serve.Usage, error) {
		_, err := io.WriteString(w, r.Method)
		return serve.Usage{}, err
	}})
	server := httptest.NewServer(n)
	t.Cleanup(server.Close)
	for _, body := range []string{"Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"} {
		kept := false
		for i := 0; i < 50 && !kept; i++ {
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.SetDeadline(time.Now().Add(time.Minute))
			fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: shop.example\r\n%sGET / HTTP/1.1\r\nHost: shop.example\r\n\r\n", body)
			r := bufio.NewReader(conn)
			for _, want := range []string{"POST", "GET"} {
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					break
				}
				if got, err := io.ReadAll(resp.Body); err != nil || string(got) != want {
					t.Fatalf("got %q, %v, want %q", got, err, want)
				}
				kept = want == "GET"
			}
			conn.Close()
		}
		if !kept {
			t.Errorf("no connection outlived %q", body)
		}
	}
}
