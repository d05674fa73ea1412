package fleet

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"
)

// transport is memberlist's, with dials that end when the fleet is closed: a
// dead seed must not hold up Close for a whole dial timeout.
type transport struct {
	memberlist.NodeAwareTransport
	ctx context.Context
}

func (t transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

func (t transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: timeout}
	return d.DialContext(t.ctx, "tcp", a.Addr)
}

func openTransport(ctx context.Context, c Config) (memberlist.NodeAwareTransport, error) {
	if c.Transport != nil {
		t, ok := c.Transport.(memberlist.NodeAwareTransport)
		if !ok {
			return nil, fmt.Errorf("transport %T: want a memberlist.NodeAwareTransport", c.Transport)
		}
		return t, nil
	}
	bind := netip.MustParseAddrPort(c.Bind)
	t, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{
		BindAddrs: []string{bind.Addr().String()}, BindPort: int(bind.Port()), Logger: gossipLog(c.Log),
	})
	if err != nil {
		return nil, fmt.Errorf("open gossip sockets on %s: %w", c.Bind, err)
	}
	return transport{t, ctx}, nil
}

// boundPort is the port the transport got when none was asked for.
func boundPort(t memberlist.NodeAwareTransport) int {
	if t, ok := t.(transport); ok {
		return t.NodeAwareTransport.(*memberlist.NetTransport).GetAutoBindPort()
	}
	return 0
}

// gossipLog passes memberlist's own lines on at debug level: what matters
// comes as events.
func gossipLog(l *slog.Logger) *log.Logger { return log.New(logLines{l}, "", 0) }

type logLines struct{ log *slog.Logger }

func (w logLines) Write(b []byte) (int, error) {
	w.log.Debug(string(bytes.TrimSpace(b)), "component", "memberlist")
	return len(b), nil
}
