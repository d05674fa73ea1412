package keeper

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// Two servers cannot read one UDP socket: each would get the other's packets.
// So there are two, numbered, on one address (SO_REUSEPORT), and a program in
// the kernel says which gets a packet. While one server is alive that is its
// own, always. While an old one drains beside a new one it is the old one's for
// packets whose connection ID begins as the old one's do, wherever they come
// from: a client may have changed its port. All else is the new one's: above
// all the first packets of connections, whose IDs the client chose.
//
// The IDs' place in a packet is the same in every version of QUIC (RFC 8999).
// One that a client chooses begins so by chance once in 2^32.

// prefixes are how connection IDs begin, by number of the socket: they differ in one bit.
func prefixes(tag [4]byte) [2][4]byte {
	a, b := tag, tag
	a[0] &^= 1
	b[0] |= 1
	return [2][4]byte{a, b}
}

const longHeader = 0x80

// toOne sends every packet to the socket of that number.
func toOne(number int) []unix.SockFilter {
	return []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: uint32(number)}}
}

// toBoth sends packets of connections that begin with prefix to old, all others to now.
func toBoth(now, old int, prefix [4]byte) []unix.SockFilter {
	const (
		short   = 1 // where the ID is in a packet with a short header
		long    = 6 // and in one with a long header
		atLeast = long + 4
	)
	is := binary.BigEndian.Uint32(prefix[:])
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_LEN},
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: atLeast, Jf: 6}, // less is no QUIC: now
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: longHeader, Jf: 2},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: long},
		{Code: unix.BPF_JMP | unix.BPF_JA, K: 1},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: short},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: is, Jt: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: uint32(now)},
		{Code: unix.BPF_RET | unix.BPF_K, K: uint32(old)},
	}
}

// steer gives the sockets that share fd's address another program.
func steer(fd int, program []unix.SockFilter) error {
	err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	if err != nil {
		return fmt.Errorf("keeper: steer UDP packets: %w", err)
	}
	return nil
}
