package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/pool"
)

// keepMany leaves a node's disk as one with n functions leaves it: fifty codes, an image each.
func keepMany(t *testing.T, n *node, many int) {
	t.Helper()
	blobs := filepath.Join(n.dir, "blobs")
	if err := os.MkdirAll(blobs, 0o700); err != nil {
		t.Fatal(err)
	}
	keep := func(b []byte) function.Digest {
		d := function.DigestOf(b)
		if err := os.WriteFile(filepath.Join(blobs, d.Hex()), b, 0o600); err != nil {
			t.Fatal(err)
		}
		return d
	}
	var records [][]byte
	for i := range many {
		code, image := keep(fmt.Append(nil, "code", i%50)), keep(fmt.Append(nil, "image", i))
		r := &catalog.Record{Position: catalog.Position{Epoch: 1, Revision: uint64(i + 1)}, Release: &catalog.Release{
			Project: "p", Function: fmt.Sprintf("f%d", i), Number: 1, Bundle: image, Code: code, Image: image,
			Routes: []string{fmt.Sprintf("f%d.example.com/*", i)}, Publisher: n.control.id.Catalog.ID(), CreatedAt: time.Now(),
		}}
		b, err := r.Sign(n.control.id.Catalog)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, b)
	}
	s := catalog.NewState(n.id.Member.Anchor())
	if err := s.Apply(catalog.Position{Epoch: 1, Revision: uint64(many)}, records...); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(filepath.Join(n.dir, "catalog")); err != nil {
		t.Fatal(err)
	}
}

// A node that starts with many functions serves all of them in its first table
// and reads none of their bytes for it; control is away.
func TestStartWithManyFunctionsReadsNoBytes(t *testing.T) {
	many := 5000
	if testing.Short() {
		many = 200
	}
	c := newControl(t)
	n := newNode(t, c)
	keepMany(t, n, many)
	c.stop()
	var known, asked atomic.Int64
	count := func(read func(context.Context) ([]byte, error)) func(context.Context) ([]byte, error) {
		return func(ctx context.Context) ([]byte, error) {
			asked.Add(1)
			return read(ctx)
		}
	}
	var parts atomic.Pointer[pool.Parts]
	began := time.Now()
	n.run(func(cfg *Config[*version]) {
		cfg.Prepare = func(_ context.Context, v function.Version, p pool.Parts) (*version, pool.Prepared, error) {
			if p.Known {
				known.Add(1)
			}
			p.Code, p.Image = count(p.Code), count(p.Image)
			parts.Store(&p)
			return &version{node: n, v: v}, pool.Prepared{FromCache: true}, nil
		}
		cfg.Settle = time.Minute
	})
	for n.table.Load() == nil {
		if time.Since(began) > 5*time.Minute { // with the race detector it takes over one
			t.Fatal("there is no table")
		}
		time.Sleep(time.Millisecond)
	}
	t.Logf("%d functions served after %v", many, time.Since(began).Round(time.Millisecond))
	if got := n.table.Load().Len(); got != many || int(known.Load()) != many || asked.Load() != 0 {
		t.Errorf("%d routes, %d functions known, %d parts read", got, known.Load(), asked.Load())
	}
	for _, read := range []func(context.Context) ([]byte, error){parts.Load().Code, parts.Load().Image} {
		if b, err := read(t.Context()); err != nil || len(b) == 0 {
			t.Errorf("read later: %q, %v", b, err)
		}
	}
}
