package geodns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// Config says what is answered. Zones and Where are required.
type Config struct {
	Zones   []Zone
	Where   Locator
	TTL     time.Duration // of answers with PoPs; default 20 s
	Answers int           // addresses in an answer, if there are as many; 1 to MaxChoices, default 2
	Rate    int           // answers of one kind a second that a network (IPv4 /24, IPv6 /56) gets over UDP; 0: no limit
	TCP     int           // connections at once; default 1,000; a sixteenth, 2 at least, from one network
	Sockets int           // that read UDP; default 1
	Log     *slog.Logger
}

// Bounds of TCP.
const (
	tcpIdle    = 8 * time.Second // RFC 7766 §6.2.3
	tcpQueries = 1000            // of one connection
	tcpSlow    = 2 * time.Second // for one message
)

// Server answers for its zones. Its methods may be called from many goroutines.
type Server struct {
	config  Config
	answers answers
	now     atomic.Pointer[picture]
	rate    *limiter
	parts   []*dns.Server
	serving sync.WaitGroup
	failed  chan error
	stats   struct{ queries, refused, malformed, truncated, tcp atomic.Uint64 }
}

// New checks the zones. It opens nothing; there is no PoP until SetFleet or SetPoPs.
func New(c Config) (*Server, error) {
	if c.TTL == 0 {
		c.TTL = 20 * time.Second
	}
	if c.Answers == 0 {
		c.Answers = 2
	}
	if c.TCP == 0 {
		c.TCP = 1000
	}
	c.Sockets = max(c.Sockets, 1)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	var errs []error
	if c.Where == nil {
		errs = append(errs, errors.New("geodns: Config.Where is not set"))
	}
	if c.TTL < time.Second || c.TTL > time.Hour {
		errs = append(errs, fmt.Errorf("geodns: TTL %v: want 1s to 1h", c.TTL))
	}
	if c.Answers < 1 || c.Answers > MaxChoices {
		errs = append(errs, fmt.Errorf("geodns: %d answers: want 1 to %d", c.Answers, MaxChoices))
	}
	if c.Rate < 0 || c.TCP < 0 {
		errs = append(errs, fmt.Errorf("geodns: rate %d, TCP connections %d: want 0 or more", c.Rate, c.TCP))
	}
	zones, err := compileAll(c.Zones)
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	s := &Server{config: c, rate: newLimiter(c.Rate), failed: make(chan error, c.Sockets+1)}
	s.answers = answers{zones: zones, where: c.Where, ttl: uint32(c.TTL / time.Second), many: c.Answers, serial: uint32(time.Now().Unix())}
	return s, s.SetPoPs(nil)
}

func compileAll(zones []Zone) (map[string]*zone, error) {
	all := map[string]*zone{}
	var errs []error
	if len(zones) == 0 {
		errs = append(errs, errors.New("geodns: no zones"))
	}
	for _, z := range zones {
		c, err := compile(z)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if all[c.name] != nil {
			errs = append(errs, fmt.Errorf("zone %s is there twice", c.name))
		}
		all[c.name] = c
	}
	return all, errors.Join(errs...)
}

// Check reports every fault of the zones.
func Check(zones []Zone) error {
	_, err := compileAll(zones)
	return err
}

// SetPoPs has every later answer come from this fleet, in which all functions run
// anywhere. It keeps pops.
func (s *Server) SetPoPs(pops []PoP) error {
	t, err := NewTable(pops)
	if err != nil {
		return err
	}
	s.now.Store(&picture{all: t})
	return nil
}

// Table returns the fleet that answers come from.
func (s *Server) Table() *Table { return s.now.Load().all }

// Listen opens the address over UDP and TCP and serves on it until Close. Another
// server of the same user may have it open, too: one follows the other without a gap.
func (s *Server) Listen(address string) error {
	config := net.ListenConfig{Control: shareAddress}
	tcp, err := config.Listen(context.Background(), "tcp", address)
	if err != nil {
		return fmt.Errorf("geodns: %w", err)
	}
	at := tcp.Addr().String()
	s.serve(&dns.Server{Listener: newDoor(tcp, s.config.TCP)})
	for range s.config.Sockets {
		udp, err := config.ListenPacket(context.Background(), "udp", at)
		if err != nil {
			return errors.Join(fmt.Errorf("geodns: %w", err), s.Close())
		}
		s.serve(&dns.Server{PacketConn: udp})
	}
	return nil
}

