// Package fleet keeps who is in the fleet, how they are, and the newest heads
// heard of: membership over memberlist, healed by a rejoin loop. Whatever it
// says is a hint, because its key is shared by all: content comes down change
// streams, which are signed.
package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Fleet is this node's view of the fleet. Its methods may be called from many goroutines.
type Fleet struct {
	config Config
	list   *memberlist.Memberlist
	self   *delegate
	view   *view
	heads  *heads
	seeds  *seeds
	events *queue

	meta struct {
		sync.Mutex
		now Meta // what this node says of itself
	}

	ctx    context.Context // ends at Leave and Close
	stop   context.CancelFunc
	joined sync.WaitGroup
	closed sync.Once
}

// Join opens the gossip sockets and starts looking for the fleet. It does not
// wait for others: a node alone keeps trying, every Config.Rejoin, the seeds
// it was given and those it remembers. Close undoes it.
func Join(c Config) (*Fleet, error) {
	c = c.withDefaults()
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("join the fleet: %w", err)
	}
	remembered, err := loadSeeds(c.SeedsFile)
	if err != nil {
		c.Log.Warn("remembered seeds cannot be read; starting with the configured ones", "component", "fleet", "err", err)
	}
	f := &Fleet{config: c, view: newView(c.Name), seeds: remembered, events: newQueue()}
	f.heads = newHeads(f.view.alive)
	f.ctx, f.stop = context.WithCancel(context.Background())
	if err := f.listen(); err != nil {
		f.stop()
		return nil, fmt.Errorf("join the fleet: %w", err)
	}
	f.joined.Go(func() { f.events.run(f.ctx, f.deliver) })
	f.joined.Go(f.rejoin)
	return f, nil
}

func (f *Fleet) listen() error {
	f.self = &delegate{fleet: f}
	f.meta.now = f.config.Meta
	if err := f.self.say(f.meta.now); err != nil {
		return err
	}
	t, err := openTransport(f.ctx, f.config)
	if err != nil {
		return err
	}
	list, err := memberlist.Create(f.gossip(t))
	if err != nil {
		return errors.Join(fmt.Errorf("start gossip on %s: %w", f.config.Bind, err), t.Shutdown())
	}
	f.list = list
	return nil
}

// gossip is memberlist's configuration: patient with a slow link between
// PoPs, quick to exchange whole states.
func (f *Fleet) gossip(t memberlist.NodeAwareTransport) *memberlist.Config {
	m, d := memberlist.DefaultLANConfig(), f.self
	m.Name, m.Label, m.SecretKey = f.config.Name, f.config.Fleet, f.config.Key
	m.Transport = t
	at := f.config.advertised()
	m.AdvertiseAddr, m.AdvertisePort = at.Addr().String(), cmp.Or(int(at.Port()), boundPort(t))
	m.EnableCompression = false // decompressing foreign bytes is surface nobody needs here
	m.Delegate, m.Events, m.Conflict, m.Merge, m.Alive, m.Ping = d, d, d, d, d, d
	m.LogOutput, m.Logger = nil, gossipLog(f.config.Log)

	m.TCPTimeout = 5 * time.Second
	m.ProbeTimeout = time.Second
	m.ProbeInterval = 2 * time.Second
	m.PushPullInterval = 15 * time.Second
	m.GossipToTheDeadTime = time.Minute
	m.DeadNodeReclaimTime = 30 * time.Second // a node that moved gets its name back
	return m
}

func (f *Fleet) deliver(e Event, heads []Head) {
	for _, h := range heads {
		f.config.OnHead(h)
	}
	if e.Kind != 0 {
		f.config.OnEvent(e)
	}
}

// Members returns everyone known, this node too, by name. Failed and departed
// members stay in it for an hour.
func (f *Fleet) Members() []Member { return f.view.snapshot(anyone) }

// Select returns those of Members that are wanted: cheaply where they are few of many.
// It calls wanted under a lock, with what it must not keep.
func (f *Fleet) Select(wanted func(*Member) bool) []Member { return f.view.snapshot(wanted) }

// Member returns one member by name.
func (f *Fleet) Member(name string) (Member, bool) { return f.view.get(name) }

// Address is where this node's gossip is reached.
func (f *Fleet) Address() netip.AddrPort {
	m, _ := f.view.get(f.config.Name)
	return m.Gossip
}

// Duplicate returns an error naming the other address when, within the last
// minute, another live member was seen under this node's name; nil otherwise.
func (f *Fleet) Duplicate() error { return f.view.duplicate() }

// Announce tells the fleet of a head this node has. It does not wait; a head
// the fleet knows already is not sent again.
func (f *Fleet) Announce(h Head) error {
	if err := h.validate(); err != nil {
		return fmt.Errorf("announce a head: %w", err)
	}
	if _, err := f.heads.raise(h); err != nil {
		return fmt.Errorf("announce a head: %w", err)
	}
	return nil
}

// Heads returns the newest head heard of each log. Hints: ask, do not believe.
func (f *Fleet) Heads() []Head { return f.heads.snapshot() }

// Leave tells the fleet that this node goes, and waits up to within for the
// word to be on its way: members then see Left, not Failed. Close follows.
func (f *Fleet) Leave(within time.Duration) error {
	f.stop() // the rejoin loop must not bring the node back
	// Who does not hear the first part sees a failure: nothing worse.
	err := f.Restate(within/2, func(m *Meta) { m.Leaving = true })
	if err = errors.Join(err, f.list.Leave(within/2)); err != nil {
		return fmt.Errorf("leave the fleet: %w", err)
	}
	return nil
}

// Restate changes what this node says of itself. It waits up to within for the
// word to be on its way; an unchanged one is not sent again.
func (f *Fleet) Restate(within time.Duration, change func(*Meta)) error {
	f.meta.Lock()
	defer f.meta.Unlock()
	next := f.meta.now
	if change(&next); next == f.meta.now {
		return nil
	}
	if err := f.self.say(next); err != nil {
		return err
	}
	f.meta.now = next
	return f.list.UpdateNode(within)
}

// Close ends gossip without a word to the others and waits for this room's goroutines.
func (f *Fleet) Close() error {
	var err error
	f.closed.Do(func() {
		f.stop()
		f.joined.Wait()
		err = errors.Join(f.list.Shutdown(), f.seeds.save())
	})
	if err != nil {
		return fmt.Errorf("close the fleet: %w", err)
	}
	return nil
}

// Stats are facts since Join.
type Stats struct {
	Alive          int    // members, this node too
	Failed         int    // members that stopped answering and are still remembered
	Rejoins        uint64 // times the loop brought back someone missing
	RejoinFailures uint64 // times it tried and nobody answered
	EventsDropped  uint64 // events not delivered because OnEvent was slow; Members is whole
	Refused        uint64 // foreign messages that could not be decoded or were over a bound
	Conflicts      uint64 // times two nodes were seen under one name
	Score          int    // 0 is healthy; more means this node itself is slow to answer
}

// Stats returns them.
func (f *Fleet) Stats() Stats {
	s := f.view.stats()
	s.EventsDropped = f.events.dropped.Load()
	s.Refused = f.heads.refused.Load() + f.view.refused.Load()
	s.Rejoins, s.RejoinFailures = f.seeds.rejoins.Load(), f.seeds.failures.Load()
	s.Score = f.list.GetHealthScore()
	return s
}
