package geodns

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"github.com/selvage-edge/selvage/edge/geo"
)

// MaxPoPs bounds a table.
const MaxPoPs = 4096

// MaxChoices is the most PoPs that one choice lists.
const MaxChoices = 8

// State is how a PoP is.
type State uint8

// The states, best first. A worse one is chosen only where no better is left.
const (
	Serving  State = iota // answers, and may be sent clients
	Draining              // answers, but nobody new should come, or its weight is 0
	Dead                  // does not answer
	states   = iota
)

// String returns "serving", "draining" or "dead".
func (s State) String() string {
	return [states]string{"serving", "draining", "dead"}[s]
}

// PoP is one point of presence, as the fleet knows it.
type PoP struct {
	Name      string
	Region    string
	Latitude  float64 // degrees
	Longitude float64
	Located   bool    // Latitude and Longitude were told
	Weight    float64 // share of its own clients that it takes, 0 to 1; the others go to the next
	Load      float64 // 0 to 1; from easeOff on it takes fewer
	State     State
	Addresses []netip.AddrPort // of its nodes in that state, where users reach them
}

// easeOff is the load from which a PoP passes clients on: all of them at 1.
const easeOff = 0.8

// share is how many of its clients a PoP takes, 0 to 1. One that is full still
// takes a few: what it is told of itself is some seconds old.
func (p *PoP) share() float64 {
	if p.Load <= easeOff {
		return p.Weight
	}
	return p.Weight * max(0.05, (1-min(p.Load, 1))/(1-easeOff))
}

func (p *PoP) validate() error {
	switch {
	case p.Name == "":
		return errors.New("a PoP without a name")
	case p.Located && !geo.ValidPosition(p.Latitude, p.Longitude):
		return fmt.Errorf("PoP %s: position %g, %g is not on the globe", p.Name, p.Latitude, p.Longitude)
	case !(p.Weight >= 0 && p.Weight <= 1) || !(p.Load >= 0 && p.Load <= 1):
		return fmt.Errorf("PoP %s: weight %g, load %g: want 0 to 1", p.Name, p.Weight, p.Load)
	case p.State >= states:
		return fmt.Errorf("PoP %s: state %d is not known", p.Name, p.State)
	}
	return nil
}

// Table is the fleet at one moment. It never changes: what is chosen from it
// depends on nothing but the table and the question.
type Table struct {
	pops  []PoP    // by name
	seeds []uint64 // a hash of each one's name
	at    []vector
	trees [states]tree
}

// NewTable makes a table. It keeps pops, which must not change any more.
func NewTable(pops []PoP) (*Table, error) {
	if len(pops) > MaxPoPs {
		return nil, fmt.Errorf("geodns: %d PoPs, at most %d", len(pops), MaxPoPs)
	}
	pops = slices.SortedFunc(slices.Values(pops), func(a, b PoP) int { return cmp.Compare(a.Name, b.Name) })
	t := &Table{pops: pops, seeds: make([]uint64, len(pops)), at: make([]vector, len(pops))}
	var members [states][]point
	var errs []error
	for i := range pops {
		p := &pops[i]
		if err := p.validate(); err != nil {
			errs = append(errs, err)
		}
		if i > 0 && pops[i-1].Name == p.Name {
			errs = append(errs, fmt.Errorf("PoP %s is there twice", p.Name))
		}
		t.seeds[i], t.at[i] = hashName(p.Name), vectorOf(p.Latitude, p.Longitude)
		if len(p.Addresses) == 0 || len(errs) > 0 {
			continue // nothing to answer with
		}
		s := p.State
		if s == Serving && p.Weight == 0 {
			s = Draining
		}
		members[s] = append(members[s], point{at: t.at[i], far: !p.Located, pop: int32(i)})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("geodns: %w", err)
	}
	for s := range members {
		t.trees[s] = plant(members[s])
	}
	return t, nil
}

// Len is how many PoPs the table has.
func (t *Table) Len() int { return len(t.pops) }

// PoPs returns them, by name. Do not write to them.
func (t *Table) PoPs() []PoP { return t.pops }

// Question is what a choice depends on, beside the table.
type Question struct {
	Latitude  float64
	Longitude float64
	Located   bool   // else every PoP is as near as any other
	Client    uint64 // a hash of the client's network: who is passed on, by weight and load
}

// Choice is one PoP of an answer.
type Choice struct {
	PoP    *PoP
	Passed bool    // it was nearer than the first, but passes this client on
	dist   float64 // the square of the straight line, in radii; NaN if either's position is not known
}

