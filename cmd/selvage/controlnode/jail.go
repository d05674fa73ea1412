package controlnode

import (
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/selvage-edge/selvage/cmd/selvage/config"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/edge/keeper"
	"github.com/selvage-edge/selvage/runtime/jail"
	"github.com/selvage-edge/selvage/runtime/plain"
)

// readable is what a control node reads of its machine: names, for an outside store.
var readable = []string{
	"/etc/resolv.conf", "/run/systemd/resolve", "/run/NetworkManager/resolv.conf", "/run/resolvconf", // where the first may lead
	"/etc/hosts", "/etc/nsswitch.conf", "/etc/services", "/etc/protocols",
	"/proc/sys/net", "/proc/stat",
}

// enterJail opens the keys, starts the process that runs helpers, and then locks this
// one in, for good: the store's files and sockets are opened inside.
func (c *control) enterJail(lend []string) (err error) {
	state := c.cfg.Control.State
	if c.id, err = identity.OpenControl(filepath.Join(state, IdentityDir), nil); err != nil {
		return fmt.Errorf("%w; make it with 'selvage control init --config FILE'", err)
	}
	if c.helpers, err = keeper.Launch(lend...); err != nil {
		return err
	}
	missing, err := lockIn(state)
	for _, m := range missing {
		c.log.Warn("the control node runs without a wall this machine does not give", "wall", m.What, "why", m.Why)
	}
	return err
}

func lockIn(state string) ([]jail.Missing, error) {
	_, _ = x509.SystemCertPool() // read once, now; without one an outside store's certificate is refused, as it would be anyway
	_, _ = time.Now().Zone()
	return jail.Server(jail.ServerConfig{State: state, Read: readable})
}

// Lend runs helpers for the control node that started this process.
func Lend(cfg config.Control) error {
	log := logger(cfg)
	helpers, err := jail.Open(jail.Config{})
	if err != nil {
		return err
	}
	defer helpers.Close()
	for _, m := range helpers.Missing() {
		log.Warn("helpers run without a wall this machine does not give", "wall", m.What, "why", m.Why)
	}
	return keeper.Lend(helpers)
}

func logger(cfg config.Control) *slog.Logger {
	return slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: config.Level(cfg.Log.Level), ReplaceAttr: plain.Attr})).With("node", cfg.Control.Name)
}
