package serve_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/edge/forward"
	"github.com/selvage-edge/selvage/edge/geo"
	"github.com/selvage-edge/selvage/edge/limit"
	"github.com/selvage-edge/selvage/edge/route"
	"github.com/selvage-edge/selvage/edge/serve"
	"github.com/selvage-edge/selvage/edge/telemetry"
	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
)

// dialed reaches one node's listener for others over HTTP/2.
type dialed struct {
	*http.Client
	addr string
}

var errUnreached = errors.New("nobody is there")

func (d dialed) Do(r *http.Request) (*http.Response, error) {
	if d.addr == "" {
		if r.Body != nil {
			r.Body.Close() // as a transport does that cannot connect
		}
		return nil, errUnreached
	}
	r.URL = &url.URL{Scheme: "https", Host: d.addr, Path: r.URL.Path}
	return d.Client.Do(r)
}

// passedTo serves what others hand on to n, and returns it as a peer.
func passedTo(t *testing.T, n *node, name string) forward.Peer {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { n.ServePassed(w, r, "nyc-1") }))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return forward.Peer{Name: name, PoP: "lon", Node: dialed{s.Client(), s.Listener.Addr().String()}}
}

var gone = forward.Peer{Name: "gone-1", PoP: "par", Node: dialed{}}

// nodeWith is a node whose one function is f, or nothing if it must not run there;
// it hands exchanges on to peers.
func nodeWith(t *testing.T, f serve.Invoker, away bool, overflow float64, peers ...forward.Peer) (*node, *forward.Forwarder) {
	t.Helper()
	return nodeTraced(t, nil, f, away, overflow, peers...)
}

func nodeTraced(t *testing.T, tracer *telemetry.Tracer, f serve.Invoker, away bool, overflow float64, peers ...forward.Peer) (*node, *forward.Forwarder) {
	t.Helper()
	n := &node{limiter: limit.New(limit.Config{Rand: func(int64) int64 { return 2 }})}
	place := telemetry.Place{PoP: "nyc", Node: "nyc-1"}
	n.tel = telemetry.New(telemetry.Config{Place: place, Tracer: tracer, Log: telemetry.Direct{W: n, Place: place}})
	fw, err := forward.New(forward.Config{PoP: "nyc", Overflow: overflow,
		Peers:  func(function.Placement) []forward.Peer { return peers },
		Unsent: func(err error) bool { return errors.Is(err, errUnreached) },
		Where:  func(*forward.Envelope) *geo.Place { return &geo.Place{Country: "GB", City: "Łondon"} }})
	if err != nil {
		t.Fatal(err)
	}
	if n.Handler, err = serve.New(serve.Config{Limiter: n.limiter, Telemetry: n.tel, Place: place, Forward: fw}); err != nil {
		t.Fatal(err)
	}
	v := &function.Version{ID: function.ID{Project: "shop", Name: "cart"}, Digest: function.DigestOf(nil),
		Limits: function.Limits{Concurrency: 1, Queue: 1, QueueWait: time.Millisecond}, Placement: function.Placement{Include: []string{"pop=lon"}, Residency: f == nil}}
	routes, err := route.Build([]serve.Entry{{Pattern: "a.example/*", Owner: "shop/cart", Target: &serve.Target{Version: v, Invoker: f, Away: away}}})
	if err != nil {
		t.Fatal(err)
	}
	n.SetRoutes(routes)
	return n, fw
}

