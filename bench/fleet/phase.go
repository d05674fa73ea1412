package fleet

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/control/fleet"
)

// put writes a key of 100 bytes.
func (w *world) put() { w.truth.put(w.keys[w.r.IntN(len(w.keys))]) }

// change writes a key, or one time in ten deletes it.
func (w *world) change() {
	if w.r.IntN(10) > 0 {
		w.put()
		return
	}
	w.truth.delete(w.keys[w.r.IntN(len(w.keys))])
}

// write does one thing so many times a second until the time is over, or enough says so.
func (w *world) write(one func(), perSecond int, d time.Duration, enough func() bool) {
	every := time.Second / time.Duration(perSecond)
	for end := time.Now().Add(d); time.Now().Before(end) && !enough(); time.Sleep(every/2 + time.Duration(w.r.Int64N(int64(every)))) {
		one()
	}
}

func never() bool { return false }

// converge waits until all know all and follow the log; then every node reads every key, and keeps it.
func (w *world) converge(f *Figures) error {
	begin := time.Now()
	if err := w.acquaint(); err != nil {
		return err
	}
	f.Converged = time.Since(begin)
	w.say("%d nodes know one another, %v after the last was started", w.Nodes, f.Converged)
	for _, key := range w.keys {
		w.truth.put(key)
	}
	if err := w.reach(mostHeal, w.truth.head()); err != nil {
		return err
	}
	if err := w.compare(); err != nil {
		return err
	}
	w.mesh.setLoss(w.Loss)
	return nil
}

// compare holds what each node answers against the truth, which nobody changes meanwhile.
func (w *world) compare() error {
	var asks sync.WaitGroup
	wrong := make([]error, len(w.mu.nodes))
	for i, n := range w.mu.nodes {
		asks.Go(func() { wrong[i] = n.stale(w.keys) })
	}
	asks.Wait()
	return errors.Join(wrong...)
}

// steady measures writes that go on.
func (w *world) steady(f *Figures) error {
	w.write(w.put, w.Writes, 2*time.Second, never)
	bytes, begin := w.mesh.bytes.Load(), time.Now()
	w.setMeasure(true)
	w.write(w.put, w.Writes, w.Measure, never)
	f.Bytes = float64(w.mesh.bytes.Load()-bytes) / time.Since(begin).Seconds() / float64(w.Nodes)
	if err := w.reach(mostHeal, w.truth.head()); err != nil {
		return err
	}
	w.setMeasure(false)
	slices.Sort(w.mu.delays)
	n := len(w.mu.delays)
	f.P50, f.P99, f.Samples = w.mu.delays[n/2], w.mu.delays[n*99/100], n
	w.say("%d writes a second: visible after %v and %v (p50, p99 of %d), %.0f bytes a second and node", w.Writes, f.P50, f.P99, n, f.Bytes)
	return nil
}

func (w *world) setMeasure(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.measure = on
}

// cuts cuts a third of the PoPs off and heals the cut, over and over.
func (w *world) cuts(f *Figures) error {
	for _, d := range w.Cuts {
		if err := w.cut(f, d); err != nil {
			return fmt.Errorf("a cut of %v: %w", d, err)
		}
	}
	return nil
}

func (w *world) cut(f *Figures, d time.Duration) error {
	var off []string
	for _, i := range w.r.Perm(w.PoPs)[:max(1, w.PoPs/3)] {
		off = append(off, popName(i))
	}
	w.mesh.split(off...)
	time.Sleep(time.Second) // for what is under way
	w.write(w.change, 1, d-time.Second, never)
	for _, n := range w.mu.nodes {
		if slices.Contains(off, n.at.site) && n.has(w.truth.head()) {
			return fmt.Errorf("%s was cut off and has all: the model is wrong", n.name)
		}
	}
	w.mesh.split()
	begin, head := time.Now(), w.truth.head()
	w.write(w.change, 1, w.patience(mostHeal), func() bool { return w.all(head) })
	f.Heals = append(f.Heals, time.Since(begin))
	if err := w.reach(0, head); err != nil {
		return err
	}
	if err := w.acquaint(); err != nil {
		return err
	}
	f.Rejoined = append(f.Rejoined, time.Since(begin))
	w.say("a cut of %v has healed: all had all after %v, and knew all after %v", d, f.Heals[len(f.Heals)-1], time.Since(begin))
	return w.faulty()
}

// killed kills nodes that lead, and starts them again.
func (w *world) killed(f *Figures) error {
	dead := w.leaders(w.Kill)
	if len(dead) < w.Kill {
		return fmt.Errorf("%d nodes lead, %d are to be killed", len(dead), w.Kill)
	}
	if w.Kill == 0 {
		return nil
	}
	begin := time.Now()
	for i, n := range dead {
		if err := n.kill(i%2 == 1); err != nil {
			return err
		}
		w.mu.nodes = slices.DeleteFunc(w.mu.nodes, func(o *node) bool { return o == n })
	}
	w.write(w.change, 10, time.Second, never)
	if err := w.reach(mostReplace, w.truth.head()); err != nil {
		return err
	}
	f.Replaced = time.Since(begin)
	w.say("%d nodes that others followed were killed: the others had all %v later", len(dead), f.Replaced)
	w.write(w.change, 1, 20*time.Second-time.Since(begin), never)
	for _, n := range dead {
		again, err := w.start(n.i, n.at)
		if err != nil {
			return err
		}
		w.add(again)
	}
	return w.acquaint()
}

// leaders are nodes that others follow, so many at most.
func (w *world) leaders(most int) (list []*node) {
	for _, n := range w.mu.nodes {
		if len(list) < most && n.follower.Leads(log) == nil && n.relay.Stats().Streams > 0 {
			list = append(list, n)
		}
	}
	return list
}

// settle ends the writes and compares what each node answers with the truth.
func (w *world) settle(f *Figures) error {
	w.write(w.change, max(1, w.Writes/10), 5*time.Second, never)
	if err := w.reach(mostHeal, w.truth.head()); err != nil {
		return err
	}
	w.mesh.setLoss(0) // a question may fail where much is lost; what is in memory stays
	f.Checked = len(w.mu.nodes) * len(w.keys)
	return w.compare()
}

// acquaint waits until everybody has known all at one time: where much is lost, membership takes somebody for dead now and then.
func (w *world) acquaint() error {
	alive := len(w.mu.nodes) + 1
	members := []*fleet.Fleet{w.member}
	for _, n := range w.mu.nodes {
		members = append(members, n.member)
	}
	return w.until(mostJoin, "all know all", func() bool {
		members = slices.DeleteFunc(members, func(m *fleet.Fleet) bool { return m.Stats().Alive == alive })
		return len(members) == 0
	})
}

// all reports whether every node has come to head.
func (w *world) all(head uint64) bool {
	return !slices.ContainsFunc(w.mu.nodes, func(n *node) bool { return !n.has(head) })
}

// reach waits until every node has come to head.
func (w *world) reach(most time.Duration, head uint64) error {
	return w.until(most, fmt.Sprint("every node at ", head), func() bool { return w.all(head) })
}

func (w *world) until(most time.Duration, what string, ok func() bool) error {
	for end := time.Now().Add(w.patience(most)); !ok(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("not within %v: %s", w.patience(most), what)
		}
	}
	return nil
}
