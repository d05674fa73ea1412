// Package controlnode wires a control node: API, store, change streams, the
// fleet's own listener, membership.
package controlnode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/selvage-edge/selvage/cmd/selvage/config"
	"github.com/selvage-edge/selvage/control/api"
	"github.com/selvage-edge/selvage/control/fleet"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/peer"
	"github.com/selvage-edge/selvage/control/store"
	"github.com/selvage-edge/selvage/edge/keeper"
	"github.com/selvage-edge/selvage/runtime/compile"
	"github.com/selvage-edge/selvage/runtime/function"
)

// IdentityDir is where a control node's keys are, below its state folder.
const IdentityDir = "identity"

// drainLimit is how long requests under way may take to end.
const drainLimit = 10 * time.Second

// control is one running control node.
type control struct {
	cfg     config.Control
	build   string
	log     *slog.Logger
	id      *identity.Control
	store   *store.Store
	helpers *keeper.Attached
	api     *api.API
	gossip  *fleet.Fleet
	public  *http.Server
	admin   *http.Server
	peer    *peer.Server
	blobs   atomic.Int64 // asked for by nodes
	serving sync.WaitGroup
	failed  chan error
}

// Run serves until ctx ends. Build is the program's version; with the words of lend it
// runs as the process that calls Lend.
func Run(ctx context.Context, cfg config.Control, build string, lend ...string) (err error) {
	c := &control{cfg: cfg, build: build, failed: make(chan error, 4)}
	c.log = logger(cfg)
	defer c.close()
	if err := c.enterJail(lend); err != nil {
		return err
	}
	if err := c.open(ctx); err != nil {
		return err
	}
	if err := c.listen(); err != nil {
		return err
	}
	background, stop := context.WithCancel(ctx)
	c.serving.Go(func() { c.announce(background) })
	c.log.Info("serving", "api", cfg.Listen.API, "peer", cfg.Listen.Peer, "build", build)
	select {
	case <-ctx.Done():
	case err = <-c.failed:
	case <-c.helpers.Lost():
		err = errors.New("the process that runs helpers has ended: its last message in this log says why")
	}
	stop()
	return errors.Join(err, c.drain())
}

// open builds the rooms from the ground up.
func (c *control) open(ctx context.Context) (err error) {
	state := c.cfg.Control.State
	if c.store, err = store.Open(ctx, storeConfig(c.cfg, c.log)); err != nil {
		return err
	}
	l := c.cfg.Listen
	reach := func(addr string) []string { return []string{config.Reach(addr, l.Advertise)} }
	c.api, err = api.Open(ctx, api.Config{Store: c.store, Identity: c.id, Prepare: c.prepare, Members: c.members,
		Seeds: reach(l.Gossip), Control: reach(l.Peer), API: reach(l.API), Closing: ctx.Done(), Log: c.log.With("room", "api")})
	if err != nil {
		return err
	}
	c.gossip, err = fleet.Join(fleet.Config{
		Fleet: c.id.Fleet, Name: c.cfg.Control.Name, Key: c.id.GossipKey,
		Meta: fleet.Meta{Role: fleet.Control, Peer: config.Reach(l.Peer, l.Advertise), Version: c.build},
		Bind: l.Gossip, Advertise: config.Reach(l.Gossip, l.Advertise), SeedsFile: filepath.Join(state, "seeds.json"),
		Log: c.log.With("room", "fleet"),
		OnEvent: func(e fleet.Event) {
			c.log.Info("fleet: "+e.Kind.String(), "member", e.Member.Name, "pop", e.Member.Meta.PoP)
		},
	})
	return err
}

func storeConfig(cfg config.Control, log *slog.Logger) store.Config {
	return store.Config{Dir: filepath.Join(cfg.Control.State, "store"), URL: cfg.Store.URL,
		MaxBytes: cfg.Store.MaxBytes, Reserve: cfg.Store.ReserveBytes, Log: log.With("room", "store")}
}

// NewEpoch begins another epoch of a control node's store, which nobody uses meanwhile.
func NewEpoch(ctx context.Context, cfg config.Control) (uint64, error) {
	s, err := store.Open(ctx, storeConfig(cfg, slog.New(slog.DiscardHandler)))
	if err != nil {
		return 0, err
	}
	n, err := s.NewEpoch(ctx)
	return n, errors.Join(err, s.Close())
}

