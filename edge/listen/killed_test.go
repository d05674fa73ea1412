package listen_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/selvage-edge/selvage/bench/load"
	"github.com/selvage-edge/selvage/edge/certs"
	"github.com/selvage-edge/selvage/edge/listen"
	"github.com/selvage-edge/selvage/edge/listen/listentest"
)

// The test's executable is also the server process that it kills.
const childEnv = "LISTEN_TEST_PAIR"

func TestMain(m *testing.M) {
	if pair := os.Getenv(childEnv); pair != "" {
		if err := serveChild(pair); err != nil {
			_, _ = io.WriteString(os.Stderr, err.Error()+"\n")
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serveChild serves on the inherited sockets 3 and 4 until it is killed.
func serveChild(pair string) error {
	tcp, err := net.FileListener(os.NewFile(3, "tcp"))
	if err != nil {
		return err
	}
	udp, err := net.FilePacketConn(os.NewFile(4, "udp"))
	if err != nil {
		return err
	}
	store, err := certs.Load([]certs.Pair{{Cert: pair, Key: pair}})
	if err != nil {
		return err
	}
	s, err := listen.New(listen.Config{TCP: tcp, UDP: udp, Certificate: store.Get, ResetKey: [32]byte{1}, TokenKey: [32]byte{2},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })})
	if err != nil {
		return err
	}
	return s.Serve()
}

func startChild(t *testing.T, s listentest.Sockets, pair string) *exec.Cmd {
	t.Helper()
	tcp, err := s.TCP.File()
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := s.UDP.File()
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	c := exec.CommandContext(listentest.Context(t), os.Args[0])
	c.Env = append(os.Environ(), childEnv+"="+pair)
	c.ExtraFiles = []*os.File{tcp, udp}
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return c
}

func kill(t *testing.T, c *exec.Cmd) {
	t.Helper()
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait() // killed: an error by design
}

// TestKilled kills a server without a word and starts another on the same
// sockets: new connections wait for it, and clients of HTTP/3 learn at once that
// theirs are gone, in place of waiting for their idle timeout.
func TestKilled(t *testing.T) {
	pair, client := listentest.Pair(t, name)
	r := &rig{sockets: listentest.Open(t), tls: client}
	first := startChild(t, r.sockets, pair.Cert)
	kept := map[load.Protocol]http.RoundTripper{}
	for _, p := range []load.Protocol{load.H1, load.H2, load.H3} {
		kept[p] = r.client(t, p)
		if got := get(kept[p], request(t, "GET", r.url("/"), nil)); got != "ok" {
			t.Fatalf("%s: %s", p, got)
		}
	}
	kill(t, first)
	answers := make(chan string, 2)
	for _, p := range []load.Protocol{load.H1, load.H2} { // opened while nobody serves
		go func() { answers <- get(r.client(t, p), request(t, "GET", r.url("/"), nil)) }()
	}
	second := startChild(t, r.sockets, pair.Cert)
	defer kill(t, second)
	for range 2 {
		if got := <-answers; got != "ok" {
			t.Errorf("a connection opened meanwhile: %s", got)
		}
	}
	began := time.Now()
	resp, err := kept[load.H3].RoundTrip(request(t, "GET", r.url("/"), nil))
	if err == nil {
		_ = resp.Body.Close()
	}
	var reset *quic.StatelessResetError
	// No error: it had learned before it was asked, from a packet of its own.
	if err != nil && !errors.As(err, &reset) || time.Since(began) > 10*time.Second {
		t.Errorf("on a dead QUIC connection: %v after %v, want a stateless reset at once", err, time.Since(began))
	}
	for p, c := range kept {
		if got := get(c, request(t, "GET", r.url("/"), nil)); got != "ok" {
			t.Errorf("%s, again: %s", p, got)
		}
	}
}
