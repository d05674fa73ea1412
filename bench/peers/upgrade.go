package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/selvage-edge/selvage/bench/load"
	"github.com/selvage-edge/selvage/cmd/selvage/request"
	"github.com/selvage-edge/selvage/cmd/selvage/up"
)

// upgradeHost is the function's host in the fleet of these rows.
const upgradeHost = "hello.edge.localhost:8443"

// edgeNode is a control node and one edge node, as processes, that serve one function.
type edgeNode struct {
	fleet up.Fleet
	edge  up.Node
	tls   *tls.Config
	dir   string
}

// upgradeRows replaces and kills the server of a real node under load.
func upgradeRows(ctx context.Context, s size, selvage, only string, hello []byte) (rows []row, err error) {
	n, err := startNode(ctx, selvage, hello)
	if err != nil {
		return nil, err
	}
	defer n.stop()
	if wanted(only, "upgrade/") {
		if rows, err = n.upgrades(ctx, s.upgrade); err != nil {
			return rows, err
		}
	}
	if wanted(only, "crash/") {
		more, err := n.crashes(ctx, s.kills)
		return append(rows, more...), err
	}
	return rows, nil
}

func startNode(ctx context.Context, selvage string, hello []byte) (n *edgeNode, err error) {
	n = &edgeNode{}
	defer func() {
		if err != nil {
			n.stop()
		}
	}()
	if n.dir, err = os.MkdirTemp("", "selvage-bench-"); err != nil {
		return n, err
	}
	bin, err := filepath.Abs(selvage)
	if err != nil {
		return n, err
	}
	layout, err := up.Plan(up.Options{Dir: filepath.Join(n.dir, "fleet"), PoPs: 1, Base: netip.MustParseAddr("127.0.0.90"), Port: 8443})
	if err != nil {
		return n, err
	}
	n.fleet, n.edge = up.Fleet{Layout: layout, Selvage: bin}, layout.Edges[0]
	if err := n.fleet.Boot(ctx, func(string, ...any) {}); err != nil {
		return n, err
	}
	if err := n.deploy(ctx, hello); err != nil {
		return n, err
	}
	pem, err := os.ReadFile(n.fleet.EdgeCA)
	if err != nil {
		return n, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return n, fmt.Errorf("%s holds no certificate", n.fleet.EdgeCA)
	}
	n.tls = &tls.Config{RootCAs: roots}
	return n, nil
}

func (n *edgeNode) deploy(ctx context.Context, hello []byte) error {
	dir := filepath.Join(n.dir, "hello")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	manifest := []byte("name = \"hello\"\nroutes = [\"hello.edge.localhost/*\"]\n")
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "selvage.toml"), manifest, 0o644),
		os.WriteFile(filepath.Join(dir, "hello.wasm"), hello, 0o644)); err != nil {
		return err
	}
	_, err := n.fleet.Run(ctx, "deploy", "--wait", dir)
	return err
}

func (n *edgeNode) stop() {
	n.fleet.Stop()
	os.RemoveAll(n.dir)
}

// upgrades drives h1, h2 and h3 together with so many requests each, and
// upgrades the node again and again until the last is answered.
func (n *edgeNode) upgrades(ctx context.Context, requests int) ([]row, error) {
	protocols := []load.Protocol{load.H1, load.H2, load.H3}
	results := make([]load.Result, len(protocols))
	errs := make([]error, len(protocols))
	var left atomic.Int64
	left.Store(int64(len(protocols)))
	var loads sync.WaitGroup
	for i, p := range protocols {
		loads.Go(func() {
			defer left.Add(-1)
			results[i], errs[i] = load.Run(ctx, load.Config{URL: "https://" + upgradeHost + "/", Address: n.edge.Public,
				Protocol: p, TLS: n.tls, Connections: 8, Workers: 16, Rate: 400, Requests: requests, Check: said200})
		})
	}
	made := 0
	var err error
	for ; left.Load() > 0 && err == nil && ctx.Err() == nil; made++ {
		_, err = n.fleet.Run(ctx, "edge", "upgrade", "--config", n.edge.Config)
	}
	loads.Wait()
	if err := errors.Join(append(errs, err, ctx.Err())...); err != nil {
		return nil, fmt.Errorf("upgrade %d: %w", made, err)
	}
	var rows []row
	for i, p := range protocols {
		r := &results[i]
		if r.Failed > 0 {
			fmt.Fprintf(os.Stderr, "upgrade, %s: %v\n", p, r)
		}
		rows = append(rows, row{Name: "upgrade/failed-" + string(p), Value: float64(r.Failed), Unit: "requests",
			N: int(r.OK + r.Failed), goal: fmt.Sprintf("0, over %d upgrades", made), met: r.Failed == 0 && made > 0})
	}
	return rows, nil
}

