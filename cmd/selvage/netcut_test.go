package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/cmd/selvage/request"
	"github.com/selvage-edge/selvage/cmd/selvage/up"
	"github.com/selvage-edge/selvage/runtime/guesttest"
	"github.com/selvage-edge/selvage/runtime/hostcall"
	"github.com/selvage-edge/selvage/sdk/abi"
)

// writesKey puts something under a key of one letter of the namespace words and answers with what the call returned.
const writesKey = `(data (i32.const 64) "words") (data (i32.const 80) "%s")
(func (export "handle")
  (i64.store (i32.const 128) (call $kv_put (call $kv_open (i32.const 64) (i32.const 5)) (i32.const 80) (i32.const 1) (i32.const 64) (i32.const 5) (i64.const 0) (i64.const -1)))
  (drop (call $response_write (i32.const 128) (i32.const 8))))`

// healSoon is how soon after a cut is healed all should agree; it is told where it took longer.
const healSoon = 10 * time.Second

// Three PoPs and control on a network of their own, of which one PoP is cut off: what it read
// it goes on serving, a write there fails with a clear error after a bounded time, others write and read on;
// and when the cut is healed all agree, and the PoP that was cut off writes again.
func TestACutPoPHeals(t *testing.T) {
	w := openCutWorld(t, 3)
	kv, edges := w.truth(t, "words"), w.Layout.Edges
	for name, module := range map[string]string{"revision": revisionOf, "writes": fmt.Sprintf(writesKey, "k"), "other": fmt.Sprintf(writesKey, "o")} {
		w.selvage(t, "deploy", "--wait", w.function(t, name, guesttest.Guest(t, module), "[[kv]]", `name = "words"`, `access = "write"`, "[limits]", `wall = "30s"`)).expect(t, exitOK, "live")
	}
	a, err := kv.put(t.Context(), "k", []byte("first"), nil, hostcall.AnyRevision)
	if err != nil || a.came != done {
		t.Fatalf("%+v, %v", a, err)
	}
	w.agree(t, edges, a.revision)
	cuts := []time.Duration{0, 3 * time.Second}
	if s := os.Getenv("SELVAGE_CUTS"); s != "" {
		cuts = append(cuts, parsed(t, s))
	}
	for i, atLeast := range cuts {
		n := edges[i%len(edges)]
		t.Run(fmt.Sprint("cut ", i+1), func(t *testing.T) { w.cutAndHeal(t, n, atLeast, i > 0) })
	}
}

func parsed(t *testing.T, s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatalf("SELVAGE_CUTS: %v", err)
	}
	return d
}

// cutWorld is a fleet on a network of its own.
type cutWorld struct {
	*world
	net *up.Network
}

