package agent

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/report"
	"github.com/selvage-edge/selvage/runtime/function"
)

// What a node falls back to is whole on its disk, however long ago it served.
func TestWhatServedWellIsNotSwept(t *testing.T) {
	c := newControl(t)
	n := newNode(t, c).run(func(c *Config[*version]) { c.Calm = time.Millisecond })
	c.deploy("f", routeOf("f.example"), "good")
	n.serves("f.example", "good")
	n.until("it is kept", func() bool {
		kept, err := os.ReadFile(filepath.Join(n.dir, "catalog.served"))
		newest, nerr := os.ReadFile(filepath.Join(n.dir, "catalog"))
		return err == nil && nerr == nil && string(kept) == string(newest)
	})
	n.end()
	n.run(func(c *Config[*version]) { c.Calm = time.Hour })
	c.deploy("f", routeOf("f.example"), "fatal")
	n.serves("f.example", "fatal")
	n.end()
	c.stop()

	n.run(func(c *Config[*version]) { c.Grace = time.Nanosecond })
	n.end()
	ctx, cancel := context.WithCancel(t.Context())
	l := newLoop(ctx, n.agent)
	l.plan()
	half := filepath.Join(n.dir, ".new-1")
	if err := os.WriteFile(half, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		l.swept = time.Time{}
		l.sweep()
	}
	cancel()
	l.end()
	if _, err := os.Stat(half); err == nil {
		t.Error("what a crash left half written in the agent's folder is still there")
	}
	n.run(func(c *Config[*version]) { c.Hold = time.Hour })
	n.serves("f.example", "good")
}

// The catalog that is kept is never much older than the one in use: neither
// because something of it hangs, nor because newer ones come all the time.
func TestTheKeptCatalogIsNeverOld(t *testing.T) {
	for name, every := range map[string]time.Duration{"a release hangs": 24 * time.Hour, "changes all the time": 20 * time.Second} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { keptCatalogStaysYoung(t, every) }) })
	}
}

func keptCatalogStaysYoung(t *testing.T, every time.Duration) {
	state := catalog.NewState((*identity.Anchor)(nil))
	c := Config[*version]{Dir: t.TempDir()}.withDefaults()
	l := newLoop(t.Context(), &Agent[*version]{config: c, catalog: state})
	l.serving = true
	l.slots[function.ID{Name: "hung"}] = &slot[*version]{state: report.Fetching}
	began := map[uint64]time.Time{}
	for at := time.Duration(0); at < 2*time.Hour; at += time.Second {
		if at%every == 0 {
			rev := uint64(at/every) + 1
			if err := state.Apply(catalog.Position{Epoch: 1, Revision: rev}); err != nil {
				t.Fatal(err)
			}
			l.snap, began[rev] = state.Snapshot(), time.Now()
		}
		l.watch()
		l.keepServed()
		time.Sleep(time.Second)
	}
	kept := catalog.NewState((*identity.Anchor)(nil))
	if err := kept.Load(l.servedPath()); err != nil {
		t.Fatal(err)
	}
	rev := kept.Snapshot().Position().Revision
	if age := began[l.snap.Position().Revision].Sub(began[rev]); age > (provenAge+2)*c.Calm {
		t.Errorf("revision %d is kept, which is %v older than the one in use", rev, age)
	}
}

// A disk that is full is tried again, and not all the time.
func TestACatalogThatCannotBeKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := catalog.NewState((*identity.Anchor)(nil))
		failed := 0
		c := Config[*version]{Dir: filepath.Join(t.TempDir(), "absent"), OnEvent: func(Event) { failed++ }}.withDefaults()
		l := newLoop(t.Context(), &Agent[*version]{config: c, catalog: state})
		l.serving = true
		if err := state.Apply(catalog.Position{Epoch: 1, Revision: 1}); err != nil {
			t.Fatal(err)
		}
		l.snap = state.Snapshot()
		began := time.Now()
		for failed < 10 {
			l.watch()
			l.schedule()
			<-l.timer.C
			l.swept = time.Now()
			l.keepServed()
		}
		if took := time.Since(began); took < 10*c.Calm {
			t.Errorf("it was tried 10 times in %v", took)
		}
	})
}
