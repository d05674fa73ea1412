// Package fleet is a whole fleet in one process over a simulated network, in virtual time.
//
// Real are: membership (control/fleet, over memberlist), the change streams (control/changes:
// server, batches, signatures, relays, followers), who follows whom (control/agent) and the KV of
// each node (edge/kv). Modelled are: packets and streams, with latency by distance, loss and cuts (loss in a stream
// is delay, as TCP's retransmissions have it; what HTTP/2, TLS, TCP and IP add to its bytes is counted), control's store, which
// takes writes in no time, and processors, which take none. The signature of equal bytes is verified once for all nodes.
// Left out are the catalog, reports and users' requests; a node that has not a key asks control for it, not its PoP.
package fleet

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
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

	Cuts []time.Duration // one after the other a third of the PoPs, drawn anew, is cut off for so long, while one write a second goes on
	Kill int             // nodes that others follow are killed, and started again 20 s later; of every other one the machine dies, so that nobody hears its connections end

	Log func(format string, a ...any) // told what is being done; may be nil
}

// Figures are what came of it; times are virtual.
type Figures struct {
	P50, P99  time.Duration   // from a write's acknowledgement to where it is applied, over all nodes
	Samples   int             // of that
	Bytes     float64         // a second and node, of all traffic, each counted where it is sent
	Converged time.Duration   // from when the last node was started until all knew all
	Heals     []time.Duration // from the end of each cut until all nodes had what was written until then
	Rejoined  []time.Duration // and until all knew all again
	Replaced  time.Duration   // from the kill until all others had what was written a second after
	Asides    int             // times a node passed over its parent
	Answered  int             // reads that went on meanwhile, each held against the truth
	Checked   int             // keys of nodes that were compared with the truth in the end
}

// FiguresFile is the environment variable that names the file TestFigures writes them to, as JSON.
const FiguresFile = "SELVAGE_MODEL_FIGURES"

// Most of what may take long, in virtual time and without loss: more is a fault.
const (
	mostJoin    = 5 * time.Minute
	mostHeal    = 30 * time.Second
	mostReplace = 15 * time.Second
)

// patience is how much of what may take d without loss is waited for with it: a stream
// whose packets are lost over and over stands still for longer each time, as TCP has it.
func (w *world) patience(d time.Duration) time.Duration {
	return d + time.Duration(10*w.Loss*float64(d))
}

// world is one run.
type world struct {
	Plan
	mesh     *mesh
	truth    *truth
	r        *rand.Rand
	home     place
	control  *host
	member   *fleet.Fleet // control's
	seeds    []string
	sealed   verdicts
	trust    func([]byte) ([]byte, error)
	keys     []string
	answered atomic.Int64
	mu       struct {
		sync.Mutex
		nodes   []*node
		byName  map[string]*node
		measure bool
		delays  []time.Duration
		asides  int
		wrong   error // the first that a reader saw
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
	for i := range 100 {
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
	for _, part := range []func(*Figures) error{w.converge, w.steady, w.cuts, w.killed, w.settle} {
		if err := errors.Join(part(&f), w.faulty()); err != nil {
			return f, err
		}
	}
	f.Asides, f.Answered = w.mu.asides, int(w.answered.Load())
	return f, nil
}

// fault notes that an answer was wrong.
func (w *world) fault(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.wrong == nil {
		w.mu.wrong = err
	}
}

func (w *world) faulty() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.wrong
}

func (w *world) say(format string, a ...any) {
	if w.Log != nil {
		w.Log(format, a...)
	}
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
		pops[i] = somewhere(w.r, popName(i))
	}
	for i := range w.Nodes {
		n, err := w.start(i, pops[i%w.PoPs])
		if err != nil {
			return err
		}
		w.add(n)
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

func popName(i int) string { return fmt.Sprint("pop-", i) }

func (w *world) add(n *node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.nodes, w.mu.byName[n.name] = append(w.mu.nodes, n), n
}

// end stops everything and lets what memberlist still has under way run out.
func (w *world) end() (err error) {
	for _, n := range w.mu.nodes {
		err = errors.Join(err, n.kill(false))
	}
	if w.control != nil {
		w.control.end(false)
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