// prepare has a helper scan, split and snapshot a module.
func (c *control) prepare(ctx context.Context, module []byte, snapshot function.Snapshot) (api.Prepared, error) {
	p, err := compile.Prepare(ctx, c.helpers, module, snapshot)
	if err != nil {
		return api.Prepared{}, err
	}
	notes := p.Report.Snapshot.Notes
	if why := p.Report.Snapshot.Why; why != "" {
		notes = append(notes, "start-up runs again with each request: "+why)
	}
	return api.Prepared{Code: p.Code, Image: p.Image, Started: p.Started, Notes: notes}, nil
}

// members are the edge nodes membership knows.
func (c *control) members() []api.Member {
	var all []api.Member
	for _, m := range c.gossip.Members() {
		if m.Meta.Role == fleet.Node && m.Health != fleet.Left {
			all = append(all, api.Member{Name: m.Name, PoP: m.Meta.PoP, Region: m.Meta.Region, Public: m.Meta.Public, Peer: m.Meta.Peer, Alive: m.Health == fleet.Alive})
		}
	}
	return all
}

// announce tells the fleet of the catalog's head whenever it moves: a hint for
// a node whose stream is down. It ends with ctx.
func (c *control) announce(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		p := c.api.Head()
		if err := c.gossip.Announce(fleet.Head{Log: "catalog", Epoch: p.Epoch, Sequence: p.Revision}); err != nil {
			c.log.Debug("announce head", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// listen opens the sockets and serves on them.
func (c *control) listen() error {
	l := c.cfg.Listen
	host, _, err := net.SplitHostPort(config.Reach(l.API, l.Advertise))
	if err != nil {
		return err
	}
	conf, err := c.id.APITLS([]string{host, "localhost"})
	if err != nil {
		return err
	}
	member, err := c.id.Member()
	if err != nil {
		return err
	}
	if c.peer, err = peer.NewServer(peer.ServerConfig{Member: member, Handler: c.peerHandler()}); err != nil {
		return err
	}
	c.public = api.NewServer(c.api.Handler())
	c.public.TLSConfig = conf
	c.public.ErrorLog = slog.NewLogLogger(c.log.With("room", "api").Handler(), slog.LevelDebug)
	c.admin = &http.Server{Handler: c.adminHandler(), ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10}
	for _, s := range []struct {
		name, addr string
		serve      func(net.Listener) error
	}{
		{"api", l.API, func(l net.Listener) error { return c.public.ServeTLS(l, "", "") }},
		{"peer", l.Peer, c.peer.Serve},
		{"admin", l.Admin, c.admin.Serve},
	} {
		sock, err := net.Listen("tcp", s.addr)
		if err != nil {
			return fmt.Errorf("listen.%s: %w", s.name, err)
		}
		c.serving.Go(func() {
			if err := s.serve(sock); err != nil && !errors.Is(err, http.ErrServerClosed) {
				c.failed <- fmt.Errorf("%s listener: %w", s.name, err)
			}
		})
	}
	return nil
}

// peerHandler is what members may ask: the API's half for nodes, and fresh certificates and trust.
func (c *control) peerHandler() http.Handler {
	mux := http.NewServeMux()
	nodes := c.api.PeerHandler()
	mux.Handle("/", nodes)
	mux.HandleFunc("GET "+api.PeerBlobs+"/{digest}", func(w http.ResponseWriter, r *http.Request) {
		c.blobs.Add(1)
		nodes.ServeHTTP(w, r)
	})
	mux.Handle("GET "+peer.TrustPath, peer.TrustHandler(c.id.Anchor))
	mux.Handle("POST "+identity.RenewPath, peer.RenewHandler(c.id))
	return mux
}

// drain lets requests under way end; streams end at once, nodes follow again elsewhere or later.
func (c *control) drain() error {
	ctx, cancel := context.WithTimeout(context.Background(), drainLimit)
	defer cancel()
	err := errors.Join(c.public.Shutdown(ctx), c.peer.Close(ctx), c.admin.Shutdown(ctx))
	if gone := c.gossip.Leave(time.Second); gone != nil {
		c.log.Info("nodes will notice by themselves that this one went", "err", gone)
	}
	c.serving.Wait()
	return err
}

// close gives everything back, in the reverse order.
func (c *control) close() {
	if c.gossip != nil {
		_ = c.gossip.Close() // it has left, or never ran
	}
	if c.helpers != nil {
		_ = c.helpers.Close() // its end is this process's anyway
	}
	if c.store != nil {
		c.store.Close()
	}
}
