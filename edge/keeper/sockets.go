package keeper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The names of the sockets a server inherits.
const (
	PublicTCP = "public-tcp"
	PublicUDP = "public-udp"
	Admin     = "admin"
	Peer      = "peer"
)

// secondUDP is the keeper's name for the other of its two UDP sockets (steer.go);
// to the server that gets it, it is PublicUDP.
const secondUDP = "public-udp-1"

// control is the name of the socket between server and keeper itself.
const control = "control"

// fdsVariable names the inherited files from 3 on, in order.
const fdsVariable = "SELVAGE_FDS"

// portTries bounds the search for a port that is free for both TCP and UDP.
const portTries = 50

// socket is one open socket. The keeper never uses it, and keeps it as a bare
// descriptor: Go's runtime would poll a file, and switch it to blocking when it
// hands it down, while servers use the very same socket.
type socket struct {
	name string
	addr net.Addr
	fd   int
}

func (s socket) close() { _ = unix.Close(s.fd) }

// A keeper that was killed leaves a server that dies a moment later, with the sockets that it had.
const dying = 3 * time.Second

// openSockets opens what c names, all or nothing.
func openSockets(ctx context.Context, c Config) ([]socket, error) {
	for begin := time.Now(); ; {
		all, err := openOnce(ctx, c)
		if !errors.Is(err, syscall.EADDRINUSE) || time.Since(begin) > dying {
			return all, err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, err
		}
	}
}

func openOnce(ctx context.Context, c Config) (all []socket, err error) {
	defer func() {
		if err != nil {
			closeSockets(all)
			all = nil
		}
	}()
	if c.Public != "" {
		if all, err = openPublic(ctx, c.Public, udp); err != nil {
			return all, err
		}
	}
	for _, s := range []struct{ name, addr string }{{Admin, c.Admin}, {Peer, c.Peer}} {
		if s.addr == "" {
			continue
		}
		t, err := tcp(ctx, s.name, s.addr)
		if err != nil {
			return all, err
		}
		all = append(all, t)
	}
	return all, nil
}

// openPublic opens TCP and UDP on one port. When the port may be any, another
// is tried as long as the UDP half is taken.
func openPublic(ctx context.Context, addr string, udp opener) ([]socket, error) {
	for try := 1; ; try++ {
		t, err := tcp(ctx, PublicTCP, addr)
		if err != nil {
			return nil, err
		}
		u, err := udp(ctx, PublicUDP, t.addr.String())
		if err == nil {
			second, err := twin(ctx, u)
			if err != nil {
				closeSockets([]socket{t, u})
				return nil, err
			}
			return []socket{t, u, second}, nil
		}
		t.close()
		if !anyPort(addr) || !errors.Is(err, syscall.EADDRINUSE) || try == portTries {
			return nil, err
		}
	}
}

func anyPort(addr string) bool { return strings.HasSuffix(addr, ":0") }

type opener func(ctx context.Context, name, addr string) (socket, error)

func tcp(ctx context.Context, name, addr string) (socket, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return socket{}, openError(name, addr, err)
	}
	defer l.Close()
	return keep(name, l.Addr(), l.(*net.TCPListener).File)
}

func udp(ctx context.Context, name, addr string) (socket, error) {
	var lc net.ListenConfig
	p, err := lc.ListenPacket(ctx, "udp", addr)
	if err != nil {
		return socket{}, openError(name, addr, err)
	}
	defer p.Close()
	return keep(name, p.LocalAddr(), p.(*net.UDPConn).File)
}

// twin opens a second UDP socket on u's address. That u was opened without
// SO_REUSEPORT shows that nobody else has the port; packets go to u until steered.
func twin(ctx context.Context, u socket) (socket, error) {
	if err := unix.SetsockoptInt(u.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return socket{}, openError(secondUDP, u.addr.String(), err)
	}
	var failed error
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		err := c.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		return errors.Join(err, failed)
	}}
	p, err := lc.ListenPacket(ctx, "udp", u.addr.String())
	if err != nil {
		return socket{}, openError(secondUDP, u.addr.String(), err)
	}
	defer p.Close()
	second, err := keep(secondUDP, p.LocalAddr(), p.(*net.UDPConn).File)
	if err != nil {
		return socket{}, err
	}
	return second, steer(u.fd, toOne(0))
}

func keep(name string, addr net.Addr, file func() (*os.File, error)) (socket, error) {
	f, err := file()
	if err != nil {
		return socket{}, fmt.Errorf("keeper: keep the %s socket: %w", name, err)
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return socket{}, fmt.Errorf("keeper: keep the %s socket: %w", name, err)
	}
	return socket{name: name, addr: addr, fd: fd}, nil
}

func openError(name, addr string, err error) error {
	hint := ""
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		hint = "; another process has that port (see `ss -lntup`): stop it or configure another"
	case errors.Is(err, syscall.EACCES):
		hint = "; ports below 1024 need root or CAP_NET_BIND_SERVICE"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		hint = "; this machine has no such address"
	}
	return fmt.Errorf("keeper: open the %s socket on %s: %w%s", name, addr, err, hint)
}

func closeSockets(all []socket) {
	for _, s := range all {
		s.close()
	}
}
