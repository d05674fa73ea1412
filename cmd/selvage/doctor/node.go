package doctor

import (
	"cmp"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-edge/selvage/cmd/selvage/config"
	"github.com/selvage-edge/selvage/control/geodns"
	"github.com/selvage-edge/selvage/edge/keeper"
	"github.com/selvage-edge/selvage/runtime/jail"
)

func edge(c *config.Edge) []Finding {
	var all []Finding
	all = append(all, state("node.state", c.Node.State, 2<<30)...)
	runs := keeper.Runs(c.Node.State)
	all = append(all, bindable("listen.public", c.Listen.Public, true, runs), bindable("listen.admin", c.Listen.Admin, false, runs),
		bindable("listen.peer", c.Listen.Peer, false, runs), bindable("listen.gossip", c.Listen.Gossip, true, runs))
	if c.DNS.Listen != "" {
		all = append(all, answerable("dns.listen", c.DNS.Listen))
	}
	for i, p := range c.TLS.Certificates {
		all = append(all, certificate(fmt.Sprintf("tls.certificates[%d]", i), p.Cert))
		all = append(all, private(fmt.Sprintf("tls.certificates[%d].key", i), p.Key))
	}
	return all
}

func control(c *config.Control) []Finding {
	all := state("control.state", c.Control.State, uint64(c.Store.ReserveBytes)+1<<30)
	runs := isLocked(filepath.Join(c.Control.State, "store", "lock"))
	return append(all, controlJail(jail.ServerLacks()), bindable("listen.api", c.Listen.API, false, runs), bindable("listen.admin", c.Listen.Admin, false, runs),
		bindable("listen.peer", c.Listen.Peer, false, runs), bindable("listen.gossip", c.Listen.Gossip, true, runs))
}

// controlJail tells what stands around a control node's own process.
func controlJail(lacks []jail.Missing) Finding {
	var without []string
	for _, m := range lacks {
		without = append(without, m.String())
	}
	return judge(len(lacks) == 0, Warn, "control's jail", cmp.Or(strings.Join(without, "; "), "files of control.state alone, no programs, system calls filtered, no new privileges"),
		"who takes over the control node's process meets no such wall", "see the lines that begin with jail:")
}

// isLocked reports whether some process holds a lock on the file. It takes none
// itself, which who starts just now would find.
func isLocked(path string) bool {
	var s unix.Stat_t
	if unix.Stat(path, &s) != nil {
		return false
	}
	locks, err := os.ReadFile("/proc/locks") // "1: FLOCK  ADVISORY  WRITE 4711 fd:01:1835011 0 EOF"
	if err != nil {
		return false
	}
	file := fmt.Sprintf(" %02x:%02x:%d ", unix.Major(s.Dev), unix.Minor(s.Dev), s.Ino)
	return strings.Contains(string(locks), file)
}

// bindable tries a listener's address, TCP, and UDP where it is used too. The
// node itself has it where it runs.
func bindable(key, addr string, udp, runs bool) Finding {
	l, err := net.Listen("tcp", addr)
	if err == nil {
		l.Close()
		if udp {
			var p net.PacketConn
			if p, err = net.ListenPacket("udp", addr); err == nil {
				p.Close()
			}
		}
	}
	switch {
	case err == nil:
		return Finding{Level: OK, Name: key, Found: addr + " is free"}
	case errors.Is(err, unix.EADDRINUSE) && runs:
		return Finding{Level: OK, Name: key, Found: addr + " is in use: the node runs"}
	case errors.Is(err, unix.EADDRINUSE):
		return Finding{Level: Warn, Name: key, Found: addr + " is in use", Means: "if that is not this node, it cannot start", Remedy: "'ss -lntup' names who has it; stop that, or give another address"}
	case errors.Is(err, unix.EACCES):
		return Finding{Level: Fail, Name: key, Found: err.Error(), Means: "the node cannot start", Remedy: "AmbientCapabilities=CAP_NET_BIND_SERVICE in the systemd unit, or a port above 1023"}
	}
	return Finding{Level: Fail, Name: key, Found: err.Error(), Means: "the node cannot start", Remedy: "give an address of this machine"}
}

