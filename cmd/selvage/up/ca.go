package up

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// Domain is what the local PoPs' certificate covers, with every name below it.
const Domain = "edge.localhost"

const certLife = 90 * 24 * time.Hour

func (l *Layout) certFile() string { return filepath.Join(l.Dir, "edge-ca", "pops.pem") }
func (l *Layout) keyFile() string  { return filepath.Join(l.Dir, "edge-ca", "pops.key") }

// writeCertificates makes a CA for this machine only and one certificate for the
// PoPs. The CA's key is thrown away: nobody can sign another name with it. A
// certificate that still holds for a week and names all addresses is kept.
func (l *Layout) writeCertificates() error {
	if l.certificateHolds(time.Now().Add(7 * 24 * time.Hour)) {
		return nil
	}
	ca, caKey, err := newCA()
	if err != nil {
		return fmt.Errorf("up: local CA: %w", err)
	}
	leaf, key, err := l.newLeaf(ca, caKey)
	if err != nil {
		return fmt.Errorf("up: local certificate: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("up: local certificate: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(l.EdgeCA), 0o700); err != nil {
		return fmt.Errorf("up: %w", err)
	}
	for path, block := range map[string]*pem.Block{
		l.EdgeCA:     {Type: "CERTIFICATE", Bytes: ca.Raw},
		l.certFile(): {Type: "CERTIFICATE", Bytes: leaf},
		l.keyFile():  {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			return fmt.Errorf("up: %w", err)
		}
	}
	return nil
}

func (l *Layout) certificateHolds(until time.Time) bool {
	text, err := os.ReadFile(l.certFile())
	if err != nil {
		return false
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return false
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil || c.NotAfter.Before(until) {
		return false
	}
	for _, n := range l.Edges {
		if c.VerifyHostname(n.Addr.String()) != nil {
			return false
		}
	}
	return true
}

func newCA() (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "selvage up, this machine only"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(certLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	c, err := x509.ParseCertificate(der)
	return c, key, err
}

func (l *Layout) newLeaf(ca *x509.Certificate, caKey *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: Domain},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(certLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{Domain, "*." + Domain, "localhost"},
	}
	for _, n := range l.Edges {
		t.IPAddresses = append(t.IPAddresses, net.IP(n.Addr.AsSlice()))
	}
	der, err := x509.CreateCertificate(rand.Reader, t, ca, key.Public(), caKey)
	return der, key, err
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		panic(err) // the kernel's generator does not fail
	}
	return n
}

// Certificate makes the certificate of one server at addr, and the CA that signed
// it, as files in dir; those that still hold are kept. The names are those of Domain.
func Certificate(dir string, addr netip.Addr) (cert, key, ca string, err error) {
	l := Layout{Options: Options{Dir: dir}, Edges: []Node{{Addr: addr}}, EdgeCA: filepath.Join(dir, "edge-ca", "ca.pem")}
	return l.certFile(), l.keyFile(), l.EdgeCA, l.writeCertificates()
}
