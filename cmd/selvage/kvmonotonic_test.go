package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/cmd/selvage/request"
	"github.com/selvage-edge/selvage/cmd/selvage/up"
	"github.com/selvage-edge/selvage/runtime/guesttest"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// revisionOf reads key k of the namespace words and answers with its entry header and the call's status.
const revisionOf = `(data (i32.const 64) "words") (data (i32.const 80) "k")
(func (export "handle")
  (i32.store (i32.const 152) (call $kv_get (call $kv_open (i32.const 64) (i32.const 5)) (i32.const 80) (i32.const 1) (i32.const 1024) (i32.const 64) (i32.const 128)))
  (drop (call $response_write (i32.const 128) (i32.const 28))))`

// climber watches the revisions that a node's reads of one key have.
type climber struct {
	newest      atomic.Uint64 // of all reads that have ended
	reads, away atomic.Int64  // away: the node could not tell, while control was not there
}

// readOne reads once and fails where a read that had ended before it began had a newer revision.
func (c *climber) readOne(ctx context.Context, cl *request.Client) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://revision.edge.localhost:8443/", nil)
	if err != nil {
		return err
	}
	before := c.newest.Load()
	a, err := cl.Do(r)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	body, err := io.ReadAll(a.Body)
	if err != nil || a.Status != http.StatusOK || len(body) != 28 {
		return fmt.Errorf("status %d, %d bytes: %w", a.Status, len(body), err)
	}
	if status := int32(binary.LittleEndian.Uint32(body[24:])); status != 0 {
		c.away.Add(1)
		return nil
	}
	c.reads.Add(1)
	revision := binary.LittleEndian.Uint64(body)
	if revision < before {
		return fmt.Errorf("a read has revision %d, one that had ended before had %d", revision, before)
	}
	for was := c.newest.Load(); revision > was && !c.newest.CompareAndSwap(was, revision); was = c.newest.Load() {
	}
	return nil
}

func (c *climber) readUntil(ctx context.Context, w *world, n up.Node) error {
	cl, err := request.New(request.Config{Version: request.HTTP2, Connect: n.Public, CAFile: w.EdgeCA})
	if err != nil {
		return err
	}
	defer cl.Close()
	for ctx.Err() == nil {
		if err := c.readOne(context.WithoutCancel(ctx), cl); err != nil {
			return err
		}
	}
	return nil
}

// While control is killed and comes back, and somebody writes a key all the time, the
// key's revision on a node never goes back, from whichever reader; and what was written last is seen.
func TestReadsOnANodeNeverGoBack(t *testing.T) { neverGoBack(t, "127.0.8.30", "cached") }

// The same where the node has a copy on disk.
func TestReadsBesideACopyNeverGoBack(t *testing.T) { neverGoBack(t, "127.0.14.90", "replicated") }

func neverGoBack(t *testing.T, base, mode string) {
	w := openWorld(t, base)
	w.selvage(t, "kv", "create", "words", "--mode", mode).expect(t, exitOK, "mode "+mode)
	n, seed := w.Layout.Edges[0], rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	w.selvage(t, "deploy", "--wait", w.function(t, "revision", guesttest.Guest(t, revisionOf), "[[kv]]", `name = "words"`)).expect(t, exitOK, "live")
	kv, c := w.truth(t, "words"), &climber{}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			if err := c.readUntil(ctx, w, n); err != nil {
				t.Error(err)
			}
		})
	}
	written := uint64(0) // the newest that was acknowledged
	for range 4 {
		for i := range 20 + r.IntN(40) {
			eventually(t, "a put is acknowledged", func() bool {
				a, err := kv.put(t.Context(), "k", fmt.Append(nil, i), nil, hostcall.AnyRevision)
				if err != nil {
					t.Fatal(err)
				}
				written = max(written, a.revision)
				return a.came == done
			})
		}
		lost := make(chan struct{})
		go func() { // is under way when control is killed, or finds nobody there
			defer close(lost)
			for {
				if a, err := kv.put(t.Context(), "k", []byte("lost"), nil, hostcall.AnyRevision); err != nil || a.came != done {
					return
				}
			}
		}()
		was := c.reads.Load() + c.away.Load()
		kill9(t, w.Control.PID())
		<-lost
		eventually(t, "reads while control is away", func() bool { return t.Failed() || c.reads.Load()+c.away.Load() > was+20 })
		w.restartControl(t)
		eventually(t, "the newest that was acknowledged is seen", func() bool { return t.Failed() || c.newest.Load() >= written })
	}
	stop()
	readers.Wait()
	t.Logf("%d reads, %d while nothing could be told", c.reads.Load(), c.away.Load())
	if c.reads.Load() == 0 || c.newest.Load() < written {
		t.Errorf("%d reads came to revision %d, written %d", c.reads.Load(), c.newest.Load(), written)
	}
}
