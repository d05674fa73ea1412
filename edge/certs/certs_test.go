package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// write makes a self-signed pair for the names and returns its files.
func write(t *testing.T, dir, file string, until time.Time, names ...string) Pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: names, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	p := Pair{Cert: filepath.Join(dir, file+".crt"), Key: filepath.Join(dir, file+".key")}
	for name, block := range map[string]*pem.Block{p.Cert: {Type: "CERTIFICATE", Bytes: der}, p.Key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func nameOf(t *testing.T, s *Store, sni string) string {
	t.Helper()
	c, err := s.Get(&tls.ClientHelloInfo{ServerName: sni})
	if err != nil {
		t.Fatal(err)
	}
	return c.Leaf.DNSNames[0]
}

func TestGet(t *testing.T) {
	dir, later := t.TempDir(), time.Now().Add(time.Hour)
	s, err := Load([]Pair{
		write(t, dir, "default", later, "default.example"),
		write(t, dir, "wild", later, "*.example.com"),
		write(t, dir, "exact", later, "api.example.com", "b.example.com"),
	})
	if err != nil {
		t.Fatal(err)
	}
	for sni, want := range map[string]string{
		"api.example.com":   "api.example.com",
		"API.Example.com.":  "api.example.com",
		"www.example.com":   "*.example.com",
		"a.b.example.com":   "default.example",
		"example.com":       "default.example",
		"":                  "default.example",
		"elsewhere.example": "default.example",
	} {
		if got := nameOf(t, s, sni); got != want {
			t.Errorf("%q: got the certificate of %s, want %s", sni, got, want)
		}
	}
	if !s.Covers("api.example.com", "b.example.com") || s.Covers("api.example.com", "www.example.com") {
		t.Error("Covers does not follow the chosen certificate")
	}
}

func TestReload(t *testing.T) {
	dir, later := t.TempDir(), time.Now().Add(time.Hour)
	pair := write(t, dir, "a", later, "one.example")
	other := write(t, dir, "b", later, "other.example")
	s, err := Load([]Pair{pair, other})
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "a", later, "two.example")
	if err := s.Reload(); err != nil || nameOf(t, s, "") != "two.example" {
		t.Fatalf("after a change: %s, %v", nameOf(t, s, ""), err)
	}
	if infos := s.Infos(); len(infos) != 2 || infos[0].Names[0] != "two.example" || infos[0].Cert != pair.Cert {
		t.Fatalf("infos %+v", infos)
	}
	for what, spoil := range map[string]func(){
		"expired":  func() { write(t, dir, "a", time.Now().Add(-time.Hour), "three.example") },
		"not PEM":  func() { _ = os.WriteFile(pair.Cert, []byte("no"), 0o600) },
		"missing":  func() { _ = os.Remove(pair.Cert) },
		"mismatch": func() { write(t, dir, "a", later, "four.example"); _ = os.Rename(other.Key, pair.Key) },
	} {
		spoil()
		err := s.Reload()
		if err == nil || !strings.Contains(err.Error(), pair.Cert) {
			t.Errorf("%s: error %v, want one that names the file", what, err)
		}
		if got := nameOf(t, s, ""); got != "two.example" {
			t.Errorf("%s: serves %s", what, got)
		}
	}
}

func TestLoadNothing(t *testing.T) {
	if _, err := Load(nil); err == nil {
		t.Error("no pairs: want an error")
	}
}
