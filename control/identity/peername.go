package identity

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Kind is what a process of the fleet is.
type Kind string

// The kinds.
const (
	KindNode    Kind = "node"
	KindControl Kind = "control"
)

// Peer is who a certificate names.
type Peer struct {
	Fleet  string
	Kind   Kind
	Name   string
	PoP    string // nodes only
	Region string // nodes only; may be empty
}

const scheme = "selvage"

// String returns the name's URI: "selvage://FLEET/node/NAME".
func (p Peer) String() string { return scheme + "://" + p.Fleet + "/" + string(p.Kind) + "/" + p.Name }

// Validate reports every fault of the name.
func (p Peer) Validate() error {
	errs := []error{CheckName("fleet", p.Fleet), CheckName(string(p.Kind), p.Name)}
	switch p.Kind {
	case KindNode:
		errs = append(errs, CheckName("pop", p.PoP))
		if p.Region != "" {
			errs = append(errs, CheckName("region", p.Region))
		}
	case KindControl:
		if p.PoP != "" || p.Region != "" {
			errs = append(errs, errors.New("a control node is in no PoP or region"))
		}
	default:
		errs = append(errs, fmt.Errorf("kind %q: want node or control", p.Kind))
	}
	return errors.Join(errs...)
}

// uris are the names that a leaf carries for p.
func (p Peer) uris() []*url.URL {
	uris := []*url.URL{{Scheme: scheme, Host: p.Fleet, Path: "/" + string(p.Kind) + "/" + p.Name}}
	if p.PoP != "" {
		uris = append(uris, &url.URL{Scheme: scheme, Host: p.Fleet, Path: "/pop/" + p.PoP})
	}
	if p.Region != "" {
		uris = append(uris, &url.URL{Scheme: scheme, Host: p.Fleet, Path: "/region/" + p.Region})
	}
	return uris
}

// PeerOf reads the identity in a leaf; it does not verify the certificate.
func PeerOf(leaf *x509.Certificate) (Peer, error) {
	var p Peer
	for _, u := range leaf.URIs {
		if err := p.take(u); err != nil {
			return Peer{}, fmt.Errorf("certificate name %.200q: %w", u, err)
		}
	}
	if err := p.Validate(); err != nil {
		return Peer{}, fmt.Errorf("certificate names: %w", err)
	}
	return p, nil
}

// take reads one name. Each part may be said once, and all of one fleet.
func (p *Peer) take(u *url.URL) error {
	what, name, ok := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	if !ok || u.Scheme != scheme || u.String() != scheme+"://"+u.Host+"/"+what+"/"+name {
		return errors.New("not of the form selvage://FLEET/KIND/NAME")
	}
	if p.Fleet != "" && p.Fleet != u.Host {
		return errors.New("of two fleets")
	}
	p.Fleet = u.Host
	switch what {
	case "pop":
		return once(&p.PoP, name)
	case "region":
		return once(&p.Region, name)
	}
	if p.Kind != "" {
		return errors.New("two identities")
	}
	p.Kind, p.Name = Kind(what), name
	return nil
}

func once(field *string, value string) error {
	if *field != "" {
		return errors.New("said twice")
	}
	*field = value
	return nil
}
