package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// ClientTLS returns the configuration of a client of the control API at host (a
// name or IP address) that knows only the root's fingerprint: the server must
// prove, in the handshake, that it is a control node of the fleet under that root, for host. TLS
// 1.3; HTTP/2 and 1.1. now is the clock; nil is time.Now.
func ClientTLS(root KeyID, host string, now func() time.Time) *tls.Config {
	return pinnedTLS(root, host, clock(now), func(*x509.Certificate) error { return nil })
}

func pinnedTLS(root KeyID, host string, now func() time.Time, also func(leaf *x509.Certificate) error) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2", "http/1.1"},
		ServerName: host,
		Time:       now,
		// The library's own check starts from a list of CAs; ours starts from the root's fingerprint.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if err := verifyPinned(s.PeerCertificates, root, host, now()); err != nil {
				return err
			}
			return also(s.PeerCertificates[0])
		},
	}
}

// ClientTransport returns an HTTP transport that checks every server as
// ClientTLS does. It uses no proxy. Close its idle connections when done.
func ClientTransport(root KeyID, now func() time.Time) *http.Transport {
	return pinnedTransport(root, clock(now), func(*x509.Certificate) error { return nil })
}

func pinnedTransport(root KeyID, now func() time.Time, also func(leaf *x509.Certificate) error) *http.Transport {
	dialer := &net.Dialer{Timeout: 4 * time.Second} // the kernel has asked three times by then
	return &http.Transport{
		// A dial of our own because the check needs the host, and a connection's state does not tell an IP address.
		DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			host, _, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			d := tls.Dialer{NetDialer: dialer, Config: pinnedTLS(root, host, now, also)}
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			return d.DialContext(ctx, network, addr)
		},
		DialContext:       refusePlain,
		ForceAttemptHTTP2: true,
		IdleConnTimeout:   90 * time.Second,
	}
}

func refusePlain(context.Context, string, string) (net.Conn, error) {
	return nil, errors.New("the control API is reached by https only")
}

// verifyPinned checks a server's chain down from a root's fingerprint.
func verifyPinned(chain []*x509.Certificate, root KeyID, host string, now time.Time) error {
	if len(chain) != 2 {
		return fmt.Errorf("%w: the server sent %d certificates where a control node sends its own and its CA's; check the address", ErrUntrusted, len(chain))
	}
	leaf, ca := chain[0], chain[1]
	d, err := proofOf(ca, root, now)
	if err != nil {
		return err
	}
	if err := verifyLeaf(leaf, []*x509.Certificate{ca}, x509.ExtKeyUsageServerAuth, now); err != nil {
		return err
	}
	if err := leaf.VerifyHostname(host); err != nil {
		return fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	_, err = checkPeer(leaf, d.Fleet, Expect{Kind: KindControl})
	return err
}

func verifyLeaf(leaf *x509.Certificate, cas []*x509.Certificate, usage x509.ExtKeyUsage, now time.Time) error {
	pool := x509.NewCertPool()
	for _, ca := range cas {
		pool.AddCert(ca)
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	if leaf.IsCA {
		return fmt.Errorf("%w: a CA's certificate does not serve", ErrUntrusted)
	}
	return nil
}

// Expect says whom a connection must reach. Zero fields match anything.
type Expect struct {
	Kind   Kind
	Name   string
	PoP    string
	Region string
	Exact  bool // PoP and Region are what the certificate says, also where they are empty
}

func checkPeer(leaf *x509.Certificate, fleet string, want Expect) (Peer, error) {
	p, err := PeerOf(leaf)
	switch {
	case err != nil:
		return p, fmt.Errorf("%w: %w", ErrUntrusted, err)
	case p.Fleet != fleet:
		return p, fmt.Errorf("%w: %s is of another fleet than %s", ErrUntrusted, p, fleet)
	case want.Kind != "" && p.Kind != want.Kind:
		return p, fmt.Errorf("%w: %s answered where a %s was to be", ErrUntrusted, p, want.Kind)
	case want.Name != "" && p.Name != want.Name:
		return p, fmt.Errorf("%w: %s answered where %s was to be", ErrUntrusted, p, want.Name)
	}
	if !want.stands(want.PoP, p.PoP) || !want.stands(want.Region, p.Region) {
		return p, fmt.Errorf("%w: %s is of PoP %q, region %q, not of %q, %q", ErrUntrusted, p, p.PoP, p.Region, want.PoP, want.Region)
	}
	return p, nil
}

// stands reports whether what a certificate says is what is wanted.
func (e Expect) stands(want, said string) bool { return want == said || want == "" && !e.Exact }

// CheckPeer verifies a leaf of this fleet: its chain, its end, that it was not
// revoked, and that it is whom want names. client says in which role it is shown.
func (t *Trust) CheckPeer(leaf *x509.Certificate, want Expect, client bool) (Peer, error) {
	usage := x509.ExtKeyUsageServerAuth
	if client {
		usage = x509.ExtKeyUsageClientAuth
	}
	if err := verifyLeaf(leaf, t.authorities(), usage, t.now()); err != nil {
		return Peer{}, err
	}
	if err := t.StillGood(leaf); err != nil {
		return Peer{}, err
	}
	return checkPeer(leaf, t.fleet, want)
}

// StillGood is the cheap part of CheckPeer, for each request on a connection
// that passed it: the leaf has not ended or been revoked since.
func (t *Trust) StillGood(leaf *x509.Certificate) error {
	if now := t.now(); now.After(leaf.NotAfter) {
		return fmt.Errorf("%w: the certificate of %s ended at %s", ErrUntrusted, leaf.Subject.CommonName, leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	if t.void[Serial(leaf)] {
		return fmt.Errorf("%w: the certificate of %s was revoked", ErrUntrusted, leaf.Subject.CommonName)
	}
	return nil
}
