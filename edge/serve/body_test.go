package serve_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/edge/serve"
)

// TestAnswersBeforeTheBody refuses, and answers, requests whose body never
// comes: a client that asked first (RFC 9110 §10.1.1) waits for us, and one that
// announced more than is ever read must not be read from.
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
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
			fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: %s\r\n%s\r\n", c.host, c.fields)
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatalf("no answer before the body: %v", err)
			}
			if _, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != c.status || !resp.Close {
				t.Errorf("status %d, close %v, %v; want %d and the connection's end", resp.StatusCode, resp.Close, err, c.status)
			}
		})
	}
}
