package node

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/peer"
	"github.com/selvage-edge/selvage/edge/forward"
)

// halves answers in two, the second when it may.
func halves(goOn <-chan struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-goOn:
			_, _ = io.WriteString(w, " and half")
		case <-r.Context().Done():
		}
	}
}

// A server that gives up its office no longer listens, has answered its peers, and lets
// what other nodes handed on end in its own time, up to where it is cut.
func TestHandedOnOutlivesTheOffice(t *testing.T) {
	join := joins(t)
	lon, nyc := join("lon-1", "lon", "eu"), join("nyc-1", "nyc", "us")
	for _, late := range []bool{false, true} {
		passed, brief := make(chan struct{}), make(chan struct{})
		p, err := newPeerPort(lon.Member, halves(passed), halves(brief))
		check(t, err)
		l := loopback(t)
		ended := make(chan error, 1)
		serve := p.begin(l)
		go func() { ended <- serve() }()
		c, err := peer.NewClient(peer.ClientConfig{Member: nyc.Member, Expect: identity.Expect{Name: "lon-1"}, Addresses: []string{l.Addr().String()}})
		check(t, err)
		defer c.Close()
		under := map[string]*http.Response{}
		for _, path := range []string{forward.Path, statusPath} {
			r, err := http.NewRequestWithContext(t.Context(), "GET", path, nil)
			check(t, err)
			under[path], err = c.Do(r)
			check(t, err)
			defer under[path].Body.Close()
		}
		retired := make(chan struct{})
		go func() { p.retire(time.Hour); close(retired) }()
		check(t, <-ended)
		if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
			c.Close()
			t.Error("it still listens")
		}
		select {
		case <-retired:
			t.Error("it has not waited for a question under way")
		default:
		}
		brief <- struct{}{}
		if b, err := io.ReadAll(under[statusPath].Body); string(b) != "half and half" || err != nil {
			t.Errorf("the question: %q, %v", b, err)
		}
		<-retired // though one that was handed on is under way
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		finished := make(chan struct{})
		go func() { p.finish(ctx); close(finished) }()
		if late {
			cancel()
			<-finished
			if b, err := io.ReadAll(under[forward.Path].Body); string(b) != "half" || err == nil || errors.Is(err, io.EOF) {
				t.Errorf("cut: %q, %v", b, err)
			}
			continue
		}
		passed <- struct{}{}
		if b, err := io.ReadAll(under[forward.Path].Body); string(b) != "half and half" || err != nil {
			t.Errorf("what was handed on: %q, %v", b, err)
		}
		<-finished
	}
}

// What did not begin ends as well.
func TestPeerPortUnused(t *testing.T) {
	p, err := newPeerPort(joins(t)("lon-1", "lon", "eu").Member, nil, nil)
	check(t, err)
	p.retire(time.Hour)
	p.retire(time.Hour)
	p.finish(t.Context())
	l := loopback(t)
	check(t, p.begin(l)())
}
