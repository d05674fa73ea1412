package identity

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
)

// TestClientTransport is the way of the command line's API calls.
func TestClientTransport(t *testing.T) {
	c, _ := newFleet(t, InitOptions{})
	other, _ := newFleet(t, InitOptions{})
	a := serveAPI(t, c, nil)
	_, port, _ := strings.Cut(a.addr, ":")
	for name, try := range map[string]struct {
		root KeyID
		host string
		ok   bool
	}{
		"by address":              {c.Root, "127.0.0.1", true},
		"by name":                 {c.Root, "localhost", true},
		"by another address":      {c.Root, "127.0.0.2", false},
		"another root":            {other.Root, "127.0.0.1", false},
		"a fingerprint of nobody": {"", "127.0.0.1", false},
	} {
		tr := ClientTransport(try.root, at(start))
		r, _ := http.NewRequestWithContext(context.Background(), http.MethodGet, "https://"+try.host+":"+port+TrustPath, nil)
		resp, err := tr.RoundTrip(r)
		if (err == nil) != try.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			if resp.ProtoMajor != 2 {
				t.Errorf("%s: %s", name, resp.Proto)
			}
			resp.Body.Close()
		}
		tr.CloseIdleConnections()
	}
	tr := ClientTransport(c.Root, at(start))
	r, _ := http.NewRequest(http.MethodGet, "http://"+a.addr+TrustPath, nil)
	if _, err := tr.RoundTrip(r); err == nil {
		t.Error("a token would go over plain HTTP")
	}
}

func TestExpect(t *testing.T) {
	c, _ := newFleet(t, InitOptions{})
	node := nodeOf(t, c)
	leaf := node.Member.leaf.cur.Load().Leaf
	for name, try := range map[string]struct {
		want Expect
		ok   bool
	}{
		"anyone":       {Expect{}, true},
		"a node":       {Expect{Kind: KindNode}, true},
		"this node":    {Expect{Kind: KindNode, Name: "edge-1"}, true},
		"another node": {Expect{Kind: KindNode, Name: "edge-2"}, false},
		"control":      {Expect{Kind: KindControl}, false},
		"any region":   {Expect{PoP: "fra"}, true},
		"no region":    {Expect{PoP: "fra", Exact: true}, false},
		"no PoP":       {Expect{Region: "eu", Exact: true}, false},
		"both":         {Expect{PoP: "fra", Region: "eu", Exact: true}, true},
	} {
		_, err := c.Anchor.Trust().CheckPeer(leaf, try.want, false)
		if (err == nil) != try.ok || err != nil && !errors.Is(err, ErrUntrusted) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
