package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"time"

	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/peer"
	"github.com/selvage-edge/selvage/edge/forward"
	"github.com/selvage-edge/selvage/edge/limit"
	"github.com/selvage-edge/selvage/edge/route"
	"github.com/selvage-edge/selvage/edge/serve"
	"github.com/selvage-edge/selvage/edge/telemetry"
	"github.com/selvage-edge/selvage/runtime/function"
)

// greeting answers as a function would that does nothing: what is measured is the way to it.
type greeting struct{}

func (greeting) Invoke(_ context.Context, w http.ResponseWriter, _ *http.Request, _ serve.Meta) (serve.Usage, error) {
	_, err := io.WriteString(w, "hello")
	return serve.Usage{}, err
}

// forwardRow asks one node over HTTP/2 for what it answers, and another for what it
// hands on to the first over mTLS, in turn; it is the median that the second takes longer.
func forwardRow(ctx context.Context, dir string, s size) (row, error) {
	control, _, err := identity.Init(filepath.Join(dir, "identity"), identity.InitOptions{})
	if err != nil {
		return row{}, err
	}
	member, err := control.Member()
	if err != nil {
		return row{}, err
	}
	here, err := forwardNode(greeting{}, nil)
	if err != nil {
		return row{}, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return row{}, err
	}
	peers, err := peer.NewServer(peer.ServerConfig{Member: member, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { here.ServePassed(w, r, "nyc-1") })})
	if err != nil {
		return row{}, errors.Join(err, l.Close())
	}
	served := make(chan error, 1)
	go func() { served <- peers.Serve(l) }()
	defer func() { _ = peers.Close(ctx); <-served }()
	to, err := peer.NewClient(peer.ClientConfig{Member: member, Expect: identity.Expect{Kind: identity.KindControl}, Addresses: []string{l.Addr().String()}})
	if err != nil {
		return row{}, err
	}
	defer to.Close()
	fw, err := forward.New(forward.Config{PoP: "nyc", Unsent: peer.Unsent, Peers: func(function.Placement) []forward.Peer { return []forward.Peer{{Name: "lon-1", PoP: "lon", Node: to}} }})
	if err != nil {
		return row{}, err
	}
	away, err := forwardNode(nil, fw)
	if err != nil {
		return row{}, err
	}
	return timeForward(here, away, s)
}

func forwardNode(f serve.Invoker, fw *forward.Forwarder) (*serve.Handler, error) {
	h, err := serve.New(serve.Config{Limiter: limit.New(limit.Config{}), Telemetry: telemetry.New(telemetry.Config{}), Forward: fw})
	if err != nil {
		return nil, err
	}
	v := &function.Version{ID: function.ID{Project: "bench", Name: "hello"}}
	t, err := route.Build([]serve.Entry{{Pattern: "*/*", Owner: v.ID.String(), Target: &serve.Target{Version: v, Invoker: f, Away: f == nil}}})
	if err != nil {
		return nil, err
	}
	h.SetRoutes(t)
	return h, nil
}

func timeForward(here, away http.Handler, s size) (row, error) {
	const each = 2000
	var clients [2]*httptest.Server
	for i, h := range []http.Handler{here, away} {
		clients[i] = httptest.NewUnstartedServer(h)
		clients[i].EnableHTTP2 = true
		clients[i].StartTLS()
		defer clients[i].Close()
	}
	var took [2][]float64
	for range each * s.rounds {
		for i, c := range clients {
			began := time.Now()
			if err := askForward(c); err != nil {
				return row{}, err
			}
			took[i] = append(took[i], float64(time.Since(began).Nanoseconds())/1e6)
		}
	}
	direct, passed := median(took[0]), median(took[1])
	r := row{Name: "geo/forward", Value: passed - direct, Unit: "ms", Against: fmt.Sprintf("direct %.3f ms", direct), Ratio: passed / direct, N: each * s.rounds}
	return r.atMost(passed-direct, 1, " ms"), nil
}

func askForward(s *httptest.Server) error {
	r, err := http.NewRequest(http.MethodGet, s.URL, nil)
	if err != nil {
		return err
	}
	resp, err := s.Client().Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != 200 || string(body) != "hello") {
		err = fmt.Errorf("geo/forward: %d %s", resp.StatusCode, body)
	}
	return err
}
