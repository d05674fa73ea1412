package geodns

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/selvage-edge/selvage/control/fleet"
	"github.com/selvage-edge/selvage/runtime/function"
)

// picture is all that answers come from and that changes: the fleet, and where hosts'
// functions run. It never changes itself.
type picture struct {
	all    *Table
	hosts  *Hosts // nil: all run anywhere
	placed []spot // by the index of hosts.pins
}

// spot is where a set of functions may run.
type spot struct {
	table *Table // nil: all nodes will do, or none that lives
	lost  bool   // none that lives
}

func (p *picture) at(name string) spot {
	if p.hosts == nil {
		return spot{}
	}
	return p.placed[p.hosts.of(name)]
}

// table is what a name is answered from: the nodes where some function of it may
// run, if one of them lives; else all, of which one hands its requests on, or
// says that they cannot be answered.
func (p *picture) table(name string) *Table {
	if t := p.at(name).table; t != nil {
		return t
	}
	return p.all
}

// pins are the name's; none if its functions run anywhere.
func (p *picture) pins(name string) pins {
	if p.hosts == nil {
		return nil
	}
	return p.hosts.pins[p.hosts.of(name)]
}

// newPicture makes a table of all nodes, and one of each set of nodes that hosts are pinned to.
func newPicture(members []fleet.Member, hosts *Hosts) (*picture, error) {
	all, err := NewTable(PoPsOf(members))
	if err != nil {
		return nil, err
	}
	p := &picture{all: all, hosts: hosts}
	if hosts == nil {
		return p, nil
	}
	p.placed = make([]spot, len(hosts.pins))
	labels := make([]function.Labels, len(members))
	for i := range members {
		labels[i] = members[i].Labels()
	}
	made := map[string]*Table{}
	var errs []error
	for i, where := range hosts.pins {
		some, key := allowed(members, labels, where)
		if len(some) == len(members) {
			continue
		}
		t, ok := made[key]
		if !ok {
			if t, err = NewTable(PoPsOf(some)); err != nil {
				errs = append(errs, fmt.Errorf("where %s: %w", where, err))
				continue
			}
			made[key] = t
		}
		if t.lives() {
			p.placed[i].table = t
		} else {
			p.placed[i].lost = true
		}
	}
	return p, errors.Join(errs...)
}

// allowed are the members that some pin allows; sets with one key are the same.
func allowed(members []fleet.Member, labels []function.Labels, where pins) (some []fleet.Member, key string) {
	bits := make([]byte, (len(members)+7)/8)
	for i := range members {
		if where.allows(labels[i]) {
			some = append(some, members[i])
			bits[i/8] |= 1 << (i % 8)
		}
	}
	return some, string(bits)
}

// lives reports whether some PoP of t answers.
func (t *Table) lives() bool { return len(t.trees[Serving].points)+len(t.trees[Draining].points) > 0 }

// has reports whether t has a PoP of that name.
func (t *Table) has(name string) bool {
	_, ok := slices.BinarySearchFunc(t.pops, name, func(p PoP, name string) int { return cmp.Compare(p.Name, name) })
	return ok
}

// standing is what answers depend on of a member.
type standing struct {
	name   string
	health fleet.Health
	meta   fleet.Meta
}

func standings(members []fleet.Member) []standing {
	all := make([]standing, len(members))
	for i, m := range members {
		all[i] = standing{m.Name, m.Health, m.Meta}
	}
	return all
}

// SetFleet has every later answer come from this fleet, and from where hosts'
// functions run; nil: anywhere. It keeps both.
func (s *Server) SetFleet(members []fleet.Member, hosts *Hosts) error {
	p, err := newPicture(slices.Clone(members), hosts)
	if p != nil && p.all != nil {
		s.now.Store(p) // where a set of nodes is not to be had, the fleet's nearest hands on
	}
	return err
}
