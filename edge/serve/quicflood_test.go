package serve_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/selvage-edge/selvage/edge/listen"
)

// quicFrom opens QUIC connections from a socket of its own on a loopback address.
func quicFrom(t *testing.T, from string) *quic.Transport {
	t.Helper()
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(from)})
	if err != nil {
		t.Fatal(err)
	}
	tr := &quic.Transport{Conn: udp}
	t.Cleanup(func() { _ = tr.Close(); _ = udp.Close() })
	return tr
}

// TestQUICConnectionFlood: the same bounds hold for QUIC, and who has proven its
// address gets all that is its own.
func TestQUICConnectionFlood(t *testing.T) {
	d := openDoor(t, listen.Config{Connections: 60, ConnectionsPerClient: 40}, map[string]wat{"/": hello})
	before := d.warm(t, "/")
	to, err := net.ResolveUDPAddr("udp", d.sockets.Addr())
	if err != nil {
		t.Fatal(err)
	}
	flood := func(from string, n int) (opened int, refused error) {
		tr := quicFrom(t, from)
		for range n {
			c, err := tr.Dial(patient(t), to, http3.ConfigureTLSConfig(d.tls.Clone()), &quic.Config{})
			if err != nil {
				refused = err
				continue
			}
			opened++
			t.Cleanup(func() { _ = c.CloseWithError(0, "") })
		}
		return opened, refused
	}
	var transport *quic.TransportError
	if n, err := flood("127.0.0.1", 50); n != 40 || !errors.As(err, &transport) || transport.ErrorCode != quic.ConnectionRefused {
		t.Errorf("one client: %d opened, %v", n, err)
	}
	if n, err := flood("127.0.0.2", 50); n != 20 || !errors.As(err, &transport) || transport.ErrorCode != quic.ConnectionRefused {
		t.Errorf("another: %d opened, %v", n, err)
	}
	if s := d.server.Stats(); s.Taken != 60 || s.Refused.Client < 10 || s.Refused.Node < 30 { // a client asks again
		t.Errorf("%+v", s)
	}
	before.within(t, 60*20, 64<<20) // both ends
}

// halfway passes on only the first datagram of each client: handshakes that it
// carries stop in their middle.
type halfway struct {
	net.PacketConn
	mu   sync.Mutex
	sent int
	most int
}

func (h *halfway) WriteTo(p []byte, to net.Addr) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sent++; h.sent > h.most {
		return len(p), nil
	}
	return h.PacketConn.WriteTo(p, to)
}

// TestIdleQUICHandshakes: handshakes that stop are bounded while they last, most
// of them by the proof of address that they do not bring, and they do not last.
func TestIdleQUICHandshakes(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for QUIC's handshake timeout")
	}
	d := openDoor(t, listen.Config{ConnectionsPerClient: 40}, map[string]wat{"/": hello})
	before := d.warm(t, "/")
	to, err := net.ResolveUDPAddr("udp", d.sockets.Addr())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(patient(t))
	defer stop()
	var dialing sync.WaitGroup
	for range 100 {
		udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		tr := &quic.Transport{Conn: &halfway{PacketConn: udp, most: 2}} // a ClientHello takes two
		dialing.Go(func() {
			c, err := tr.Dial(ctx, to, http3.ConfigureTLSConfig(d.tls.Clone()), &quic.Config{})
			if err == nil {
				_ = c.CloseWithError(0, "")
				t.Error("a handshake got through")
			}
			_ = tr.Close()
			_ = udp.Close()
		})
	}
	wait(t, "ten under way", func() bool { return d.server.Stats().Taken == 10 })
	time.Sleep(500 * time.Millisecond) // whatever else comes must not add to them
	if s := d.server.Stats(); s.Taken != 10 {
		t.Errorf("%+v", s)
	}
	honest := d.clients(t)["h3"]
	if got := d.ask(t, honest, "GET", "/", nil); got != 200 {
		t.Errorf("an honest client from the same address: %d", got)
	}
	stop()
	dialing.Wait()
	wait(t, "one connection", func() bool { return d.server.Stats().Taken == 1 })
	_ = honest.(*http3.Transport).Close()
	wait(t, "no connections", func() bool { return d.server.Stats().Taken == 0 })
	before.back(t)
}