// answerable tries the name server's address, which servers of the node share.
func answerable(key, addr string) Finding {
	if err := geodns.Probe(addr); err != nil {
		return Finding{Level: Fail, Name: key, Found: err.Error(), Means: "the node cannot start, and an upgrade changes nothing", Remedy: "'ss -lntup' names who answers there; stop that, or give another address of this machine"}
	}
	return Finding{Level: OK, Name: key, Found: addr + " is free, or this node's"}
}

// state looks at a node's folder: whose it is, and how much room there is.
func state(key, dir string, want uint64) []Finding {
	info, err := os.Stat(dir)
	if errors.Is(err, os.ErrNotExist) {
		return []Finding{{Level: OK, Name: key, Found: dir + " is not there yet"}, space(key, existing(dir), want)}
	}
	if err != nil {
		return []Finding{{Level: Fail, Name: key, Found: err.Error(), Means: "the node cannot start", Remedy: "make the folder its user's own"}}
	}
	found := fmt.Sprintf("%s, %s", dir, info.Mode())
	err = unix.Access(dir, unix.R_OK|unix.W_OK|unix.X_OK)
	good := info.IsDir() && info.Mode().Perm()&0o077 == 0
	return []Finding{
		judge(good, Fail, key, found, "others on this machine can read keys and compiled code, or change them", "chmod 700 "+dir),
		judge(err == nil, Fail, key+" access", text(err, "may be read and written"), "the node cannot keep anything", "run as its owner, or chown it"),
		space(key, dir, want),
	}
}

// existing is the nearest folder above that is there.
func existing(dir string) string {
	for dir != filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	return dir
}

func space(key, dir string, want uint64) Finding {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return Finding{Level: Warn, Name: key + " space", Found: err.Error()}
	}
	free := s.Bavail * uint64(s.Bsize)
	level := Warn
	if free < want/8 || s.Files > 0 && s.Ffree == 0 {
		level = Fail
	}
	found := fmt.Sprintf("%.1f GiB free, %d files to be had", float64(free)/(1<<30), s.Ffree)
	return judge(free >= want && (s.Files == 0 || s.Ffree > 10_000), level, key+" space", found,
		"bundles, compiled code and KV cannot be kept when it runs out", fmt.Sprintf("keep %.1f GiB free on the volume of %s", float64(want)/(1<<30), dir))
}

// certLeft is how long a certificate should still be good.
const certLeft = 14 * 24 * time.Hour

func certificate(key, path string) Finding {
	b, err := os.ReadFile(path)
	if err != nil {
		return Finding{Level: Fail, Name: key, Found: err.Error(), Means: "the node cannot start", Remedy: "name a PEM file that its user can read"}
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return Finding{Level: Fail, Name: key, Found: path + " holds no PEM", Means: "the node cannot start", Remedy: "name the chain's PEM file, leaf first"}
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return Finding{Level: Fail, Name: key, Found: err.Error(), Means: "the node cannot start", Remedy: "name the chain's PEM file, leaf first"}
	}
	left := time.Until(c.NotAfter)
	level := Warn
	if left <= 0 {
		level = Fail
	}
	return judge(left > certLeft, level, key, fmt.Sprintf("%v, good until %s", c.DNSNames, c.NotAfter.UTC().Format(time.DateTime)),
		"users' browsers refuse it then", "renew it, and reload the node")
}

func private(key, path string) Finding {
	info, err := os.Stat(path)
	if err != nil {
		return Finding{Level: Fail, Name: key, Found: err.Error(), Means: "the node cannot start", Remedy: "name a PEM file that its user can read"}
	}
	return judge(info.Mode().Perm()&0o007 == 0, Fail, key, fmt.Sprintf("%s, %s", path, info.Mode()), "everybody on this machine can read the key", "chmod 600 "+path)
}
