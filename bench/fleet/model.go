// Package fleet is a whole fleet in one process over a simulated network, in virtual time.
//
// Real are: membership (control/fleet, over memberlist), the change streams (control/changes:
// server, batches, signatures, relays, followers), who follows whom (control/agent) and the KV of
// each node (edge/kv). Modelled are: packets and streams, with latency by distance, loss and cuts (loss in a stream
// is delay, as TCP's retransmissions have it; what HTTP/2, TLS, TCP and IP add to its bytes is counted), control's store, which
// takes writes in no time, and processors, which take none. The signature of equal bytes is verified once for all nodes.
package fleet

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/control/changes"
	"github.com/selvage-edge/selvage/control/fleet"
	"github.com/selvage-edge/selvage/control/identity"
)

// Plan is what is done to the fleet, in this order.
type Plan struct {
	Seed  uint64  // of places, loss, keys, and who is cut off and killed. Goroutines take their turns as they like: what membership draws itself differs
	Nodes int     //
	PoPs  int     // nodes are spread evenly
	Loss  float64 // of packets between PoPs

	Writes  int           // a second, of 100 bytes
	Measure time.Duration // how long that is measured

	Cut  time.Duration // a third of the PoPs is cut off for so long, while one write a second goes on; 0: none
	Kill int           // nodes that others follow are killed, and started again 20 s later
}

// Figures are what came of it; times are virtual.
type Figures struct {
	P50, P99  time.Duration // from a write's acknowledgement to where it is applied, over all nodes
	Samples   int           // of that
	Bytes     float64       // a second and node, of all traffic, each counted where it is sent
	Heal      time.Duration // from the end of the cut until all nodes had what was written until then
	Replaced  time.Duration // from the kill until all others had what was written a second after
	Asides    int           // times a node passed over its parent
	Converged time.Duration // from when membership began until all knew all
	Checked   int           // answers of nodes' stores that were compared with the truth
}

// Most of what may take long, in virtual time: more is a fault.
const (
	mostJoin = 10 * time.Minute
	mostHeal = 2 * time.Minute
)

// world is one run.
type world struct {
	Plan
	mesh    *mesh
	truth   *truth
	r       *rand.Rand
	home    place
	control *host
	member  *fleet.Fleet // control's
	seeds   []string
	sealed  verdicts
	trust   func([]byte) ([]byte, error)
	keys    []string
	mu      struct {
		sync.Mutex
		nodes   []*node
		byName  map[string]*node
		measure bool
		delays  []time.Duration
		asides  int
	}
}

// verdicts remember what verification made of bytes.
type verdicts struct {
	sync.Mutex
	known map[[32]byte]verdict
}

type verdict struct {
	payload []byte
	err     error
}

// Run does a plan and returns what came of it. It is to be called in a testing/synctest
// bubble, and keeps keys in dir. An error says what did not hold.
func Run(p Plan, dir string) (f Figures, err error) {
	w := &world{Plan: p, truth: newTruth(), r: rand.New(rand.NewPCG(p.Seed, 1))}
	w.mesh = newMesh(rand.New(rand.NewPCG(p.Seed, 2)))
	w.mu.byName, w.sealed.known = map[string]*node{}, map[[32]byte]verdict{}
	w.seeds = []string{address(0).String(), address(1).String(), address(2).String()}
	for i := range 200 {
		w.keys = append(w.keys, fmt.Sprintf("key/%03d", i))
	}
	defer func() {
		err = errors.Join(err, w.end())
		if err != nil {
			err = fmt.Errorf("seed %d: %w", p.Seed, err)
		}
	}()
	if err := w.open(dir); err != nil {
		return f, err
	}
	for _, part := range []func(*Figures) error{w.converge, w.steady, w.cut, w.killed, w.settle} {
		if err := part(&f); err != nil {
			return f, err
		}
	}
	f.Asides = w.mu.asides
	return f, nil
}

func address(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 7946)
}

