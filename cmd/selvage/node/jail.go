package node

import (
	"context"
	"crypto/x509"
	"net"
	"time"

	"github.com/selvage-edge/selvage/cmd/selvage/nameserver"
	"github.com/selvage-edge/selvage/runtime/jail"
)

// readable is what a server reads of its machine while it serves. Certificates and
// keys are not among it: they are read before.
var readable = []string{
	"/etc/resolv.conf", "/run/systemd/resolve", "/run/NetworkManager/resolv.conf", "/run/resolvconf", // where the first may lead
	"/etc/hosts", "/etc/nsswitch.conf", "/etc/services", "/etc/protocols",
	"/proc/sys/net", "/proc/sys/vm/overcommit_memory", // how long a queue at a socket may be; how memory is given back
	"/proc/stat", // since when this process runs
}

// lockIn puts the server in its jail, for good. It goes after the last file
// that serving takes is open, and before anything of a guest, a client or a peer
// is looked at.
func (n *node) lockIn() error {
	readOnce()
	if err := keepNames(resolvConf, n.log); err != nil {
		return err
	}
	missing, err := jail.Server(jail.ServerConfig{State: n.cfg.Node.State, Read: append(nameserver.Folders(n.cfg.Geo), readable...)})
	for _, m := range missing {
		n.log.Warn("the server runs without a wall this machine does not give", "wall", m.What, "why", m.Why)
	}
	return err
}

// readOnce has the libraries read what they read on first use and then keep.
func readOnce() {
	_, _ = x509.SystemCertPool() // without one, every backend's certificate is refused, as it would be anyway
	_, _ = time.Now().Zone()
	_, _ = net.DefaultResolver.LookupPort(context.Background(), "tcp", "https")
}
