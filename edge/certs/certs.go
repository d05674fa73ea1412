// Package certs chooses the TLS certificate for a server name from PEM files,
// which are read again on demand and swapped whole.
package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Pair names the PEM files of one certificate chain and its private key. The
// same file may hold both.
type Pair struct {
	Cert string `json:"cert" toml:"cert"`
	Key  string `json:"key" toml:"key"`
}

// Store holds the certificates in use.
type Store struct {
	pairs   []Pair
	current atomic.Pointer[set]
	reload  sync.Mutex // one Reload at a time, so that an older set never replaces a newer
}

// set is one generation of certificates. It never changes.
type set struct {
	all   []*tls.Certificate
	exact map[string]*tls.Certificate // by lower-case name
	wild  map[string]*tls.Certificate // "*.example.com" as "example.com"
}

// Load reads the files. The first pair is the default: what a client gets that
// names no server, or one no certificate has.
func Load(pairs []Pair) (*Store, error) {
	if len(pairs) == 0 {
		return nil, errors.New("certificates: none configured; name at least one PEM pair")
	}
	s := &Store{pairs: pairs}
	if err := s.Reload(); err != nil {
		return nil, err
	}
	return s, nil
}

// Reload reads the files again and swaps all certificates at once. If any pair
// is bad (missing, not matching, expired) the old ones stay in use, and the
// error says which are bad. Connections that are open keep theirs.
func (s *Store) Reload() error {
	s.reload.Lock()
	defer s.reload.Unlock()
	next, err := read(s.pairs, time.Now())
	if err != nil {
		return err
	}
	s.current.Store(next)
	return nil
}

func read(pairs []Pair, now time.Time) (*set, error) {
	next := &set{exact: map[string]*tls.Certificate{}, wild: map[string]*tls.Certificate{}}
	var faults []error
	for _, p := range pairs {
		c, err := readPair(p, now)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		next.add(c)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return next, nil
}

func readPair(p Pair, now time.Time) (*tls.Certificate, error) {
	c, err := tls.LoadX509KeyPair(p.Cert, p.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", p.Cert, err)
	}
	if now.After(c.Leaf.NotAfter) {
		return nil, fmt.Errorf("certificate %s: expired on %s; renew it", p.Cert, c.Leaf.NotAfter.Format(time.DateOnly))
	}
	return &c, nil
}

// add files a certificate under its names; of two with one name the first is used.
func (s *set) add(c *tls.Certificate) {
	s.all = append(s.all, c)
	for _, name := range c.Leaf.DNSNames {
		name = strings.ToLower(name)
		m := s.exact
		if base, wild := strings.CutPrefix(name, "*."); wild {
			m, name = s.wild, base
		}
		if m[name] == nil {
			m[name] = c
		}
	}
	for _, ip := range c.Leaf.IPAddresses {
		if name := ip.String(); s.exact[name] == nil {
			s.exact[name] = c
		}
	}
}

// choose finds the certificate for a lower-case name: exact, wildcard (one
// label, RFC 9525 §6.3), default.
func (s *set) choose(name string) *tls.Certificate {
	if c := s.exact[name]; c != nil {
		return c
	}
	if _, base, ok := strings.Cut(name, "."); ok {
		if c := s.wild[base]; c != nil {
			return c
		}
	}
	return s.all[0]
}

// Get chooses the certificate of a handshake. It is a tls.Config.GetCertificate.
func (s *Store) Get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := strings.TrimSuffix(strings.ToLower(hello.ServerName), ".")
	if name == "" && hello.Conn != nil {
		name = hostOf(hello.Conn.LocalAddr().String())
	}
	return s.current.Load().choose(name), nil
}

// hostOf strips the port of an address.
func hostOf(addr string) string {
	if i := strings.LastIndexByte(addr, ':'); i >= 0 {
		addr = addr[:i]
	}
	return strings.Trim(addr, "[]")
}

// Covers reports whether the certificate chosen for the server name sni is good
// for host as well, so that a client may use one connection for both.
func (s *Store) Covers(sni, host string) bool {
	c := s.current.Load().choose(strings.ToLower(sni))
	return c.Leaf.VerifyHostname(host) == nil
}

// Info tells about one certificate in use.
type Info struct {
	Cert     string // the file
	Names    []string
	NotAfter time.Time
}

// Infos lists the certificates in use, in the order they were configured.
func (s *Store) Infos() []Info {
	all := s.current.Load().all
	infos := make([]Info, len(all))
	for i, c := range all {
		infos[i] = Info{Cert: s.pairs[i].Cert, Names: names(c.Leaf), NotAfter: c.Leaf.NotAfter}
	}
	return infos
}

func names(leaf *x509.Certificate) []string {
	all := append([]string(nil), leaf.DNSNames...)
	for _, ip := range leaf.IPAddresses {
		all = append(all, ip.String())
	}
	return all
}
