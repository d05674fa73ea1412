// Package proxy says whose a connection is when a balancer that is trusted passes
// it on: it reads the PROXY protocol, versions 1 and 2, which stands before the
// first byte of TLS.
//
// Source: https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt
package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Bounds of a header, in bytes.
const (
	maxV1 = 107     // with its line end: section 2.1
	maxV2 = 4 << 10 // after the first 16: room for a balancer's extensions, a tenth of what the field can say
)

// ErrHeader is wrapped by every fault of a header's form.
var ErrHeader = errors.New("proxy: not a PROXY protocol header")

const signature = "\r\n\r\n\x00\r\nQUIT\n"

// Read reads a header from the beginning of a connection, and not a byte beyond
// it. It returns the client's address; the zero value where the balancer speaks
// for itself (LOCAL, as in its health checks) or does not know (UNKNOWN), and the
// connection's own address is to be taken. It blocks as r does.
func Read(r io.Reader) (netip.AddrPort, error) {
	var first [len(signature)]byte // every version 1 header is longer
	if _, err := io.ReadFull(r, first[:]); err != nil {
		return netip.AddrPort{}, fmt.Errorf("%w: %w", ErrHeader, err)
	}
	switch {
	case string(first[:]) == signature:
		return readV2(r)
	case strings.HasPrefix(string(first[:]), "PROXY "):
		return readV1(r, first[:])
	}
	return netip.AddrPort{}, fmt.Errorf("%w: it begins with %q", ErrHeader, first)
}

// readV1 reads on to the line's end, a byte at a time: what follows is not ours.
func readV1(r io.Reader, first []byte) (netip.AddrPort, error) {
	line := append(make([]byte, 0, maxV1), first...)
	for line[len(line)-1] != '\n' {
		if len(line) == maxV1 {
			return netip.AddrPort{}, fmt.Errorf("%w: version 1: no end within %d bytes", ErrHeader, maxV1)
		}
		if _, err := io.ReadFull(r, line[len(line):len(line)+1]); err != nil {
			return netip.AddrPort{}, fmt.Errorf("%w: version 1: %w", ErrHeader, err)
		}
		line = line[:len(line)+1]
	}
	text, ok := strings.CutSuffix(string(line), "\r\n")
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("%w: version 1: the line does not end in CR LF", ErrHeader)
	}
	return parseV1(text)
}

// parseV1 reads "PROXY TCP4 192.0.2.1 192.0.2.2 4000 443".
func parseV1(text string) (netip.AddrPort, error) {
	f := strings.Split(text, " ")
	if f[1] == "UNKNOWN" {
		return netip.AddrPort{}, nil // what follows is to be ignored
	}
	if len(f) != 6 || f[1] != "TCP4" && f[1] != "TCP6" {
		return netip.AddrPort{}, fmt.Errorf("%w: version 1: %q", ErrHeader, text)
	}
	var ends [2]netip.AddrPort
	for i := range ends {
		addr, err := netip.ParseAddr(f[2+i])
		port, perr := strconv.ParseUint(f[4+i], 10, 16)
		if err != nil || perr != nil || addr.Zone() != "" || addr.Is4() != (f[1] == "TCP4") || strconv.FormatUint(port, 10) != f[4+i] {
			return netip.AddrPort{}, fmt.Errorf("%w: version 1: %q", ErrHeader, text)
		}
		ends[i] = netip.AddrPortFrom(addr, uint16(port))
	}
	return client(ends[0])
}

// What byte 13 and byte 14 of version 2 say.
const (
	local  = 0x20
	relay  = 0x21
	unspec = 0x00
	tcp4   = 0x11
	tcp6   = 0x21
	unixes = 0x31
)

