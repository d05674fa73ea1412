package fleet

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/selvage-edge/selvage/runtime/function"
)

// ErrDuplicate means that another live member has this node's name. Names are
// identities: give one of the two another name.
var ErrDuplicate = errors.New("fleet: another live member has this node's name")

// MaxMembers bounds the members remembered: who holds the key could invent any number.
const MaxMembers = 4096

// remember is how long a failed or departed member is still listed.
const remember = time.Hour

// Health is how a member is.
type Health uint8

// How a member can be.
const (
	Alive  Health = iota + 1
	Failed        // stopped answering
	Left          // said goodbye
)

// String returns "alive", "failed" or "left".
func (h Health) String() string {
	switch h {
	case Alive:
		return "alive"
	case Failed:
		return "failed"
	case Left:
		return "left"
	}
	return fmt.Sprintf("health(%d)", uint8(h))
}

// Member is one node or control node.
type Member struct {
	Name   string
	Meta   Meta
	Gossip netip.AddrPort
	Health Health
	Since  time.Time     // when Health became what it is
	Acked  time.Time     // the last answer to this node's own probe; zero before one
	RTT    time.Duration // that probe's round trip
}

// Labels are what the member says it is; of these its certificate proves those
// that function.Proven names.
func (m *Member) Labels() function.Labels {
	var more []string
	if m.Meta.Labels != "" {
		more = strings.Split(m.Meta.Labels, ",")
	}
	return function.LabelsOf(m.Name, m.Meta.PoP, m.Meta.Region, more)
}

// view is what this node knows of the members. memberlist's own list hands
// out pointers to what it changes; this is written from its callbacks instead.
type view struct {
	self      string
	refused   atomic.Uint64
	conflicts atomic.Uint64
	mu        struct {
		sync.Mutex
		byName  map[string]Member
		aliveN  int
		claimed netip.AddrPort // who else has our name
		when    time.Time
	}
}

func newView(self string) *view {
	v := &view{self: self}
	v.mu.byName = map[string]Member{}
	return v
}

// member copies what a callback lends. Its metadata was checked when it was
// let in (NotifyAlive), so a fault here is ours and leaves Meta empty.
func member(n *memberlist.Node) Member {
	ip, _ := netip.AddrFromSlice(n.Addr)
	meta, _ := DecodeMeta(n.Meta)
	return Member{Name: n.Name, Meta: meta, Gossip: netip.AddrPortFrom(ip.Unmap(), n.Port)}
}

// set notes n with health h and returns it as it now is.
func (v *view) set(n *memberlist.Node, h Health) Member {
	m := member(n)
	v.mu.Lock()
	defer v.mu.Unlock()
	old := v.mu.byName[m.Name]
	m.Health, m.Since, m.Acked, m.RTT = h, old.Since, old.Acked, old.RTT
	if old.Health != h {
		m.Since = time.Now()
	}
	v.mu.byName[m.Name] = m
	v.mu.aliveN += living(h) - living(old.Health)
	return m
}

func living(h Health) int {
	if h == Alive {
		return 1
	}
	return 0
}

// forget drops who is gone for long. v.mu is held.
func (v *view) forget() {
	for name, m := range v.mu.byName {
		if m.Health != Alive && time.Since(m.Since) > remember {
			delete(v.mu.byName, name)
		}
	}
}

func (v *view) acked(name string, rtt time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if m, ok := v.mu.byName[name]; ok {
		m.Acked, m.RTT = time.Now(), rtt
		v.mu.byName[name] = m
	}
}

// admits reports whether there is room for a member of that name.
func (v *view) admits(name string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, known := v.mu.byName[name]; known {
		return true
	}
	if len(v.mu.byName) >= MaxMembers {
		v.forget()
	}
	return len(v.mu.byName) < MaxMembers
}

func (v *view) conflict(name string, other netip.AddrPort) {
	v.conflicts.Add(1)
	if name != v.self {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mu.claimed, v.mu.when = other, time.Now()
}

func (v *view) duplicate() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.mu.when.IsZero() || time.Since(v.mu.when) > time.Minute {
		return nil
	}
	return fmt.Errorf("%w: %q at %s", ErrDuplicate, v.self, v.mu.claimed)
}

func (v *view) alive() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.mu.aliveN
}

func (v *view) get(name string) (Member, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	m, ok := v.mu.byName[name]
	return m, ok
}

func (v *view) snapshot(wanted func(*Member) bool) (list []Member) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.forget()
	var m Member // one for all: wanted may let it escape
	for _, m = range v.mu.byName {
		if wanted(&m) {
			list = append(list, m)
		}
	}
	slices.SortFunc(list, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

func anyone(*Member) bool { return true }

func (v *view) stats() Stats {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.forget()
	s := Stats{Conflicts: v.conflicts.Load(), Alive: v.mu.aliveN}
	for _, m := range v.mu.byName {
		if m.Health == Failed {
			s.Failed++
		}
	}
	return s
}