// The other node sees the client's request as this one did; the answer, its trailers
// included, comes back as it is.
func TestPassedOnWhole(t *testing.T) {
	type seen struct {
		meta  serve.Meta
		place *geo.Place
		head  http.Header
		body  string
		trail http.Header
	}
	got := make(chan seen, 1)
	lon, _ := nodeWith(t, invoker(func(ctx context.Context, w http.ResponseWriter, r *http.Request, m serve.Meta) (serve.Usage, error) {
		b, err := io.ReadAll(r.Body)
		got <- seen{m, geo.PlaceOf(ctx), r.Header.Clone(), string(b), r.Body.(interface{ Trailer() http.Header }).Trailer()}
		w.Header().Set("X-Said", "yes")
		w.Header().Set("Selvage-Not-Here", "a lie")
		w.Header().Set(http.TrailerPrefix+"X-Sum", "7")
		w.WriteHeader(201)
		io.WriteString(w, "made")
		return serve.Usage{}, err
	}), false, 0)
	nyc, fw := nodeWith(t, nil, true, 0, gone, passedTo(t, lon, "lon-1"))

	s := httptest.NewServer(nyc)
	defer s.Close()
	pr, pw := io.Pipe()
	r, err := http.NewRequest("POST", s.URL+"/a%2Fb?q=1", pr)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "A.example"
	r.Header = http.Header{"X-Mine": {"1", "2"}, "Cdn-Loop": {"other"}, "Connection": {"X-Hop"}, "X-Hop": {"no"}, "Selvage-Forward": {"forged"}, "Selvage-Geo-Country": {"XX"}}
	r.Trailer = http.Header{"X-After": nil}
	go func() {
		io.WriteString(pw, "streamed")
		r.Trailer["X-After"] = []string{"last"}
		pw.Close()
	}()
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 201 || string(body) != "made" || resp.Header.Get("X-Said") != "yes" || resp.Trailer.Get("X-Sum") != "7" {
		t.Fatalf("%d %q %v %v, %v", resp.StatusCode, body, resp.Header, resp.Trailer, err)
	}
	g := <-got
	if g.body != "streamed" || g.trail.Get("X-After") != "last" || g.meta.Authority != "a.example" || g.meta.Target != "/a%2Fb?q=1" ||
		g.meta.Protocol != "HTTP/1.1" || !g.meta.Client.Addr().IsLoopback() || g.meta.RequestID != resp.Header.Get(serve.RequestIDHeader) {
		t.Errorf("the other node saw %+v", g)
	}
	if g.place == nil || g.place.City != "Łondon" {
		t.Errorf("place %+v", g.place)
	}
	if loop := g.head.Get("Cdn-Loop"); loop != "other, selvage;pop=nyc" || g.head.Get("X-Hop") != "" || len(g.head["X-Mine"]) != 2 {
		t.Errorf("fields %v", g.head)
	}
	for name := range g.head {
		if strings.HasPrefix(name, "Selvage-") {
			t.Errorf("field %s came through", name)
		}
	}
	if st := fw.Stats(); st.Placed != 1 || st.Retried != 1 {
		t.Errorf("%+v", st)
	}
	id := function.ID{Project: "shop", Name: "cart"}
	if a, b := nyc.Tallies()[id], lon.Tallies()[id]; a != (serve.Tally{Passed: 1}) || b != (serve.Tally{Answered: 1}) {
		t.Errorf("nyc counted %+v, lon %+v", a, b)
	}
}

// It goes one step and no further; who must not run it says so, and the next is asked.
func TestPassedOnOnce(t *testing.T) {
	ran := invoker(func(_ context.Context, w http.ResponseWriter, _ *http.Request, _ serve.Meta) (serve.Usage, error) {
		_, err := io.WriteString(w, "here")
		return serve.Usage{}, err
	})
	lon, _ := nodeWith(t, ran, false, 0)
	par, _ := nodeWith(t, nil, true, 0, passedTo(t, lon, "lon-1")) // would hand it on itself
	empty := newNode(t, map[string]invoker{"b.example/*": ran})
	nyc, fw := nodeWith(t, nil, true, 0, passedTo(t, par, "par-1"), passedTo(t, empty, "new-1"), passedTo(t, lon, "lon-1"))
	if w := ask(nyc, "GET", "https://a.example/"); w.Code != 200 || w.Body.String() != "here" || w.Header().Get("Selvage-Not-Here") != "" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if par.Tallies()[function.ID{Project: "shop", Name: "cart"}].Passed != 0 || fw.Stats().Retried != 2 {
		t.Errorf("%+v", fw.Stats())
	}
	nyc, fw = nodeWith(t, nil, true, 0, passedTo(t, par, "par-1"), gone)
	problem(t, ask(nyc, "GET", "https://a.example/"), 503, "placement")
	if fw.Stats().Nowhere != 1 {
		t.Errorf("%+v", fw.Stats())
	}
	nyc, _ = nodeWith(t, ran, true, 0, gone) // no pin: it answers itself
	if w := ask(nyc, "GET", "https://a.example/"); w.Code != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if got := nyc.Tallies()[function.ID{Project: "shop", Name: "cart"}]; got != (serve.Tally{Answered: 1, Away: 1}) {
		t.Errorf("%+v", got)
	}
}

