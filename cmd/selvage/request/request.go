// Package request sends one HTTP request over the version that is asked for,
// to the address that is asked for, and tells what came back.
package request

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// Version is an HTTP version.
type Version string

// The versions.
const (
	HTTP1 Version = "1.1"
	HTTP2 Version = "2"
	HTTP3 Version = "3"
)

// Client sends requests of one version to one address.
type Client struct {
	version Version
	http    *http.Client
	close   func()
}

// Config says how a client connects.
type Config struct {
	Version Version
	Connect string // host:port to connect to in place of the URL's; empty: the URL's
	CAFile  string // PEM file trusted in place of the system's; empty: the system's
}

// New returns a client; it connects at the first request. Close it.
func New(c Config) (*Client, error) {
	roots, err := pool(c.CAFile)
	if err != nil {
		return nil, err
	}
	conf := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	cl := &Client{version: c.Version, http: &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	if c.Version == HTTP3 {
		tr := &http3.Transport{DisableCompression: true, TLSClientConfig: conf, QUICConfig: &quic.Config{HandshakeIdleTimeout: 5 * time.Second}}
		if c.Connect != "" {
			tr.Dial = func(ctx context.Context, _ string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
				return quic.DialAddr(ctx, c.Connect, tc, qc)
			}
		}
		cl.http.Transport, cl.close = tr, func() { _ = tr.Close() }
		return cl, nil
	}
	tr := &http.Transport{TLSClientConfig: conf, DisableCompression: true, Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP1(c.Version == HTTP1)
	tr.Protocols.SetHTTP2(c.Version == HTTP2)
	if c.Connect != "" {
		d := &net.Dialer{Timeout: 5 * time.Second}
		tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return d.DialContext(ctx, network, c.Connect)
		}
	}
	cl.http.Transport, cl.close = tr, tr.CloseIdleConnections
	return cl, nil
}

func pool(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("request: CA file: %w", err)
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("request: CA file %s holds no certificate in PEM", file)
	}
	return p, nil
}

// Answer is what came back. The caller closes Body.
type Answer struct {
	Proto     string
	Status    int
	Header    http.Header
	Body      io.ReadCloser
	FirstByte time.Duration // from the call to the response head
}

// NoAnswer reports that nobody answered over HTTP/3, which has no refusal of a connection.
func NoAnswer(err error) bool {
	var idle *quic.IdleTimeoutError
	var handshake *quic.HandshakeTimeoutError
	return errors.As(err, &idle) || errors.As(err, &handshake)
}

// Do sends r and returns once the response head is there. Redirects are not followed.
func (c *Client) Do(r *http.Request) (*Answer, error) {
	start := time.Now()
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, fmt.Errorf("request over HTTP/%s: %w", c.version, err)
	}
	return &Answer{Proto: resp.Proto, Status: resp.StatusCode, Header: resp.Header, Body: resp.Body, FirstByte: time.Since(start)}, nil
}

// Close drops the connections.
func (c *Client) Close() { c.close() }
