package node

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/peer"
	"github.com/selvage-edge/selvage/edge/forward"
)

// peerPort answers the other members of the fleet. It ends in two steps, because what
// other nodes hand on are requests of users: they have as long to end as users' own.
type peerPort struct {
	server  *peer.Server
	serving sync.WaitGroup // until it listens no more
	brief   sync.RWMutex   // held to read by whatever was not handed on
	once    sync.Once
	ending  sync.WaitGroup
	cut     context.CancelFunc // ends what is under way; set by retire
}

// newPeerPort serves what others hand on by passed, and everything else by rest.
func newPeerPort(m *identity.Member, passed http.HandlerFunc, rest http.Handler) (p *peerPort, err error) {
	p = &peerPort{}
	p.server, err = peer.NewServer(peer.ServerConfig{Member: m, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == forward.Path:
			passed(w, r)
		case !p.brief.TryRLock():
			http.Error(w, "this server ends; ask again", http.StatusServiceUnavailable)
		default:
			defer p.brief.RUnlock()
			rest.ServeHTTP(w, r)
		}
	})})
	return p, err
}

// begin returns what serves on l, until retire.
func (p *peerPort) begin(l net.Listener) func() error {
	p.serving.Add(1)
	return func() error {
		defer p.serving.Done()
		return p.server.Serve(l)
	}
}

// retire stops listening and ends streams. For other questions that are under way it waits
// up to limit, for what was handed on not at all: that goes on until finish.
func (p *peerPort) retire(limit time.Duration) {
	p.once.Do(func() {
		ctx, cut := context.WithCancel(context.Background())
		p.cut = cut
		quiet := make(chan struct{})
		p.ending.Go(func() { _ = p.server.Close(ctx) }) // who is cut off asks again
		p.ending.Go(func() { p.brief.Lock(); close(quiet) })
		p.serving.Wait()
		select {
		case <-quiet:
		case <-time.After(limit):
		}
	})
}

// finish comes after retire. It waits for what is under way, and cuts it when ctx ends.
func (p *peerPort) finish(ctx context.Context) {
	stop := context.AfterFunc(ctx, p.cut)
	p.ending.Wait()
	stop()
	p.cut()
}