// What another node began is not begun again elsewhere.
func TestPassedOnIsNotRepeated(t *testing.T) {
	calls := 0
	lon, _ := nodeWith(t, invoker(func(context.Context, http.ResponseWriter, *http.Request, serve.Meta) (serve.Usage, error) {
		calls++
		panic(http.ErrAbortHandler)
	}), false, 0)
	at := passedTo(t, lon, "lon-1")
	nyc, fw := nodeWith(t, nil, true, 0, at, at)
	problem(t, ask(nyc, "GET", "https://a.example/"), 502, "forward")
	if calls != 1 || fw.Stats().Broken != 1 {
		t.Errorf("%d calls, %+v", calls, fw.Stats())
	}
}

// Who finds no room is handed on while the budget lasts, then shed.
func TestOverflow(t *testing.T) {
	lon, _ := nodeWith(t, invoker(func(_ context.Context, w http.ResponseWriter, _ *http.Request, _ serve.Meta) (serve.Usage, error) {
		_, err := io.WriteString(w, "lon")
		return serve.Usage{}, err
	}), false, 0)
	hold, begun := make(chan struct{}), make(chan struct{})
	busy := invoker(func(_ context.Context, w http.ResponseWriter, _ *http.Request, _ serve.Meta) (serve.Usage, error) {
		close(begun)
		<-hold
		return serve.Usage{}, nil
	})
	peer := passedTo(t, lon, "lon-1")
	full := peer
	full.Busy = true
	for _, c := range []struct {
		overflow float64
		peer     forward.Peer
		want     int
	}{{1, peer, 200}, {0, peer, 503}, {1, full, 503}, {1, gone, 503}} {
		hold, begun = make(chan struct{}), make(chan struct{})
		nyc, fw := nodeWith(t, busy, false, c.overflow, c.peer)
		over := make(chan struct{})
		go func() { defer close(over); ask(nyc, "GET", "https://a.example/") }()
		<-begun
		w := ask(nyc, "GET", "https://a.example/")
		if w.Code != c.want {
			t.Errorf("%+v: %d %s, %+v", c, w.Code, w.Body, fw.Stats())
		}
		if c.want == 503 {
			problem(t, w, 503, fault.Shed.String())
		}
		close(hold)
		<-over
	}
}

// Whoever is not a node's peer listener cannot hand anything on: an envelope that a
// client sends is dropped, and a false one refused.
func TestForgedEnvelopes(t *testing.T) {
	var m serve.Meta
	lon, _ := nodeWith(t, invoker(func(_ context.Context, w http.ResponseWriter, _ *http.Request, meta serve.Meta) (serve.Usage, error) {
		m = meta
		return serve.Usage{}, nil
	}), false, 0)
	r := httptest.NewRequest("GET", "https://a.example/", nil)
	r.RemoteAddr = "192.0.2.9:1234"
	r.Header.Set("Selvage-Forward", "eyJjbGllbnQiOiIxMC4wLjAuMTo4MCJ9")
	lon.ServeHTTP(httptest.NewRecorder(), r)
	if m.Client != netip.MustParseAddrPort("192.0.2.9:1234") {
		t.Errorf("the client is %v", m.Client)
	}
	for _, forged := range []string{"", "?", "e30", "bnVsbA"} {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "https://a.example/", nil)
		r.Header.Set("Selvage-Forward", forged)
		if lon.ServePassed(w, r, "nyc-1"); w.Code != 400 {
			t.Errorf("%q: %d %s", forged, w.Code, w.Body)
		}
	}
}

