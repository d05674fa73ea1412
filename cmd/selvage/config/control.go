package config

import (
	"errors"
	"fmt"
	"path/filepath"
)

// Control is the configuration of a control node (`selvage control --config FILE`).
type Control struct {
	Control ControlNode   `toml:"control"`
	Listen  ControlListen `toml:"listen"`
	Store   Store         `toml:"store"`
	Log     ControlLog    `toml:"log"`
}

// ControlNode says who this control node is.
type ControlNode struct {
	Name  string `toml:"name" doc:"The node's name, one in the fleet." default:"control-1"`
	State string `toml:"state" doc:"Folder made by 'selvage control init': keys and the durable store."`
}

// ControlListen says where a control node listens.
type ControlListen struct {
	API       string `toml:"api" doc:"Address of the HTTPS API for developers and of joining nodes." default:"0.0.0.0:8400"`
	Peer      string `toml:"peer" doc:"Address for the fleet's mTLS traffic." default:"0.0.0.0:8401"`
	Gossip    string `toml:"gossip" doc:"Address for membership, TCP and UDP." default:"0.0.0.0:8402"`
	Admin     string `toml:"admin" doc:"Address for /metrics and /healthz. Not for the internet." default:"127.0.0.1:8403"`
	Advertise string `toml:"advertise" doc:"IP address nodes reach this one at; needed when peer and gossip listen on 0.0.0.0." default:""`
}

// Store says where durable truth is kept.
type Store struct {
	URL          string `toml:"url" doc:"A NATS JetStream cluster (nats://...); empty: an embedded server under control.state." default:""`
	MaxBytes     int64  `toml:"max_bytes" doc:"The most the embedded store may take on disk." default:"107374182400"`
	ReserveBytes int64  `toml:"reserve_bytes" doc:"Free space on its volume below which writes are refused." default:"1073741824"`
}

// ControlLog says what is logged.
type ControlLog struct {
	Level string `toml:"level" doc:"debug, info, warn or error." default:"info"`
}

// DefaultControl returns the configuration of a file that sets nothing.
func DefaultControl() Control {
	return Control{
		Control: ControlNode{Name: "control-1"},
		Listen:  ControlListen{API: "0.0.0.0:8400", Peer: "0.0.0.0:8401", Gossip: "0.0.0.0:8402", Admin: "127.0.0.1:8403"},
		Store:   Store{MaxBytes: 100 << 30, ReserveBytes: 1 << 30},
		Log:     ControlLog{Level: "info"},
	}
}

// LoadControl reads and validates a control node's file. Relative paths in it
// are taken from the file's folder.
func LoadControl(path string) (Control, error) {
	c := DefaultControl()
	if err := decode(path, &c); err != nil {
		return c, err
	}
	c.Control.State = below(filepath.Dir(path), c.Control.State)
	if err := c.Validate(); err != nil {
		return c, fmt.Errorf("config %s:\n%w", path, err)
	}
	return c, nil
}

// Validate reports every fault of c with its key and value.
func (c *Control) Validate() error {
	var f faults
	f.name("control.name", c.Control.Name)
	f.set("control.state", c.Control.State)
	f.address("listen.api", c.Listen.API)
	f.address("listen.peer", c.Listen.Peer)
	f.address("listen.gossip", c.Listen.Gossip)
	f.address("listen.admin", c.Listen.Admin)
	f.advertise(c.Listen.Advertise, c.Listen.Peer, c.Listen.Gossip)
	f.positive("store.max_bytes", int(c.Store.MaxBytes))
	f.positive("store.reserve_bytes", int(c.Store.ReserveBytes))
	f.level(c.Log.Level)
	return errors.Join(f...)
}