func readV2(r io.Reader) (netip.AddrPort, error) {
	var head [16]byte
	copy(head[:], signature)
	if _, err := io.ReadFull(r, head[12:]); err != nil {
		return netip.AddrPort{}, fmt.Errorf("%w: version 2: %w", ErrHeader, err)
	}
	size := int(binary.BigEndian.Uint16(head[14:]))
	if size > maxV2 {
		return netip.AddrPort{}, fmt.Errorf("%w: version 2: %d bytes; at most %d", ErrHeader, size, maxV2)
	}
	all := append(head[:], make([]byte, size)...)
	if _, err := io.ReadFull(r, all[16:]); err != nil {
		return netip.AddrPort{}, fmt.Errorf("%w: version 2: %w", ErrHeader, err)
	}
	return parseV2(all)
}

// parseV2 reads a whole header of version 2; its length field has been checked.
func parseV2(all []byte) (netip.AddrPort, error) {
	command, kind, body := all[12], all[13], all[16:]
	switch command {
	case local:
		return netip.AddrPort{}, nil // the rest is to be ignored
	case relay:
	default:
		return netip.AddrPort{}, fmt.Errorf("%w: version and command 0x%02x", ErrHeader, command)
	}
	addresses, ok := map[byte]int{unspec: 0, tcp4: 12, tcp6: 36, unixes: 216}[kind]
	if !ok || len(body) < addresses {
		return netip.AddrPort{}, fmt.Errorf("%w: version 2: family and protocol 0x%02x in %d bytes; want TCP", ErrHeader, kind, len(body))
	}
	if kind == unspec {
		return netip.AddrPort{}, nil // its bytes have no known form
	}
	if err := extensions(all, body[addresses:]); err != nil {
		return netip.AddrPort{}, err
	}
	switch kind {
	case tcp4:
		return client(netip.AddrPortFrom(netip.AddrFrom4([4]byte(body)), binary.BigEndian.Uint16(body[8:])))
	case tcp6:
		return client(netip.AddrPortFrom(netip.AddrFrom16([16]byte(body)), binary.BigEndian.Uint16(body[32:])))
	}
	return netip.AddrPort{}, nil
}

// typeCRC is the extension that holds a CRC32c of the header, itself taken as zero.
const typeCRC = 0x03

// extensions walks the type-length-value list, and checks the checksum if there is one.
func extensions(all, rest []byte) error {
	for len(rest) > 0 {
		if len(rest) < 3 {
			return fmt.Errorf("%w: version 2: an extension is cut off", ErrHeader)
		}
		size := int(binary.BigEndian.Uint16(rest[1:]))
		if len(rest) < 3+size {
			return fmt.Errorf("%w: version 2: extension 0x%02x is cut off", ErrHeader, rest[0])
		}
		if value := rest[3 : 3+size]; rest[0] == typeCRC {
			if size != 4 {
				return fmt.Errorf("%w: version 2: a checksum of %d bytes", ErrHeader, size)
			}
			want := binary.BigEndian.Uint32(value)
			clear(value)
			if got := crc32.Checksum(all, crc32.MakeTable(crc32.Castagnoli)); got != want {
				return fmt.Errorf("%w: version 2: the checksum is wrong", ErrHeader)
			}
		}
		rest = rest[3+size:]
	}
	return nil
}

// client refuses addresses that no client can have.
func client(a netip.AddrPort) (netip.AddrPort, error) {
	ip := a.Addr().Unmap()
	if ip.IsUnspecified() || ip.IsMulticast() {
		return netip.AddrPort{}, fmt.Errorf("%w: %v is no client's address", ErrHeader, ip)
	}
	return netip.AddrPortFrom(ip, a.Port()), nil
}

// conn is a connection that is the client's, whoever passes it on.
type conn struct {
	net.Conn
	client net.Addr
}

// As returns c with client as the address it comes from.
func As(c net.Conn, client netip.AddrPort) net.Conn {
	return conn{c, net.TCPAddrFromAddrPort(client)}
}

func (c conn) RemoteAddr() net.Addr { return c.client }
