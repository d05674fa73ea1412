// Package nameserver wires a name server that runs alone, and what nodes that
// are name servers, too, share with it.
package nameserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/cmd/selvage/config"
	"github.com/selvage-edge/selvage/cmd/selvage/membership"
	"github.com/selvage-edge/selvage/control/agent"
	"github.com/selvage-edge/selvage/control/fleet"
	"github.com/selvage-edge/selvage/control/geodns"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/peer"
	"github.com/selvage-edge/selvage/runtime/jail"
)

// pop is what name servers join as: they stand in no PoP of the fleet's.
const pop = "dns"

// Run answers DNS until ctx ends.
func Run(ctx context.Context, cfg config.NameServer, build string) (err error) {
	log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: config.Level(cfg.Log.Level)})).With("node", cfg.Node.Name)
	id, err := membership.Open(ctx, log, filepath.Join(cfg.Node.State, "identity"), identity.JoinOptions{Name: cfg.Node.Name, PoP: pop, Region: pop})
	if err != nil {
		return err
	}
	control, err := peer.NewClient(peer.ClientConfig{Member: id.Member, Expect: identity.Expect{Kind: identity.KindControl}, Addresses: id.Control})
	if err != nil {
		return err
	}
	defer control.Close()
	places, err := OpenGeo(cfg.Geo, log)
	if err != nil {
		return err
	}
	c := cfg.DNS.Server(places)
	c.Log = log.With("room", "geodns")
	dns, err := geodns.New(c)
	if err != nil {
		return err
	}
	functions := agent.OpenCatalog(agent.CatalogConfig{Control: control, Trust: id.Member.Anchor(), Path: filepath.Join(cfg.Node.State, "catalog"),
		OnEvent: func(e agent.Event) { told(log, e) }})
	missing, err := jail.Server(jail.ServerConfig{State: cfg.Node.State, Read: append(Folders(cfg.Geo), "/etc/resolv.conf", "/etc/hosts", "/proc/sys/net")})
	if err != nil {
		return err
	}
	for _, m := range missing {
		log.Warn("the server runs without a wall this machine does not give", "wall", m.What, "why", m.Why)
	}
	gossip, err := fleet.Join(fleet.Config{
		Fleet: id.Member.Peer().Fleet, Name: cfg.Node.Name, Key: id.GossipKey, Meta: fleet.Meta{Role: fleet.NameServer, Version: build},
		Bind: cfg.Listen.Gossip, Advertise: config.Reach(cfg.Listen.Gossip, cfg.Listen.Advertise),
		Seeds: id.Seeds, SeedsFile: filepath.Join(cfg.Node.State, "seeds.json"), Log: log.With("room", "fleet"),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, gossip.Leave(time.Second), gossip.Close()) }()
	admin, err := net.Listen("tcp", cfg.Listen.Admin)
	if err != nil {
		return fmt.Errorf("listen.admin: %w", err)
	}
	if err := dns.Listen(cfg.DNS.Listen); err != nil {
		return errors.Join(fmt.Errorf("dns.listen: %w", err), admin.Close())
	}
	log.Info("answering", "dns", dns.Address().String(), "zones", len(cfg.DNS.Zones), "build", build)
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var parts sync.WaitGroup
	defer parts.Wait()
	defer stop()
	parts.Go(func() { functions.Run(background) })
	parts.Go(func() { dns.Follow(background, gossip.Members, functions.Snapshot) })
	parts.Go(func() { places.Run(background) })
	parts.Go(func() {
		peer.KeepFresh(background, peer.FreshConfig{Node: id, Control: control, Failed: func(err error) {
			log.Debug("certificate and trust are looked at again in a minute", "err", err)
		}})
	})
	s := &http.Server{Handler: Explaining(dns, healthy()), ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10}
	parts.Go(func() { _ = s.Serve(admin) }) // until Close
	select {
	case <-ctx.Done():
	case err = <-dns.Failed():
	}
	return errors.Join(err, dns.Close(), s.Close())
}

// told logs what becomes of the catalog.
func told(log *slog.Logger, e agent.Event) {
	level := slog.LevelInfo
	if e.Err != nil {
		level = slog.LevelWarn
	}
	log.Log(context.Background(), level, "catalog: "+string(e.Kind), "what", e.What, "err", e.Err)
}

func healthy() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	return mux
}