// open starts control and every node.
func (w *world) open(dir string) error {
	id, _, err := identity.Init(dir, identity.InitOptions{})
	if err != nil {
		return err
	}
	w.trust = changes.VerifyWith(id.Anchor)
	w.home = somewhere(w.r, "control")
	w.control = newHost(w.mesh, w.home, changes.NewServer(changes.ServerConfig{Source: w.truth, Seal: changes.SealWith(id.Changes)}))
	if w.member, err = w.join("control", w.home, address(0), fleet.Control, nil); err != nil {
		return err
	}
	pops := make([]place, w.PoPs)
	for i := range pops {
		pops[i] = somewhere(w.r, fmt.Sprint("pop-", i))
	}
	for i := range w.Nodes {
		n, err := w.start(fmt.Sprint("node-", i), pops[i%w.PoPs], address(i+1))
		if err != nil {
			return err
		}
		w.mu.nodes, w.mu.byName[n.name] = append(w.mu.nodes, n), n
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

// end stops everything and lets what memberlist still has under way run out.
func (w *world) end() (err error) {
	for _, n := range w.mu.nodes {
		err = errors.Join(err, n.kill())
	}
	if w.control != nil {
		w.control.end()
	}
	if w.member != nil {
		err = errors.Join(err, w.member.Close())
	}
	time.Sleep(5 * time.Minute)
	return err
}

// verify is what a node does with a batch; equal bytes are equal.
func (w *world) verify(sealed []byte) ([]byte, error) {
	sum := sha256.Sum256(sealed)
	w.sealed.Lock()
	defer w.sealed.Unlock()
	if v, ok := w.sealed.known[sum]; ok {
		return v.payload, v.err
	}
	if len(w.sealed.known) > 4096 {
		clear(w.sealed.known)
	}
	var v verdict
	v.payload, v.err = w.trust(sealed)
	w.sealed.known[sum] = v
	return v.payload, v.err
}

func (w *world) hostOf(name string) *host {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := w.mu.byName[name]; n != nil {
		return n.host
	}
	return nil
}

func (w *world) note(e changes.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e.Kind == changes.Aside {
		w.mu.asides++
	}
}

func (w *world) seen(after time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.measure {
		w.mu.delays = append(w.mu.delays, after)
	}
}

// write writes keys, so many a second, until the time is over or enough says so.
func (w *world) write(perSecond int, d time.Duration, enough func() bool) {
	every := time.Second / time.Duration(perSecond)
	for end := time.Now().Add(d); time.Now().Before(end) && !enough(); time.Sleep(every/2 + time.Duration(w.r.Int64N(int64(every)))) {
		value := fmt.Appendf(nil, "%0100d", w.truth.head()+1)
		w.truth.put(w.keys[w.r.IntN(len(w.keys))], value)
	}
}

func always() bool { return false }

// converge waits until all know all and follow the log; then every node reads half of the keys, and keeps them.
func (w *world) converge(f *Figures) error {
	begin := time.Now()
	w.write(10, 2*time.Second, always)
	if err := w.until(mostJoin, "membership", func() bool {
		for _, n := range w.mu.nodes {
			if n.member.Stats().Alive != w.Nodes+1 {
				return false
			}
		}
		return true
	}); err != nil {
		return err
	}
	f.Converged = time.Since(begin)
	w.mesh.setLoss(w.Loss)
	if err := w.reach(w.truth.head()); err != nil {
		return err
	}
	var reads sync.WaitGroup
	for _, n := range w.mu.nodes {
		reads.Go(func() {
			for _, key := range w.keys[:len(w.keys)/2] {
				_, _ = n.store.Get(context.Background(), words, key) // what it has then is compared later
			}
		})
	}
	reads.Wait()
	return nil
}

// steady measures writes that go on.
func (w *world) steady(f *Figures) error {
	w.write(w.Writes, 5*time.Second, always)
	bytes, begin := w.mesh.bytes.Load(), time.Now()
	w.setMeasure(true)
	w.write(w.Writes, w.Measure, always)
	f.Bytes = float64(w.mesh.bytes.Load()-bytes) / time.Since(begin).Seconds() / float64(w.Nodes)
	if err := w.reach(w.truth.head()); err != nil {
		return err
	}
	w.setMeasure(false)
	slices.Sort(w.mu.delays)
	n := len(w.mu.delays)
	f.P50, f.P99, f.Samples = w.mu.delays[n/2], w.mu.delays[n*99/100], n
	return nil
}

func (w *world) setMeasure(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.measure = on
}

// cut cuts a third of the PoPs off, and heals the cut.
func (w *world) cut(f *Figures) error {
	if w.Cut == 0 {
		return nil
	}
	var off []string
	for _, i := range w.r.Perm(w.PoPs)[:max(1, w.PoPs/3)] {
		off = append(off, fmt.Sprint("pop-", i))
	}
	w.mesh.split(off...)
	w.write(1, w.Cut, always)
	for _, n := range w.mu.nodes {
		if slices.Contains(off, n.at.site) && w.Cut > time.Second && n.has(w.truth.head()) {
			return fmt.Errorf("%s was cut off and has all: the model is wrong", n.name)
		}
	}
	w.mesh.split()
	begin, head := time.Now(), w.truth.head()
	w.write(1, mostHeal, func() bool { return w.all(head) })
	f.Heal = time.Since(begin)
	return w.reach(head)
}

// killed kills nodes that lead, and starts them again.
func (w *world) killed(f *Figures) error {
	var dead []*node
	for _, n := range w.mu.nodes {
		if len(dead) < w.Kill && n.follower.Leads(log) == nil {
			dead = append(dead, n)
		}
	}
	if len(dead) < w.Kill {
		return fmt.Errorf("%d nodes lead, %d are to be killed", len(dead), w.Kill)
	}
	if w.Kill == 0 {
		return nil
	}
	begin := time.Now()
	for _, n := range dead {
		if err := n.kill(); err != nil {
			return err
		}
		w.mu.nodes = slices.DeleteFunc(w.mu.nodes, func(o *node) bool { return o == n })
	}
	w.write(10, time.Second, always)
	if err := w.reach(w.truth.head()); err != nil {
		return err
	}
	f.Replaced = time.Since(begin)
	w.write(1, 20*time.Second-time.Since(begin), always)
	for _, n := range dead {
		again, err := w.start(n.name, n.at, n.addr)
		if err != nil {
			return err
		}
		w.mu.Lock()
		w.mu.nodes, w.mu.byName[n.name] = append(w.mu.nodes, again), again
		w.mu.Unlock()
	}
	return nil
}

// settle ends the writes and compares what each node answers with the truth.
func (w *world) settle(f *Figures) error {
	w.write(max(1, w.Writes/10), 10*time.Second, always)
	if err := w.reach(w.truth.head()); err != nil {
		return err
	}
	w.mesh.setLoss(0) // a question may fail where much is lost; what is in memory stays
	var asks sync.WaitGroup
	wrong := make([]error, len(w.mu.nodes))
	for i, n := range w.mu.nodes {
		asks.Go(func() { wrong[i] = n.stale(w.keys) })
	}
	asks.Wait()
	f.Checked = len(w.mu.nodes) * len(w.keys)
	return errors.Join(wrong...)
}

func (w *world) all(head uint64) bool {
	return !slices.ContainsFunc(w.mu.nodes, func(n *node) bool { return !n.has(head) })
}

// reach waits until every node has come to head.
func (w *world) reach(head uint64) error {
	return w.until(mostHeal, fmt.Sprint("every node at ", head), func() bool { return w.all(head) })
}

func (w *world) until(most time.Duration, what string, ok func() bool) error {
	for end := time.Now().Add(most); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("not within %v: %s", most, what)
		}
	}
	return nil
}
