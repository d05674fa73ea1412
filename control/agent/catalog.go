package agent

import (
	"context"
	"errors"
	"io/fs"
	"sync"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/control/changes"
)

// CatalogConfig wires a Catalog. All must be set but OnEvent.
type CatalogConfig struct {
	Control Doer             // reaches control
	Trust   catalog.Verifier // vouches for records and changes; *identity.Anchor
	Path    string           // where the catalog is kept for the next start
	OnEvent func(Event)      // must not block; may be nil
}

// Catalog follows control's catalog for a member that runs nothing of it, such as
// a name server.
type Catalog struct {
	config   CatalogConfig
	state    *catalog.State
	follower *changes.Follower
	wake     chan struct{}
}

// OpenCatalog reads what was kept last. It is no reason not to start if there is
// nothing, or it cannot be read: CatalogUnread is told, and control has it.
func OpenCatalog(c CatalogConfig) *Catalog {
	if c.OnEvent == nil {
		c.OnEvent = func(Event) {}
	}
	k := &Catalog{config: c, state: catalog.NewState(c.Trust), wake: make(chan struct{}, 1)}
	if err := k.state.Load(c.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.OnEvent(Event{Kind: CatalogUnread, Err: err})
	}
	k.follower = changes.NewFollower(changes.FollowerConfig{
		Open: openStream(c.Control), Verify: changes.VerifyWith(c.Trust),
		Sink:    &catalogSink{state: k.state, changed: k.changed, onEvent: c.OnEvent},
		OnEvent: func(e changes.Event) { c.OnEvent(streamEvent(catalogLog, e)) },
	})
	return k
}

// Snapshot returns the newest catalog; never nil.
func (k *Catalog) Snapshot() *catalog.Snapshot { return k.state.Snapshot() }

func (k *Catalog) changed() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Run follows control, and keeps what it says, until ctx ends.
func (k *Catalog) Run(ctx context.Context) {
	p := k.Snapshot().Position()
	k.follower.Follow(changes.Want{Log: catalogLog, Position: changes.Position{Epoch: p.Epoch, Seq: p.Revision}})
	var following sync.WaitGroup
	defer following.Wait()
	following.Go(func() { _ = k.follower.Run(ctx) }) // returns ctx's error only
	for {
		select {
		case <-k.wake:
			if err := k.state.Save(k.config.Path); err != nil {
				k.config.OnEvent(Event{Kind: Unsaved, Err: err})
			}
		case <-ctx.Done():
			return
		}
	}
}