// openCutWorld boots one, or skips the test where there can be none; in CI there has to be.
func openCutWorld(t *testing.T, pops int) *cutWorld {
	t.Helper()
	var c cutWorld
	c.world = openWorldOf(t, "127.0.9.130", pops, func(l *up.Layout) {
		var err error
		c.net, err = up.OpenNetwork(t.Context(), l)
		if errors.Is(err, up.ErrNoNetwork) && os.Getenv("CI") != "true" {
			t.Skipf("SKIPPED, no PoP is cut off: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		// Before the fleet's own clean-up is put on the list: it runs after it.
		t.Cleanup(func() {
			if err := c.net.Close(); err != nil {
				t.Error(err)
			}
		})
	})
	return &c
}

// cutAndHeal cuts a PoP off, for as long as what is tried meanwhile takes or longer. A brief cut tries no writes there.
func (c *cutWorld) cutAndHeal(t *testing.T, off up.Node, atLeast time.Duration, brief bool) {
	others := slices.DeleteFunc(slices.Clone(c.Layout.Edges), func(n up.Node) bool { return n.Name == off.Name })
	before := c.read(t, off)
	if err := c.net.Cut(t.Context(), off); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	newest := c.write(t, others[0])
	c.agree(t, others, newest)
	t.Logf("%s is cut off; a write in %s was visible in %s %v after", off.PoP, others[0].PoP, others[1].PoP, time.Since(begin).Round(time.Millisecond))
	for range 20 {
		if got := c.read(t, off); got != before {
			t.Fatalf("%s, cut off, reads revision %d; it had %d, and cannot know of %d", off.PoP, got, before, newest)
		}
	}
	if !brief {
		c.writesFail(t, off)
	}
	time.Sleep(time.Until(begin.Add(atLeast))) // the cut's length, not a wait for something
	lasted := time.Since(begin)
	if err := c.net.Heal(t.Context(), off); err != nil {
		t.Fatal(err)
	}
	begin = time.Now()
	c.agree(t, []up.Node{off}, newest)
	took := time.Since(begin)
	late := ""
	if took > healSoon {
		late = fmt.Sprintf(", LATER than %v", healSoon)
	}
	t.Logf("healed after %v: all agreed %v later%s", lasted.Round(time.Millisecond), took.Round(time.Millisecond), late)
	c.agree(t, c.Layout.Edges, c.write(t, off))
	t.Logf("and a write in %s was visible everywhere %v after the healing", off.PoP, time.Since(begin).Round(time.Millisecond))
}

// writesFail tries writes by functions of the PoP that is cut off, and one by the command line there.
func (c *cutWorld) writesFail(t *testing.T, off up.Node) {
	var both sync.WaitGroup
	both.Go(func() { c.functionsFail(t, off) })
	both.Go(func() {
		begin := time.Now()
		line := slices.Concat(off.Within, []string{c.Selvage, "kv", "put", "words", "k", "v"})
		cmd := exec.CommandContext(t.Context(), line[0], line[1:]...)
		cmd.Env = append(os.Environ(), c.env...)
		out, err := cmd.CombinedOutput()
		t.Logf("and by the command line: %v after %v: %s", err, time.Since(begin).Round(time.Millisecond), out)
		r := result{code: cmd.ProcessState.ExitCode(), errout: string(out)}
		r.expect(t, exitReach, "the fleet's control node cannot be reached")
	})
	both.Wait()
}

// functionsFail tries writes by functions. The first may have been sent, so k is left alone: of a key whose write had no answer
// nothing is served from memory. Once the node knows that control is away it sends nothing, and k is read on.
func (c *cutWorld) functionsFail(t *testing.T, off up.Node) {
	before := c.read(t, off)
	fails := func(function string) time.Duration {
		begin := time.Now()
		if status := c.tryWrite(t, off, function); status != abi.StatusUnavailable {
			t.Errorf("a write by a function returned %d, want %d: the other side cannot be reached now", status, abi.StatusUnavailable)
		}
		return time.Since(begin)
	}
	first := fails("other")
	eventually(t, off.Name+" knows that control is away", func() bool { return metric(off, "selvage_control_away") == 1 })
	refused := metric(off, "selvage_control_refused_total")
	const more = 50
	var all time.Duration
	for range more {
		all += fails("writes")
	}
	t.Logf("the first write by a function there failed after %v, %d more after %v in all", first.Round(time.Millisecond), more, all.Round(time.Millisecond))
	// Each used to wait for ten seconds; a busy machine is given time.
	if first > 9*time.Second || all > more*time.Second {
		t.Error("writes on the cut side do not fail fast")
	}
	if n := metric(off, "selvage_control_refused_total") - refused; n < more {
		t.Errorf("of %d writes %v were refused before they were sent", more, n)
	}
	if got := c.read(t, off); got != before {
		t.Errorf("after writes that were not sent %s reads revision %d; it had %d", off.PoP, got, before)
	}
}

// ask has a function of a PoP answer with n bytes.
func (c *cutWorld) ask(t *testing.T, n up.Node, function string, bytes int) []byte {
	t.Helper()
	status, body := c.getFrom(t, n, request.HTTP2, function, "/")
	if status != http.StatusOK || len(body) != bytes {
		t.Fatalf("%s in %s: status %d, %q", function, n.PoP, status, body)
	}
	return []byte(body)
}

// read returns the revision of k that a function of the PoP reads.
func (c *cutWorld) read(t *testing.T, n up.Node) uint64 {
	t.Helper()
	body := c.ask(t, n, "revision", 28)
	if status := int32(binary.LittleEndian.Uint32(body[24:])); status != abi.StatusOK {
		t.Fatalf("a read in %s returned %d", n.PoP, status)
	}
	return binary.LittleEndian.Uint64(body)
}

func (c *cutWorld) tryWrite(t *testing.T, n up.Node, function string) int64 {
	t.Helper()
	return int64(binary.LittleEndian.Uint64(c.ask(t, n, function, 8)))
}

// write has a function of the PoP write k, and returns the revision: as soon as that is possible.
func (c *cutWorld) write(t *testing.T, n up.Node) uint64 {
	t.Helper()
	var revision int64
	eventually(t, "a function in "+n.PoP+" writes", func() bool {
		revision = c.tryWrite(t, n, "writes")
		return revision > 0
	})
	return uint64(revision)
}

// agree waits until functions of the PoPs read at least a revision.
func (c *cutWorld) agree(t *testing.T, pops []up.Node, revision uint64) {
	t.Helper()
	for _, n := range pops {
		eventually(t, fmt.Sprintf("%s reads revision %d", n.PoP, revision), func() bool { return c.read(t, n) >= revision })
	}
}