// What goes on is admitted too, by projects: one that has all it may is told to come
// back, another's goes on.
func TestGoingOnIsAdmitted(t *testing.T) {
	hold, begun := make(chan struct{}), make(chan struct{}, 9)
	slow := invoker(func(_ context.Context, w http.ResponseWriter, _ *http.Request, _ serve.Meta) (serve.Usage, error) {
		begun <- struct{}{}
		<-hold
		return serve.Usage{}, nil
	})
	routesTo := func(f serve.Invoker, away bool) *serve.Routes {
		var all []serve.Entry
		for host, id := range map[string]function.ID{"a.example": {Project: "shop", Name: "cart"}, "c.example": {Project: "shop", Name: "till"}, "b.example": {Project: "bank", Name: "desk"}} {
			v := &function.Version{ID: id, Digest: function.DigestOf(nil), Limits: function.Limits{QueueWait: time.Millisecond},
				Placement: function.Placement{Include: []string{"pop=lon"}, Residency: true}}
			all = append(all, serve.Entry{Pattern: host + "/*", Owner: id.Name, Target: &serve.Target{Version: v, Invoker: f, Away: away}})
		}
		routes, err := route.Build(all)
		if err != nil {
			t.Fatal(err)
		}
		return routes
	}
	lon, _ := nodeWith(t, slow, false, 0)
	lon.SetRoutes(routesTo(slow, false))
	nyc, fw := nodeWith(t, nil, true, 1, passedTo(t, lon, "lon-1"))
	onward := limit.New(limit.Config{Node: 2})
	var err error
	if nyc.Handler, err = serve.New(serve.Config{Limiter: nyc.limiter, Telemetry: nyc.tel, Forward: fw, Onward: onward}); err != nil {
		t.Fatal(err)
	}
	nyc.SetRoutes(routesTo(nil, true))
	over := make(chan int)
	for _, host := range []string{"a.example", "b.example"} {
		go func() { over <- ask(nyc, "GET", "https://"+host+"/").Code }()
		<-begun
		problem(t, ask(nyc, "GET", "https://c.example/"), 503, fault.Shed.String())
	}
	if st := onward.Stats(); st.Running != 2 || nyc.limiter.Stats().Running != 0 {
		t.Errorf("%+v go on, %+v run", st, nyc.limiter.Stats())
	}
	close(hold)
	for range 2 {
		if code := <-over; code != 200 {
			t.Errorf("what went on: %d", code)
		}
	}
	if w := ask(nyc, "GET", "https://c.example/"); w.Code != 200 || onward.Stats().Running != 0 {
		t.Errorf("afterwards: %d, %+v", w.Code, onward.Stats())
	}

	// What overflows is of them too, and does not wait a second time.
	taken, err := onward.Admit(t.Context(), function.ID{Project: "shop"}, function.Limits{}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Release()
	hold = make(chan struct{})
	nyc.SetRoutes(routesTo(slow, false))
	for range 1000 { // the default concurrency
		ticket, err := nyc.limiter.Admit(t.Context(), function.ID{Project: "shop", Name: "cart"}, function.Limits{}, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		defer ticket.Release()
	}
	problem(t, ask(nyc, "GET", "https://a.example/"), 503, fault.Shed.String())
	if st := fw.Stats(); st.Overflowed+st.Denied != 0 || nyc.limiter.Stats().Running != 1000 {
		t.Errorf("%+v", st)
	}
}
