package invoke

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/edge/telemetry"
	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/guest"
)

// keeping is a ResponseWriter that still has what it was given after Write, as
// net/http's HTTP/2 may when a stream is reset.
type keeping struct {
	*httptest.ResponseRecorder
	kept [][]byte
}

func (w *keeping) Write(p []byte) (int, error) {
	w.kept = append(w.kept, p)
	return len(p), nil
}

// TestNoGuestMemoryStaysBehind writes over what a guest had lent, as the next
// guest in its place does.
func TestNoGuestMemoryStaysBehind(t *testing.T) {
	r := httptest.NewRequest("GET", "/", nil)
	r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/2.0", 2, 0
	w := &keeping{ResponseRecorder: httptest.NewRecorder()}
	x := newExchange(w, r, &answer(200, "").version, telemetry.Meta{})
	if err := x.WriteHead(200, nil); err != nil {
		t.Fatal(err)
	}
	lent := []byte(strings.Repeat("mine", 8<<10))
	if err := x.WriteBody(lent); err != nil {
		t.Fatal(err)
	}
	if err := x.Finish(lent[:100]); err != nil {
		t.Fatal(err)
	}
	copy(lent, strings.Repeat("secret", len(lent)/6))
	if len(w.kept) != 2 {
		t.Fatalf("%d writes", len(w.kept))
	}
	for _, p := range w.kept {
		if bytes.Contains(p, []byte("secret")) {
			t.Error("the connection reads memory that was only lent")
		}
	}
}

// TestInterruptWhileTheRequestIsSwallowed: an answer that is longer than
// net/http holds back makes it wait for the rest of the request, which never comes.
func TestInterruptWhileTheRequestIsSwallowed(t *testing.T) {
	s := &script{run: func(_ context.Context, x guest.Exchange) error {
		if err := x.WriteHead(200, nil); err != nil {
			return err
		}
		return x.Finish(make([]byte, 16<<10))
	}}
	target, ended := New(s, guest.Ports{}), make(chan error, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 100*time.Millisecond) // the wall limit
		defer cancel()
		_, err := target.Invoke(ctx, w, r, telemetry.Meta{})
		ended <- err
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(server.Close)
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000\r\n\r\n")
	select {
	case err := <-ended:
		if fault.Of(err).Kind != fault.Canceled {
			t.Errorf("ended by %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the invocation outlives its wall limit for as long as the client likes")
	}
}
