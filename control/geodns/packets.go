package geodns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// headerSize is that of a message's head, in bytes (RFC 1035 §4.1.1).
const headerSize = 12

// readers is how many goroutines read one socket: one does while another answers.
const readers = 2

// packets answers what comes to a UDP socket, one query after the other: an answer
// waits for nothing, so a goroutine for each would cost more than it does.
type packets struct {
	conn   *net.UDPConn
	server *Server
	any    bool   // it is open on all addresses: an answer has to name the one that was asked
	in     []byte // a query; a longer one is cut, and then malformed
	out    []byte
	oob    []byte
}

func newPackets(conn *net.UDPConn, any bool, s *Server) *packets {
	p := &packets{conn: conn, server: s, any: any, in: make([]byte, maxUDP), out: make([]byte, 2*maxUDP)}
	if any {
		p.oob = make([]byte, unix.CmsgSpace(unix.SizeofInet6Pktinfo))
	}
	return p
}

// onAll reports whether conn is open on all addresses; if so it tells of each packet
// which one was asked.
func onAll(conn *net.UDPConn) (bool, error) {
	if at, ok := conn.LocalAddr().(*net.UDPAddr); ok && !at.IP.IsUnspecified() {
		return false, nil
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return true, err
	}
	var told error
	err = raw.Control(func(fd uintptr) {
		if told = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1); told != nil { // a socket of IPv4 alone
			told = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		}
	})
	return true, errors.Join(err, told)
}

// run answers until the socket's read deadline has passed, or the socket breaks.
func (p *packets) run() error {
	for {
		n, oobn, _, from, err := p.conn.ReadMsgUDPAddrPort(p.in, p.oob)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("geodns: %w", err)
		}
		if m := p.server.packet(p.in[:n], from.Addr().Unmap()); m != nil {
			p.send(m, from, p.source(p.oob[:oobn]))
		}
	}
}

func (p *packets) send(m *dns.Msg, to netip.AddrPort, source []byte) {
	if out, err := m.PackBuffer(p.out); err == nil {
		_, _, _ = p.conn.WriteMsgUDPAddrPort(out, source, to) // who left gets no answer
	}
}

// source says, to the kernel, that the answer is to come from the address that was
// asked; it is told there as in6_pktinfo or in_pktinfo (ipv6(7), ip(7)), with the
// interface by which the query came, which need not be the way back.
func (p *packets) source(told []byte) []byte {
	if !p.any || len(told) == 0 {
		return nil
	}
	h, data, _, err := unix.ParseOneSocketControlMessage(told)
	switch {
	case err != nil:
		return nil
	case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
		binary.NativeEndian.PutUint32(data[16:], 0)
	case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
		binary.NativeEndian.PutUint32(data, 0)
		copy(data[4:8], data[8:12])
	default:
		return nil
	}
	return told
}

// packet answers one packet; nil: not at all.
func (s *Server) packet(text []byte, from netip.Addr) *dns.Msg {
	if len(text) < headerSize {
		s.stats.malformed.Add(1)
		return nil
	}
	action := accept(head(text))
	if action == dns.MsgIgnore {
		return nil
	}
	q := new(dns.Msg)
	if err := q.Unpack(text); err != nil && action == dns.MsgAccept {
		s.stats.malformed.Add(1)
		action = dns.MsgReject
	}
	if action == dns.MsgAccept {
		return s.answer(q, from, true)
	}
	return refusal(q, action)
}

// head reads the head of a message.
func head(text []byte) (h dns.Header) {
	for i, field := range []*uint16{&h.Id, &h.Bits, &h.Qdcount, &h.Ancount, &h.Nscount, &h.Arcount} {
		*field = binary.BigEndian.Uint16(text[2*i:])
	}
	return h
}

// refusal says that a message is no query, or one of a kind that is not known.
func refusal(q *dns.Msg, action dns.MsgAcceptAction) *dns.Msg {
	m := new(dns.Msg)
	m.Id, m.Response, m.Rcode, m.Question = q.Id, true, dns.RcodeFormatError, q.Question
	if action == dns.MsgRejectNotImplemented {
		m.Opcode, m.Rcode, m.Question = q.Opcode, dns.RcodeNotImplemented, nil
	}
	return m
}
