package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"
)

// Config says how a node takes part. Fleet, Name, Key, Bind and Meta are required.
type Config struct {
	Fleet string // the fleet's id, 1 to 255 bytes: packets of another fleet are dropped
	Name  string // this node's name, see ValidName; unique in the fleet
	Meta  Meta
	Key   []byte // the gossip key: 16, 24 or 32 bytes

	Bind      string        // ip:port for UDP and TCP; port 0 takes a free one
	Advertise string        // ip:port others reach; default Bind
	Seeds     []string      // host:port of members to look for
	SeedsFile string        // where addresses once seen are kept; "" keeps them in memory
	Rejoin    time.Duration // about how often someone missing is looked for; default 5 s

	OnEvent func(Event) // called by one goroutine, in order; may be nil
	OnHead  func(Head)  // a head newer than any heard of; called like OnEvent; may be nil
	Log     *slog.Logger

	Resolver  Resolver             // looks up seeds given by name; default net.DefaultResolver
	Transport memberlist.Transport // for simulated networks; default UDP and TCP on Bind
}

// Resolver looks up the addresses of a seed.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

func (c Config) withDefaults() Config {
	if c.Rejoin == 0 {
		c.Rejoin = 5 * time.Second
	}
	if c.OnEvent == nil {
		c.OnEvent = func(Event) {}
	}
	if c.OnHead == nil {
		c.OnHead = func(Head) {}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Resolver == nil {
		c.Resolver = net.DefaultResolver
	}
	return c
}

// Validate reports every fault of c.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, a ...any) { faults = append(faults, fmt.Errorf(format, a...)) }
	if len(c.Fleet) == 0 || len(c.Fleet) > memberlist.LabelMaxSize {
		fault("fleet id %.40q: want 1 to %d bytes", c.Fleet, memberlist.LabelMaxSize)
	}
	if err := ValidName(c.Name); err != nil {
		fault("node name: %w", err)
	}
	if n := len(c.Key); n != 16 && n != 24 && n != 32 {
		fault("gossip key: %d bytes, want 16, 24 or 32; gossip is never in the clear", n)
	}
	if bind, err := netip.ParseAddrPort(c.Bind); err != nil {
		fault("gossip bind %q: want ip:port", c.Bind)
	} else if bind.Addr().IsUnspecified() && c.Advertise == "" {
		fault("gossip bind %s: every address; set advertise to the one others reach", c.Bind)
	}
	if _, err := netip.ParseAddrPort(c.Advertise); c.Advertise != "" && err != nil {
		fault("gossip advertise %q: want ip:port", c.Advertise)
	}
	for _, s := range c.Seeds {
		if _, _, err := net.SplitHostPort(s); err != nil {
			fault("seed %q: want host:port", s)
		}
	}
	if c.Rejoin < 0 {
		fault("rejoin %v: want more than 0", c.Rejoin)
	}
	if _, err := c.Meta.Encode(); err != nil {
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// advertised is the address to tell others; its port is 0 when Bind's is.
func (c Config) advertised() netip.AddrPort {
	if c.Advertise != "" {
		return netip.MustParseAddrPort(c.Advertise)
	}
	return netip.MustParseAddrPort(c.Bind)
}

// ValidName accepts what names nodes, PoPs and regions: 1 to 63 of a-z, 0-9,
// "-" and ".", with a letter or digit at both ends.
func ValidName(s string) error {
	if len(s) == 0 || len(s) > 63 {
		return fmt.Errorf("%.80q: want 1 to 63 characters", s)
	}
	for i := range len(s) {
		alnum := s[i] >= 'a' && s[i] <= 'z' || s[i] >= '0' && s[i] <= '9'
		inner := (s[i] == '-' || s[i] == '.') && i > 0 && i < len(s)-1
		if !alnum && !inner {
			return fmt.Errorf("%q: want a-z, 0-9, and - or . between them", s)
		}
	}
	return nil
}
