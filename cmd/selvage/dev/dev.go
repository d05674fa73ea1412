// Package dev serves one function on this machine while it is written: the real
// runtime, HTTP/1.1, 2 and 3 on one address, and each saved change live as soon
// as it is built.
//
// What is quicker here than on a node, and why: code is compiled without
// optimization (and gets ten times the processor time of its limit), and start-up
// runs for each request instead of once at deploy.
package dev

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/selvage-edge/selvage/cmd/selvage/up"
	"github.com/selvage-edge/selvage/control/store"
	"github.com/selvage-edge/selvage/edge/certs"
	"github.com/selvage-edge/selvage/edge/fetch"
	"github.com/selvage-edge/selvage/edge/guard"
	"github.com/selvage-edge/selvage/edge/limit"
	"github.com/selvage-edge/selvage/edge/listen"
	"github.com/selvage-edge/selvage/edge/serve"
	"github.com/selvage-edge/selvage/edge/telemetry"
	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/hostcall"
	"github.com/selvage-edge/selvage/runtime/pool"
)

// Config says what is served.
type Config struct {
	Addr  netip.AddrPort // of this machine; TCP and UDP
	State string         // folder for the certificate, KV and compiled code
	Lines io.Writer      // gets the log, as JSON lines
}

// place is what the function is told of where it runs.
var place = telemetry.Place{PoP: "dev", Node: "dev", Region: "local"}

// Server serves the newest version that could be built. Close it.
type Server struct {
	CAFile string // signed the certificate
	engine *engine.Engine
	code   *compiler
	pool   *pool.Pool
	kv     *namespaces
	fetch  *fetch.Client
	log    *telemetry.Log
	routes *serve.Handler
	public *listen.Server
	ports  guest.Ports
	now    *pool.Function // the version that is served; nil: none yet
	halves *halves        // of it
	served chan error
}

// Open listens and serves: 503 until the first Load.
func Open(cfg Config) (s *Server, err error) {
	s = &Server{served: make(chan error, 1), kv: &namespaces{dir: filepath.Join(cfg.State, "kv")}}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.engine, err = engine.Open(engine.Config{ParallelCompile: true, QuickCompile: true}); err != nil {
		return nil, err
	}
	if s.code, err = openCompiler(s.engine, cfg.State); err != nil {
		return nil, err
	}
	if s.pool, err = pool.Open(pool.Config{Engine: s.engine, Compiler: s.code, Linger: time.Second}); err != nil {
		return nil, err
	}
	// Backends of a developer are on the developer's machine.
	if s.fetch, err = fetch.New(fetch.Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}}); err != nil {
		return nil, err
	}
	s.log = telemetry.NewLog(cfg.Lines, telemetry.LogConfig{Place: place})
	s.ports = guest.Ports{KV: s.kv, Fetch: s.fetch} // Log is each version's
	return s, s.listen(cfg)
}

func (s *Server) listen(cfg Config) error {
	cert, key, ca, err := up.Certificate(cfg.State, cfg.Addr.Addr())
	if err != nil {
		return err
	}
	s.CAFile = ca
	shown, err := certs.Load([]certs.Pair{{Cert: cert, Key: key}})
	if err != nil {
		return err
	}
	s.routes, err = serve.New(serve.Config{Limiter: limit.New(limit.Config{}), Telemetry: telemetry.New(telemetry.Config{Place: place, Log: s.log}), Place: place, Covers: shown.Covers})
	if err != nil {
		return err
	}
	tcp, err := net.Listen("tcp", cfg.Addr.String())
	if err != nil {
		return fmt.Errorf("%w: give another address with --listen", err)
	}
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(cfg.Addr))
	if err != nil {
		return errors.Join(fmt.Errorf("%w: give another address with --listen", err), tcp.Close())
	}
	lc := listen.Config{TCP: tcp, UDP: udp, Certificate: shown.Get, Handler: s.routes, Guard: func(c net.Conn) net.Conn { return guard.Wire(c, 5*time.Second) }}
	_, _ = rand.Read(lc.TicketKey[:]) // never fails
	if s.public, err = listen.New(lc); err != nil {
		return errors.Join(err, tcp.Close(), udp.Close())
	}
	go func() { s.served <- s.public.Serve() }()
	return nil
}

// Close ends what is under way.
func (s *Server) Close() error {
	var errs []error
	if s.public != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		errs = append(errs, ignoreClosed(s.public.Drain(ctx)), ignoreClosed(<-s.served))
		cancel()
	}
	if s.pool != nil {
		errs = append(errs, s.pool.Close())
	}
	if s.code != nil {
		errs = append(errs, s.code.close())
	}
	if s.fetch != nil {
		s.fetch.Close()
	}
	errs = append(errs, s.kv.close())
	if s.engine != nil {
		errs = append(errs, s.engine.Close())
	}
	if s.log != nil {
		errs = append(errs, s.log.Close())
	}
	return errors.Join(errs...)
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// Served yields what ended the serving.
func (s *Server) Served() <-chan error { return s.served }

// namespaces is KV in a store of the developer's own, opened when it is first
// used. Every namespace is there.
type namespaces struct {
	dir   string
	store *store.Store
}

// open is called before a version that binds KV is served, never while one is.
func (n *namespaces) open(ctx context.Context) (err error) {
	if n.store != nil {
		return nil
	}
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return err
	}
	n.store, err = store.Open(ctx, store.Config{Dir: n.dir, MaxBytes: 1 << 30, Reserve: 1})
	return err
}

func (n *namespaces) close() error {
	if n.store == nil {
		return nil
	}
	return n.store.Close()
}

var errNoKV = fmt.Errorf("no KV is bound: %w", hostcall.ErrDenied)

func (n *namespaces) Get(ctx context.Context, ns hostcall.Namespace, key string) (hostcall.Entry, error) {
	if n.store == nil {
		return hostcall.Entry{}, errNoKV
	}
	return n.store.KV().Get(ctx, ns, key)
}

func (n *namespaces) Put(ctx context.Context, ns hostcall.Namespace, key string, value []byte, o hostcall.PutOptions) (uint64, error) {
	if n.store == nil {
		return 0, errNoKV
	}
	return n.store.KV().Put(ctx, ns, key, value, o)
}

func (n *namespaces) Delete(ctx context.Context, ns hostcall.Namespace, key string, ifRevision int64) (uint64, error) {
	if n.store == nil {
		return 0, errNoKV
	}
	return n.store.KV().Delete(ctx, ns, key, ifRevision)
}

func (n *namespaces) List(ctx context.Context, ns hostcall.Namespace, prefix, cursor string, limit int) ([]hostcall.KeyInfo, string, error) {
	if n.store == nil {
		return nil, "", errNoKV
	}
	return n.store.KV().List(ctx, ns, prefix, cursor, limit)
}

func (n *namespaces) Read(ctx context.Context, ns hostcall.Namespace, keys []string, o hostcall.ReadOptions) ([]hostcall.Result, error) {
	if n.store == nil {
		return nil, errNoKV
	}
	return n.store.KV().Read(ctx, ns, keys, o)
}

func (n *namespaces) Increment(ctx context.Context, ns hostcall.Namespace, key string, delta int64) (int64, uint64, error) {
	if n.store == nil {
		return 0, 0, errNoKV
	}
	return n.store.KV().Increment(ctx, ns, key, delta)
}