// Km is the way along the great circle; NaN if either's position is not known. It is
// worked out when asked for: answers need it not.
func (c Choice) Km() float64 { return kilometres(c.dist) }

// samePlace is the distance below which PoPs count as being in one place, and
// share its clients by weight, in km.
const samePlace = 1

// together reports whether two PoPs are in one place. Those of which nobody
// knows where they are count as one.
func (t *Table) together(a, b int32) bool {
	if !t.pops[a].Located || !t.pops[b].Located {
		return t.pops[a].Located == t.pops[b].Located
	}
	return square(t.at[a], t.at[b]) < (samePlace/earth)*(samePlace/earth)
}

// Choose writes the best PoPs for q to into, at most len(into) and MaxChoices,
// best first, and returns how many. Where a PoP serves, no draining one is among
// them, and where one drains, no dead one. It allocates nothing.
func (t *Table) Choose(q Question, into []Choice) int {
	into = into[:min(len(into), MaxChoices)]
	for s := range t.trees {
		if tr := &t.trees[s]; len(tr.points) > 0 {
			return t.chooseFrom(tr, q, into)
		}
	}
	return 0
}

func (t *Table) chooseFrom(tr *tree, q Question, into []Choice) int {
	var found nearest
	if q.Located {
		found.from = vectorOf(q.Latitude, q.Longitude)
		tr.search(&found)
	} else {
		t.spread(tr, q.Client, &found)
	}
	n := min(len(into), found.n)
	all := found.list[:found.n]
	t.shareByWeight(all, q)
	for i := range n {
		c := &all[i]
		into[i] = Choice{PoP: &t.pops[c.pop], Passed: c.passed, dist: math.NaN()}
		if q.Located && into[i].PoP.Located {
			into[i].dist = c.dist
		}
	}
	return n
}

// shareByWeight puts those to the end, in their order, that pass the client on;
// if all would, none does. Those in one place share it by weight.
func (t *Table) shareByWeight(all []candidate, q Question) {
	var kept, passed [MaxChoices]candidate
	k, p := 0, 0
	for from := 0; from < len(all); {
		to := from + 1
		for q.Located && to < len(all) && t.together(all[from].pop, all[to].pop) {
			to++
		}
		group := all[from:to]
		t.rank(group, q.Client)
		takes := 0.0
		for _, c := range group {
			takes += t.pops[c.pop].share()
		}
		keep := !q.Located || unit(mix(q.Client, t.seeds[group[0].pop])) < takes
		if len(group) > 1 {
			keep = unit(mix(q.Client, placeSeed)) < takes
		}
		for _, c := range group {
			if c.passed = !keep; keep {
				kept[k] = c
				k++
			} else {
				passed[p] = c
				p++
			}
		}
		from = to
	}
	copy(all, kept[:k])
	copy(all[k:], passed[:p])
	if k == 0 {
		for i := range all {
			all[i].passed = false
		}
	}
}

// placeSeed stands for a place with several PoPs, whichever of them is first.
const placeSeed = 0x5e1fa6e

// rank orders a group by weighted rendezvous hashing: each is first for its
// share of the clients, and a client changes only when its first is gone.
func (t *Table) rank(group []candidate, client uint64) {
	if len(group) < 2 {
		return
	}
	for i := range group {
		group[i].score = t.score(group[i].pop, client)
	}
	slices.SortFunc(group, func(a, b candidate) int { return cmp.Compare(b.score, a.score) })
}

// score is higher for who comes first. See "weighted rendezvous hashing", -w/ln(u).
func (t *Table) score(pop int32, client uint64) float64 {
	u := unit(mix(client, t.seeds[pop]) * 0x9e3779b97f4a7c15)
	return -max(t.pops[pop].share(), 1e-9) / math.Log(max(u, 1e-18))
}

// spread chooses where nothing is known of the client's place: among all, by weight.
func (t *Table) spread(tr *tree, client uint64, found *nearest) {
	for _, p := range tr.points {
		found.add(candidate{pop: p.pop, dist: -t.score(p.pop, client)})
	}
}

func hashName(s string) uint64 {
	h := uint64(14695981039346656037) // FNV-1a
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return mix(h, 0)
}

// mix is splitmix64's finaliser over both.
func mix(a, b uint64) uint64 {
	x := a ^ b*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// unit maps a hash to [0, 1).
func unit(h uint64) float64 { return float64(h>>11) / (1 << 53) }
