// Package up lays out and runs a whole fleet on one machine: a control node and
// several PoPs, each a process of its own on a loopback address of its own.
package up

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"text/template"
)

// MaxPoPs is how many PoPs have a name ready.
const MaxPoPs = 10

// places are the PoPs, in the order they are used.
var places = [MaxPoPs]struct{ name, region, position string }{
	{"lon", "eu", "51.51, -0.13"}, {"nyc", "us", "40.71, -74.01"}, {"sin", "ap", "1.35, 103.82"}, {"fra", "eu", "50.11, 8.68"}, {"sfo", "us", "37.77, -122.42"},
	{"syd", "ap", "-33.87, 151.21"}, {"gru", "sa", "-23.55, -46.63"}, {"jnb", "af", "-26.20, 28.05"}, {"nrt", "ap", "35.68, 139.69"}, {"bom", "ap", "19.08, 72.88"},
}

// Options say what to lay out.
type Options struct {
	Dir  string     // state of the whole fleet; made if it is not there
	PoPs int        // 1 to MaxPoPs
	Base netip.Addr // the control node's loopback address; PoPs take the ones after it
	Port uint16     // the PoPs' public port
}

// Validate reports what is wrong with o.
func (o Options) Validate() error {
	var errs []error
	if o.PoPs < 1 || o.PoPs > MaxPoPs {
		errs = append(errs, fmt.Errorf("--pops %d: want 1 to %d", o.PoPs, MaxPoPs))
	}
	if !o.Base.IsLoopback() || !o.Base.Is4() {
		errs = append(errs, fmt.Errorf("--base %s: want an address in 127.0.0.0/8", o.Base))
	} else if last := int(o.Base.As4()[3]); last == 0 || last+o.PoPs > 254 {
		errs = append(errs, fmt.Errorf("--base %s with --pops %d: want the addresses to end within .1 to .254", o.Base, o.PoPs))
	}
	if o.Port == 0 {
		errs = append(errs, errors.New("--port 0: want a port"))
	}
	if o.Dir == "" {
		errs = append(errs, errors.New("--dir: empty"))
	}
	return errors.Join(errs...)
}

// Node is one process of the fleet.
type Node struct {
	Name   string
	PoP    string // empty for the control node
	Region string
	Addr   netip.Addr
	Config string // its configuration file
	State  string // its state folder
	Log    string // where its output goes
	Public string // host:port for users; empty for the control node
	Admin  string // host:port of /metrics and health

	Position string // latitude, longitude of the PoP
	More     string // further lines of its configuration file

	// Within is the start of a command line that runs the rest of it where the node's
	// address is; see Network. nil: here.
	Within []string
}

// Layout is a fleet written down in a folder.
type Layout struct {
	Options
	Control Node
	API     string // host:port of the control API
	Peer    string // host:port of control's mTLS listener
	Gossip  string // host:port of control's membership listener
	Edges   []Node
	EdgeCA  string   // PEM file of the CA that signed the PoPs' certificates
	Target  string   // target file for the other commands
	Kept    []string // configuration files that were changed since they were written, and stay as they are
}

// Ports of the processes; every one listens on an address of its own.
const (
	apiPort    = 8400
	peerPort   = 8401
	gossipPort = 8402
	adminPort  = 8403
)

// Plan names everything without touching the disk.
func Plan(o Options) (Layout, error) {
	if err := o.Validate(); err != nil {
		return Layout{}, err
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return Layout{}, fmt.Errorf("up: %w", err)
	}
	o.Dir = dir
	l := Layout{
		Options: o,
		EdgeCA:  filepath.Join(dir, "edge-ca", "ca.pem"),
		Target:  filepath.Join(dir, "target.toml"),
		Control: node(dir, "control-1"),
	}
	for i := range o.PoPs {
		n := node(dir, places[i].name+"-1")
		n.PoP, n.Region, n.Position = places[i].name, places[i].region, places[i].position
		l.Edges = append(l.Edges, n)
	}
	l.moveTo(o.Base, func(string) []string { return nil })
	return l, nil
}