func shareAddress(_, _ string, c syscall.RawConn) (err error) {
	if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }); e != nil {
		return e
	}
	return err
}

func (s *Server) serve(d *dns.Server) {
	d.Handler, d.MsgAcceptFunc, d.UDPSize = s, accept, maxUDP
	d.MsgInvalidFunc = func([]byte, error) { s.stats.malformed.Add(1) }
	d.ReadTimeout, d.WriteTimeout, d.MaxTCPQueries = tcpSlow, tcpSlow, tcpQueries
	d.IdleTimeout = func() time.Duration { return tcpIdle }
	begun := make(chan struct{})
	d.NotifyStartedFunc = func() { close(begun) }
	s.parts = append(s.parts, d)
	ended := make(chan struct{})
	s.serving.Go(func() {
		defer close(ended)
		if err := d.ActivateAndServe(); err != nil {
			s.failed <- fmt.Errorf("geodns: %w", err)
		}
	})
	select {
	case <-begun: // or Shutdown would not know of it
	case <-ended:
	}
}

// Address is where it listens; invalid before Listen.
func (s *Server) Address() netip.AddrPort {
	if len(s.parts) == 0 {
		return netip.AddrPort{}
	}
	at, _ := netip.ParseAddrPort(s.parts[0].Listener.Addr().String())
	return at
}

// Failed tells what ended serving, other than Close.
func (s *Server) Failed() <-chan error { return s.failed }

// Close ends serving; answers under way are given.
func (s *Server) Close() error {
	var errs []error
	ctx, cancel := context.WithTimeout(context.Background(), 2*tcpSlow)
	defer cancel()
	for _, d := range s.parts {
		errs = append(errs, d.ShutdownContext(ctx))
	}
	s.serving.Wait()
	s.parts = nil
	return errors.Join(errs...)
}

// Bits of a header's second word (RFC 1035 §4.1.1).
const bitResponse = 1 << 15

// accept looks at a message's head, before anything else of it is read.
func accept(h dns.Header) dns.MsgAcceptAction {
	switch {
	case h.Bits&bitResponse != 0:
		return dns.MsgIgnore
	case int(h.Bits>>11)&0xf != dns.OpcodeQuery:
		return dns.MsgRejectNotImplemented
	case h.Qdcount != 1 || h.Ancount != 0 || h.Nscount != 0 || h.Arcount > 2:
		return dns.MsgReject
	}
	return dns.MsgAccept
}

// ServeDNS answers one query.
func (s *Server) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	from, udp := sender(w)
	s.stats.queries.Add(1)
	m := s.answers.respond(s.now.Load(), q, from, udp)
	if m.Rcode == dns.RcodeRefused {
		s.stats.refused.Add(1)
	}
	if !udp {
		s.stats.tcp.Add(1)
		_ = w.WriteMsg(m) // who left gets no answer
		return
	}
	switch s.rate.allow(stream{(&client{addr: from}).network(), m.Rcode, len(m.Answer) > 0}) {
	case drop:
		return
	case slip:
		m.Answer, m.Ns, m.Extra, m.Truncated = nil, nil, nil, true
	}
	if m.Truncated {
		s.stats.truncated.Add(1)
	}
	_ = w.WriteMsg(m)
}

func sender(w dns.ResponseWriter) (netip.Addr, bool) {
	switch a := w.RemoteAddr().(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap(), true
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap(), false
	}
	return netip.Addr{}, false
}

// Stats are facts since New.
type Stats struct {
	Queries   uint64 // answered or dropped
	TCP       uint64 // of these, over TCP
	Refused   uint64 // for a zone that is not ours, a transfer, another class
	Malformed uint64 // messages that could not be read
	Truncated uint64 // answers cut to fit UDP, or to bring a client to TCP
	Limited   uint64 // answers over the rate
}

// Stats returns them.
func (s *Server) Stats() Stats {
	return Stats{Queries: s.stats.queries.Load(), TCP: s.stats.tcp.Load(), Refused: s.stats.refused.Load(),
		Malformed: s.stats.malformed.Load(), Truncated: s.stats.truncated.Load(), Limited: s.rate.over.Load()}
}
