package node

import (
	"net"
	"testing"
)

func TestSameAddress(t *testing.T) {
	at := func(text string) net.Addr {
		a, err := net.ResolveTCPAddr("tcp", text)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for _, c := range []struct {
		configured, socket string
		same               bool
	}{
		{"127.0.0.1:8443", "127.0.0.1:8443", true},
		{"127.0.0.1:0", "127.0.0.1:31234", true},
		{":8443", "[::]:8443", true},
		{"0.0.0.0:8443", "[::]:8443", true},
		{"[::1]:8443", "[::1]:8443", true},
		{"node.example:8443", "10.0.0.1:8443", true},
		{"127.0.0.1:9443", "127.0.0.1:8443", false},
		{"127.0.0.2:8443", "127.0.0.1:8443", false},
		{":8443", "127.0.0.1:8443", false},
		{"127.0.0.1:8443", "[::]:8443", false},
		{"node.example:1", "10.0.0.1:8443", false},
	} {
		if got := sameAddress(c.configured, at(c.socket)); got != c.same {
			t.Errorf("%s and a socket at %s: the same: %v", c.configured, c.socket, got)
		}
	}
}
