package agent

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/runtime/function"
)

// Who runs nothing follows the catalog, and has it again at the next start, when control is away.
func TestCatalogIsFollowed(t *testing.T) {
	c := newControl(t)
	id := c.join("ns-1", "dns")
	path := filepath.Join(t.TempDir(), "catalog")
	open := func() *Catalog {
		return OpenCatalog(CatalogConfig{Control: c.peerClient(id), Trust: id.Member.Anchor(), Path: path})
	}
	k := open()
	ctx, stop := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { k.Run(ctx) })
	defer run.Wait()
	defer stop()
	c.deploy("f", routeOf("f.example")+"\n[placement]\ninclude = [\"pop=lon\"]", "one")
	wait := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not within a minute: %s", what)
			}
		}
	}
	wait("the catalog comes", func() bool { return len(k.Snapshot().Releases()) == 1 })
	wait("it is kept", func() bool { _, err := os.Stat(path); return err == nil })
	stop()
	run.Wait()
	c.stop()
	again := open().Snapshot().Releases()
	if len(again) != 1 || again[0].ID() != (function.ID{Project: "default", Name: "f"}) || again[0].Placement.Include[0] != "pop=lon" {
		t.Errorf("%+v", again)
	}
}
