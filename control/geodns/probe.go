package geodns

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// Probe reports whether Listen could open the address: it binds it over TCP, beside whatever server of
// the same user has it, and takes nothing from that one.
func Probe(address string) error {
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return fmt.Errorf("geodns: %w", err)
	}
	everywhere := &unix.SockaddrInet6{Port: a.Port} // without an address
	copy(everywhere.Addr[:], a.IP.To16())
	domain, to := unix.AF_INET6, unix.Sockaddr(everywhere)
	if ip := a.IP.To4(); ip != nil {
		domain, to = unix.AF_INET, &unix.SockaddrInet4{Port: a.Port, Addr: [4]byte(ip)}
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("geodns: socket: %w", err)
	}
	defer unix.Close(fd)
	for _, option := range []int{unix.SO_REUSEADDR, unix.SO_REUSEPORT} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 1); err != nil {
			return fmt.Errorf("geodns: socket: %w", err)
		}
	}
	if err := unix.Bind(fd, to); err != nil {
		return fmt.Errorf("geodns: bind %s: %w", address, err)
	}
	return nil
}