// moveTo gives control the address base and the PoPs the ones after it, where the
// command lines that within returns for their names lead.
func (l *Layout) moveTo(base netip.Addr, within func(node string) []string) {
	at := func(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }
	l.Base = base
	l.API, l.Peer, l.Gossip = at(base, apiPort), at(base, peerPort), at(base, gossipPort)
	c := &l.Control
	c.Addr, c.Admin, c.Within = base, at(base, adminPort), within(c.Name)
	for i := range l.Edges {
		base = base.Next()
		n := &l.Edges[i]
		n.Addr, n.Public, n.Admin, n.Within = base, at(base, l.Port), at(base, adminPort), within(n.Name)
	}
}

func node(dir, name string) Node {
	home := filepath.Join(dir, name)
	return Node{Name: name, Config: filepath.Join(home, "config.toml"),
		State: filepath.Join(home, "state"), Log: filepath.Join(home, "log")}
}

// Write makes the folders, the local CA with the PoPs' certificate, and the
// configuration files. What is there already is kept, but for configuration files that
// are as Write left them; those that were changed since are listed in Kept.
func (l *Layout) Write() error {
	if err := os.MkdirAll(l.Dir, 0o700); err != nil {
		return fmt.Errorf("up: %w", err)
	}
	if err := l.writeCertificates(); err != nil {
		return err
	}
	l.Kept = nil
	if err := l.writeConfig(controlConfig, l.Control); err != nil {
		return fmt.Errorf("up: %w", err)
	}
	for _, n := range l.Edges {
		if err := l.writeConfig(edgeConfig, n); err != nil {
			return fmt.Errorf("up: %w", err)
		}
	}
	return nil
}

// writeConfig writes n's configuration file, and beside it what was written, by which it
// is known the next time whether somebody has changed the file.
func (l *Layout) writeConfig(t *template.Template, n Node) error {
	if err := os.MkdirAll(filepath.Dir(n.Config), 0o700); err != nil {
		return err
	}
	var text bytes.Buffer
	if err := t.Execute(&text, map[string]any{"Node": n, "Cert": l.certFile(), "Key": l.keyFile(), "API": apiPort, "Peer": peerPort, "Gossip": gossipPort}); err != nil {
		return fmt.Errorf("%s: %w", n.Config, err)
	}
	written := n.Config + ".written"
	now, err := os.ReadFile(n.Config)
	before, beforeErr := os.ReadFile(written)
	if err == nil && beforeErr == nil && !bytes.Equal(now, before) {
		l.Kept = append(l.Kept, n.Config)
		return nil
	}
	if err := os.WriteFile(n.Config, text.Bytes(), 0o600); err != nil {
		return err
	}
	return os.WriteFile(written, text.Bytes(), 0o600)
}

var controlConfig = template.Must(template.New("control").Parse(`# Written by selvage up.
[control]
name = "{{.Node.Name}}"
state = {{printf "%q" .Node.State}}

[listen]
api = "{{.Node.Addr}}:{{.API}}"
peer = "{{.Node.Addr}}:{{.Peer}}"
gossip = "{{.Node.Addr}}:{{.Gossip}}"
admin = "{{.Node.Admin}}"

[store]
max_bytes = 10737418240
reserve_bytes = 268435456
`))

var edgeConfig = template.Must(template.New("edge").Parse(`# Written by selvage up.
[node]
name = "{{.Node.Name}}"
pop = "{{.Node.PoP}}"
region = "{{.Node.Region}}"
state = {{printf "%q" .Node.State}}
position = "{{.Node.Position}}"

[listen]
public = "{{.Node.Public}}"
admin = "{{.Node.Admin}}"
peer = "{{.Node.Addr}}:{{.Peer}}"
gossip = "{{.Node.Addr}}:{{.Gossip}}"

[tls]
certificates = [{ cert = {{printf "%q" .Cert}}, key = {{printf "%q" .Key}} }]

[fetch]
allow = ["127.0.0.0/8"]
{{.Node.More}}`))
