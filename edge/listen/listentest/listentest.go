// Package listentest opens loopback sockets, certificates and servers for tests.
package listentest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/edge/certs"
	"github.com/selvage-edge/selvage/edge/guard"
	"github.com/selvage-edge/selvage/edge/listen"
)

// Sockets are a TCP and a UDP socket on one loopback port, as a keeper owns them.
type Sockets struct {
	TCP *net.TCPListener
	UDP *net.UDPConn
}

// Open opens the sockets for the length of the test.
func Open(t testing.TB) Sockets {
	t.Helper()
	for range 20 {
		tcp, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: tcp.Addr().(*net.TCPAddr).Port})
		if err != nil {
			_ = tcp.Close()
			continue // that port is taken for UDP
		}
		t.Cleanup(func() { _ = tcp.Close(); _ = udp.Close() })
		return Sockets{tcp, udp}
	}
	t.Fatal("no port is free for both TCP and UDP")
	return Sockets{}
}

// Dup returns the same sockets under descriptors of their own, as a server
// process inherits them.
func (s Sockets) Dup(t testing.TB) (net.Listener, net.PacketConn) {
	t.Helper()
	tf, err := s.TCP.File()
	if err != nil {
		t.Fatal(err)
	}
	defer tf.Close()
	uf, err := s.UDP.File()
	if err != nil {
		t.Fatal(err)
	}
	defer uf.Close()
	tcp, err := net.FileListener(tf)
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.FilePacketConn(uf)
	if err != nil {
		t.Fatal(err)
	}
	return tcp, udp
}

// Addr is host:port of both.
func (s Sockets) Addr() string { return s.TCP.Addr().String() }

// Certificates makes a store with one certificate for the names, and what a
// client needs to trust it.
func Certificates(t testing.TB, names ...string) (*certs.Store, *tls.Config) {
	t.Helper()
	pair, client := Pair(t, names...)
	store, err := certs.Load([]certs.Pair{pair})
	if err != nil {
		t.Fatal(err)
	}
	return store, client
}

// Pair is Certificates before it is loaded: one file with both parts.
func Pair(t testing.TB, names ...string) (certs.Pair, *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	both := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), certPEM...)
	file := filepath.Join(t.TempDir(), "pair.pem")
	if err := os.WriteFile(file, both, 0o600); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certPEM)
	return certs.Pair{Cert: file, Key: file}, &tls.Config{RootCAs: roots, ServerName: names[0]}
}

// Start serves cfg on duplicates of the sockets until the test ends. Certificate
// must be set; Guard defaults to guard.Wire.
func Start(t testing.TB, s Sockets, cfg listen.Config) *listen.Server {
	t.Helper()
	cfg.TCP, cfg.UDP = s.Dup(t)
	if cfg.Guard == nil {
		cfg.Guard = func(c net.Conn) net.Conn { return guard.Wire(c, 5*time.Second) }
	}
	server, err := listen.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve() }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return server
}

// Context is a context that ends the test's waiting when something hangs.
func Context(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}
