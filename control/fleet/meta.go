package fleet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/hashicorp/memberlist"

	"github.com/selvage-edge/selvage/runtime/function"
)

// Role says what a member is.
type Role uint8

// The roles.
const (
	Node       Role = iota + 1 // serves requests
	Control                    // runs the API and the store
	NameServer                 // answers DNS, and nothing else
)

// String returns "node", "control" or "name server".
func (r Role) String() string {
	switch r {
	case Node:
		return "node"
	case Control:
		return "control"
	case NameServer:
		return "name server"
	}
	return fmt.Sprintf("role(%d)", uint8(r))
}

// Meta is what a member says of itself.
type Meta struct {
	Role    Role
	PoP     string // required of nodes
	Region  string // may be empty
	Public  string // host:port for clients; may be empty
	Peer    string // host:port for mTLS between members; may be empty
	Version string // of the software, up to 64 printable bytes
	Leaving bool   // it is about to go: send it nothing new; set by Leave

	Draining bool // it serves, but wants nobody new
	Site     Site // what DNS needs of nodes

	Labels string // what its operator calls it, as "key=value,key=value", see function.Labels; up to 128 bytes
}

// metaVersion starts the encoding: then the role, a byte of flags, five
// strings, each with its length in a uvarint, and the site and the labels if flags
// say so.
// Other flags, and bytes after all that, are a newer version's and ignored.
const metaVersion = 1

const (
	flagLeaving  = 1
	flagDraining = 2
	flagSite     = 4
	flagLabels   = 8
)

// Encode returns at most 512 bytes.
func (m Meta) Encode() ([]byte, error) {
	if err := m.validate(); err != nil {
		return nil, fmt.Errorf("node metadata: %w", err)
	}
	b := []byte{metaVersion, byte(m.Role), 0}
	if m.Leaving {
		b[2] |= flagLeaving
	}
	if m.Draining {
		b[2] |= flagDraining
	}
	if m.Site.Told {
		b[2] |= flagSite
	}
	if m.Labels != "" {
		b[2] |= flagLabels
	}
	for _, s := range m.strings() {
		b = appendText(b, *s)
	}
	if m.Site.Told {
		b = m.Site.append(b)
	}
	if m.Labels != "" {
		b = appendText(b, m.Labels)
	}
	if len(b) > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("node metadata: %d bytes, at most %d; shorten the addresses", len(b), memberlist.MetaMaxSize)
	}
	return b, nil
}

// DecodeMeta reads what another member sent. It keeps nothing of b.
func DecodeMeta(b []byte) (Meta, error) {
	if len(b) > memberlist.MetaMaxSize {
		return Meta{}, fmt.Errorf("node metadata: %d bytes, at most %d", len(b), memberlist.MetaMaxSize)
	}
	if len(b) < 3 || b[0] != metaVersion {
		return Meta{}, errors.New("node metadata: not of a known version")
	}
	m := Meta{Role: Role(b[1]), Leaving: b[2]&flagLeaving != 0, Draining: b[2]&flagDraining != 0}
	sited, labelled := b[2]&flagSite != 0, b[2]&flagLabels != 0
	b = b[3:]
	for _, s := range m.strings() {
		var ok bool
		if *s, b, ok = cutText(b); !ok {
			return Meta{}, errCut
		}
	}
	if sited {
		var err error
		if m.Site, b, err = decodeSite(b); err != nil {
			return Meta{}, fmt.Errorf("node metadata: %w", err)
		}
	}
	if labelled {
		var ok bool
		if m.Labels, _, ok = cutText(b); !ok {
			return Meta{}, errCut
		}
	}
	if err := m.validate(); err != nil {
		return Meta{}, fmt.Errorf("node metadata: %w", err)
	}
	return m, nil
}

var errCut = errors.New("node metadata: cut short")

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// cutText reads what appendText wrote.
func cutText(b []byte) (s string, rest []byte, ok bool) {
	n, used := binary.Uvarint(b)
	if used <= 0 || n > uint64(len(b)-used) {
		return "", nil, false
	}
	return string(b[used : used+int(n)]), b[used+int(n):], true
}

// strings lists the fields in the order of the encoding.
func (m *Meta) strings() []*string {
	return []*string{&m.PoP, &m.Region, &m.Public, &m.Peer, &m.Version}
}

func (m Meta) validate() error {
	var faults []error
	if m.Role < Node || m.Role > NameServer {
		faults = append(faults, fmt.Errorf("role %d is not known", m.Role))
	}
	if m.PoP != "" || m.Role == Node {
		faults = append(faults, wrap("pop", ValidName(m.PoP)))
	}
	if m.Region != "" {
		faults = append(faults, wrap("region", ValidName(m.Region)))
	}
	faults = append(faults, wrap("public address", validAddress(m.Public)), wrap("peer address", validAddress(m.Peer)))
	faults = append(faults, m.Site.validate(), validLabels(m.Labels))
	if len(m.Version) > 64 || !printable(m.Version) {
		faults = append(faults, fmt.Errorf("version %.40q: want up to 64 printable bytes", m.Version))
	}
	return errors.Join(faults...)
}

// maxLabels bounds the labels of a member, in bytes.
const maxLabels = 128

func validLabels(list string) error {
	if len(list) > maxLabels {
		return fmt.Errorf("labels: %d bytes, at most %d; give it fewer or shorter ones", len(list), maxLabels)
	}
	if list == "" {
		return nil
	}
	for s := range strings.SplitSeq(list, ",") {
		if l, err := function.ParseLabel(s); err != nil || l != s || function.Proven(s) {
			return fmt.Errorf("label %.140q: want key=value without spaces, and pop, region and node are not given so", s)
		}
	}
	return nil
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %w", what, err)
}

func validAddress(s string) error {
	if s == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" || port == "" || len(s) > 128 || !printable(s) {
		return fmt.Errorf("%.140q: want host:port", s)
	}
	return nil
}

// printable reports whether s is ASCII without spaces and control characters.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