func said200(status int, _ []byte) error {
	if status != http.StatusOK {
		return fmt.Errorf("status %d", status)
	}
	return nil
}

// crashes kills the server so many times, while it is under load, and notes how
// long each time until a request is answered again, and the connections refused.
func (n *edgeNode) crashes(ctx context.Context, kills int) ([]row, error) {
	stop, end := context.WithCancel(ctx)
	var busy sync.WaitGroup
	var dialled, refused int
	busy.Go(func() { dialled, refused = n.dial(stop) })
	busy.Go(func() { // its requests under way when a server dies are lost: they are load, not a figure
		_, _ = load.Run(stop, load.Config{URL: "https://" + upgradeHost + "/", Address: n.edge.Public, Protocol: load.H2,
			TLS: n.tls, Connections: 4, Workers: 8, Rate: 300, Duration: runLimit})
	})
	worst := time.Duration(0)
	var err error
	for range kills {
		var took time.Duration
		if took, err = n.kill(ctx); err != nil {
			break
		}
		worst = max(worst, took)
	}
	end()
	busy.Wait()
	if err != nil {
		return nil, err
	}
	return []row{
		{Name: "crash/refused", Value: float64(refused), Unit: "connections", N: dialled, goal: "0", met: refused == 0 && dialled > 0},
		{Name: "crash/recover", Value: worst.Seconds(), Unit: "s", N: kills, goal: "<= 1", met: worst <= time.Second},
	}, nil
}

// dial opens connections until ctx ends.
func (n *edgeNode) dial(ctx context.Context) (dialled, refused int) {
	for ; ctx.Err() == nil; dialled++ {
		c, err := net.DialTimeout("tcp", n.edge.Public, 10*time.Second)
		if err == nil {
			c.Close()
		} else {
			refused++
		}
		time.Sleep(time.Millisecond) // some hundred in a second
	}
	return dialled, refused
}

// kill kills the server, and returns when another has answered a request.
func (n *edgeNode) kill(ctx context.Context) (took time.Duration, err error) {
	pids, err := n.fleet.Edges[n.edge.Name].Servers()
	if err != nil || len(pids) != 1 {
		return 0, fmt.Errorf("servers %v: %w", pids, err)
	}
	begin := time.Now()
	if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
		return 0, err
	}
	c, err := request.New(request.Config{Version: request.HTTP2, Connect: n.edge.Public, CAFile: n.fleet.EdgeCA})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+upgradeHost+"/", nil)
		if err != nil {
			return 0, err
		}
		if a, err := c.Do(r); err == nil {
			a.Body.Close()
			if a.Status == http.StatusOK {
				return time.Since(begin), n.settle(ctx, pids[0])
			}
		}
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// settle waits until a server other than old is there, and lets it serve for a moment.
func (n *edgeNode) settle(ctx context.Context, old int) error {
	for ctx.Err() == nil {
		pids, err := n.fleet.Edges[n.edge.Name].Servers()
		if err == nil && len(pids) == 1 && pids[0] != old {
			time.Sleep(time.Second)
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return ctx.Err()
}
