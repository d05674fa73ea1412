package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
)

// resolvConf names the machine's name servers.
const resolvConf = "/etc/resolv.conf"

// names keeps the name servers that were there at the start. A resolv.conf that
// is replaced by another file, as some DHCP clients do, cannot be read from
// inside the jail; Go's resolver would then ask this machine itself.
type names struct {
	path    string
	servers []string // addresses with ports
	log     *slog.Logger
	told    sync.Once
	asked   atomic.Uint64 // how often; the servers take turns
}

// keepNames makes names survive the jail. The C library's resolver is not used:
// it would load code from disk.
func keepNames(path string, log *slog.Logger) error {
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("name servers: %w", err)
	}
	n := &names{path: path, servers: nameServers(string(text)), log: log}
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: n.dial}
	return nil
}

// nameServers reads the servers from a resolv.conf; see resolv.conf(5).
func nameServers(text string) []string {
	var servers []string
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) > 1 && f[0] == "nameserver" {
			servers = append(servers, net.JoinHostPort(f[1], "53"))
		}
	}
	return servers
}

// dial is what Go's resolver connects with.
func (n *names) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, n.server(address))
}

// server is the address to ask, where Go would ask that one.
func (n *names) server(address string) string {
	if len(n.servers) == 0 || !hidden(n.path) {
		return address
	}
	n.told.Do(func() {
		n.log.Warn("the file that names the name servers was replaced by another, which the server's jail cannot read: those of before are asked until the server starts again",
			"file", n.path, "servers", n.servers)
	})
	return n.servers[n.asked.Add(1)%uint64(len(n.servers))]
}

// hidden reports whether the jail hides a file; one that is not there is not hidden.
func hidden(path string) bool {
	f, err := os.Open(path)
	if err == nil {
		f.Close()
	}
	return errors.Is(err, os.ErrPermission)
}
