package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/control/bundle"
	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/control/changes"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/logs"
	"github.com/selvage-edge/selvage/control/store"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/quota"
)

// Prepared is what became of a module: code, image, and what to tell its author.
type Prepared struct {
	Code    []byte
	Image   []byte
	Started bool // the image was taken after start-up
	Notes   []string
}

// Member is one node as membership knows it.
type Member struct {
	Name, PoP, Region, Public string
	Peer                      string // host:port of its peer listener
	Alive                     bool
}

// Config says what the API stands on.
type Config struct {
	Store    *store.Store      // required
	Identity *identity.Control // required
	// Prepare splits a module into code and image, in a helper. Required. Errors the
	// author can do something about are *jail.Refused.
	Prepare func(ctx context.Context, module []byte, snapshot function.Snapshot) (Prepared, error)
	// Changes serves change streams to nodes on PeerHandler. Default: one over Store, signed by Identity.
	Changes *changes.ServerConfig
	// Members lists the nodes membership knows. Default: those that reported lately.
	Members func() []Member

	Seeds, Control, API []string // addresses told to joining nodes: gossip, peer, this API; host:port

	Bundle        bundle.Limits // of uploads
	PrepareAtOnce int           // modules prepared at once, one of them for another project; default 2
	BodyBytes     int64         // bytes of large request bodies held at once, half of them for one caller; default 512 MiB
	BodyWait      time.Duration // how long a request waits for room among those before it is refused; default 30 s, a node's 5 s
	AnswerBytes   int64         // bytes of answers with large values held at once, a quarter of them for one caller; default 512 MiB
	AnswerWait    time.Duration // how long a read waits for room among those before it is refused; default 5 s
	AwayAfter     time.Duration // a node silent for so long is not waited for; default 75 s
	NodeBody      time.Duration // how long a node may take to send a body; default a minute
	// Closing is closed when the servers are about to end: what waits for news is then answered. May be nil.
	Closing <-chan struct{}
	Log     *slog.Logger // default: none
	Now     func() time.Time

	watchAlive time.Duration // between signs of life of a watch; default 10 s
	watchWrite time.Duration // for a watcher to take what was written; default 15 s
}

// Validate reports what is missing.
func (c *Config) Validate() error {
	var faults []error
	if c.Store == nil {
		faults = append(faults, errors.New("api: no store"))
	}
	if c.Identity == nil {
		faults = append(faults, errors.New("api: no identity: run 'selvage control init' first"))
	}
	if c.Prepare == nil {
		faults = append(faults, errors.New("api: nothing to prepare modules with"))
	}
	return errors.Join(faults...)
}

func (c *Config) defaults() {
	if c.PrepareAtOnce <= 0 {
		c.PrepareAtOnce = 2
	}
	if c.BodyBytes <= 0 {
		c.BodyBytes = 512 << 20
	}
	if c.BodyWait <= 0 {
		c.BodyWait = 30 * time.Second
	}
	if c.AnswerBytes <= 0 {
		c.AnswerBytes = 512 << 20
	}
	if c.AnswerWait <= 0 {
		c.AnswerWait = 5 * time.Second
	}
	if c.AwayAfter <= 0 {
		c.AwayAfter = 75 * time.Second
	}
	if c.NodeBody <= 0 {
		c.NodeBody = time.Minute
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.watchAlive == 0 {
		c.watchAlive = logAlive
	}
	if c.watchWrite == 0 {
		c.watchWrite = logWrite
	}
	if c.Changes == nil {
		c.Changes = &changes.ServerConfig{}
	}
	if c.Bundle.PackedBytes == 0 {
		c.Bundle.PackedBytes = 64 << 20
	}
}

// API is the control API of one control node.
type API struct {
	cfg     Config
	state   *catalog.State
	changes *changes.Server
	board   *board
	limiter *limiter
	watches watches
	bodies  *quota.Pool // bytes of large bodies, by caller
	answers *quota.Pool // bytes with values, by token
	prepare *quota.Pool // modules, by project
	routes  []*route
	peers   []*route
	doc     []byte // the OpenAPI document
	logs    *logs.Hub
	member  *identity.Member // to speak to nodes
	signed  sync.Mutex       // held from reading the catalog to appending to it
	trusted sync.Mutex       // held from reading the trust to updating it
}

// Open reads the catalog and what nodes reported last, and takes the tokens that
// init made into the store. It starts nothing; there is nothing to close.
func Open(ctx context.Context, cfg Config) (*API, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.defaults()
	a := &API{
		cfg: cfg, board: newBoard(), limiter: newLimiter(cfg.Now),
		bodies:  newBodies(cfg.BodyBytes),
		answers: newAnswers(cfg.AnswerBytes),
		prepare: newPreparing(cfg.PrepareAtOnce),
	}
	if err := a.openLogs(); err != nil {
		return nil, err
	}
	a.routes, a.peers = a.publicRoutes(), a.peerRoutes()
	a.changes = changes.NewServer(a.changesConfig())
	var err error
	if a.doc, err = openAPI(a.routes); err != nil {
		return nil, err
	}
	if err := a.adoptTokens(ctx); err != nil {
		return nil, fmt.Errorf("api: take over the first tokens: %w", err)
	}
	if err := a.loadCatalog(ctx); err != nil {
		return nil, fmt.Errorf("api: read the catalog: %w", err)
	}
	if err := a.loadReports(ctx); err != nil {
		return nil, fmt.Errorf("api: read the last reports: %w", err)
	}
	return a, nil
}

func (a *API) changesConfig() changes.ServerConfig {
	c := *a.cfg.Changes
	c.Source, c.Allow = a.cfg.Store, a.mayFollow
	c.Verify = changes.VerifyWith(kept{a.cfg.Identity.Anchor})
	c.Ahead = func(ctx context.Context, log string, p changes.Position) {
		if err := a.cfg.Store.RolledBack(ctx, log, p.Epoch, p.Seq); err != nil {
			a.cfg.Log.Error("api: a node is ahead of the store", "log", log, "epoch", p.Epoch, "seq", p.Seq, "error", err)
		}
	}
	if c.Now == nil {
		c.Now = a.cfg.Now // one clock, whatever says the time
	}
	if c.Seal == nil {
		c.Seal = changes.SealWith(a.cfg.Identity.Changes)
	}
	return c
}

// Handler returns the API for developers, operators and joining nodes. Serve it
// over TLS (identity.Control.APITLS) with NewServer's limits.
func (a *API) Handler() http.Handler { return a.handler(a.routes) }

// PeerHandler returns the API for nodes. Serve it with control/peer.
func (a *API) PeerHandler() http.Handler { return a.handler(a.peers) }

// What one HTTP/2 connection may use. Its window has room for all of its streams': of those that wait for
// room for their bodies nothing is read, and they must not keep those that have it waiting.
const (
	maxStreams   = 100
	streamWindow = 512 << 10 // bytes
)

// NewServer returns an HTTP server with the limits the API wants; the caller serves and shuts it down.
func NewServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       10 * time.Minute, // the largest upload, over a slow line
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerStream: streamWindow, MaxReceiveBufferPerConnection: maxStreams * streamWindow},
	}
}

// Catalog returns the catalog as this control node knows it.
func (a *API) Catalog() *catalog.Snapshot { return a.state.Snapshot() }

// Changes returns the change streams' server, for its Stats.
func (a *API) Changes() *changes.Server { return a.changes }

// Head returns the catalog's epoch and revision, to announce.
func (a *API) Head() catalog.Position { return a.state.Snapshot().Position() }
