package listen_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"testing"

	"github.com/selvage-edge/selvage/bench/load"
	"github.com/selvage-edge/selvage/edge/listen"
	"github.com/selvage-edge/selvage/edge/listen/listentest"
)

// A client resumes its TLS session with the next server of a node, over TCP and QUIC.
func TestTicketsOfAnotherServer(t *testing.T) {
	store, client := listentest.Certificates(t, name)
	client.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	serve := func(key byte) *rig {
		r := &rig{sockets: listentest.Open(t), tls: client}
		r.server = listentest.Start(t, r.sockets, listen.Config{Certificate: store.Get, TicketKey: [32]byte{key},
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.TLS.DidResume {
					_, _ = io.WriteString(w, "resumed")
				}
			})})
		return r
	}
	first, second, stranger := serve(1), serve(1), serve(2)
	for _, p := range []load.Protocol{load.H1, load.H2, load.H3} {
		for _, tc := range []struct {
			at   *rig
			want string
		}{{first, ""}, {second, "resumed"}, {stranger, ""}} {
			client.ClientSessionCache = orNew(client.ClientSessionCache, tc.at == first)
			if got := get(tc.at.client(t, p), request(t, "GET", tc.at.url("/"), nil)); got != tc.want {
				t.Errorf("%s: %q, want %q", p, got, tc.want)
			}
		}
	}
}

func orNew(c tls.ClientSessionCache, fresh bool) tls.ClientSessionCache {
	if fresh {
		return tls.NewLRUClientSessionCache(8)
	}
	return c
}
