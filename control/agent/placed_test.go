package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/control/api"
	"github.com/selvage-edge/selvage/control/report"
	"github.com/selvage-edge/selvage/edge/serve"
	"github.com/selvage-edge/selvage/runtime/artifact"
	"github.com/selvage-edge/selvage/runtime/function"
)

func placement(label, more string) string {
	return "[placement]\ninclude = [\"" + label + "\"]\n" + more + "\n"
}

// nodeInNewYork joins a node that only reports.
func (c *control) nodeInNewYork() {
	c.t.Helper()
	b, err := json.Marshal(report.Report{Node: "n2", PoP: "nyc"})
	if err != nil {
		c.t.Fatal(err)
	}
	r, err := http.NewRequest(http.MethodPost, report.Path, bytes.NewReader(b))
	if err != nil {
		c.t.Fatal(err)
	}
	resp, err := c.peerClient(c.join("n2", "nyc")).Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	resp.Body.Close()
}

// stateOn is where control knows a node to be with a release.
func (c *control) stateOn(r api.Release, node string) report.State {
	c.t.Helper()
	var s api.Status
	c.call("GET", fmt.Sprintf("/v1/projects/default/functions/%s/releases/%d/status", r.Function, r.Number), nil, 200, &s)
	for _, p := range s.PoPs {
		for _, n := range p.Nodes {
			if n.Node == node {
				return n.State
			}
		}
	}
	return ""
}

// targetOf is what a host leads to; nil if to nothing.
func (n *node) targetOf(host string) *serve.Target {
	t := n.table.Load()
	if t == nil {
		return nil
	}
	target, ok := t.Lookup(host, "/")
	if !ok {
		return nil
	}
	return target
}

func (n *node) onDisk(code string) bool {
	_, err := os.Stat(n.agent.blobs.path(codeOf(code)))
	return !errors.Is(err, fs.ErrNotExist)
}

// What is pinned elsewhere is not fetched, and what a release before it left is
// removed at once; its routes still lead on.
func TestPinnedElsewhere(t *testing.T) {
	c := newControl(t)
	var forgot atomic.Int32
	n := newNode(t, c).run(func(c *Config[*version]) {
		c.Forget = func(d function.Digest) error {
			if d == codeOf("one") {
				forgot.Add(1)
			}
			return nil
		}
	})
	route := routeOf("f.example")
	c.deploy("f", route, "one")
	n.serves("f.example", "one")

	r := c.deploy("f", route+placement("pop=lon", "residency = true"), "one")
	n.until("control knows that it may stay", func() bool { return c.stateOn(r, "n1") == report.Live })
	if n.targetOf("f.example").Away {
		t.Error("what is pinned here is sent away")
	}
	c.nodeInNewYork()
	r = c.deploy("f", route+placement("pop=nyc", "residency = true"), "one")
	n.until("control knows that it is elsewhere", func() bool { return c.stateOn(r, "n1") == report.Elsewhere })
	if to := n.targetOf("f.example"); to == nil || !to.Away || to.Invoker != nil || to.Version.Placement.String() != "pop=nyc; residency" {
		t.Errorf("its routes lead to %+v", to)
	}
	n.until("what was here is gone", func() bool { return !n.onDisk("one") && forgot.Load() == 1 })
	n.until("it is given back", func() bool { n.mu.Lock(); defer n.mu.Unlock(); return len(n.live) == 0 })
	if h := n.agent.Held(); len(h) != 1 || h[0].Live || h[0].OnDisk || h[0].Allowed || h[0].MayHold || h[0].Name != "f" {
		t.Errorf("held: %+v", h)
	}

	// The same code in a function that may be here is no trespass.
	c.deploy("g", routeOf("g.example"), "one")
	n.serves("g.example", "one")
	if h := n.agent.Held(); len(h) != 2 || h[0].OnDisk || !h[1].OnDisk || !h[1].Live {
		t.Errorf("held: %+v", h)
	}
}

// What was compiled of a code that must not be here goes, also where the code itself has
// gone before: at a start, and with the next sweep where a compilation ends late.
func TestCompiledCodeDoesNotStay(t *testing.T) {
	store, err := artifact.Open(artifact.Config{Dir: t.TempDir(), Key: artifact.Key{1}})
	if err != nil {
		t.Fatal(err)
	}
	compile := func() {
		t.Helper()
		if err := store.Put(codeOf("one"), "engine", []byte("compiled")); err != nil {
			t.Fatal(err)
		}
	}
	compiled := func() bool { return store.Has(codeOf("one"), "engine") }
	c := newControl(t)
	c.nodeInNewYork()
	n := newNode(t, c)
	c.deploy("f", routeOf("f.example")+placement("pop=nyc", "residency = true"), "one")
	compile()
	n.run(func(c *Config[*version]) { c.Forget, c.Compiled = store.Drop, store.Codes })
	n.until("its routes lead on", func() bool { return n.targetOf("f.example") != nil })
	n.until("what was compiled is gone", func() bool { return !compiled() })
	if h := n.agent.Held(); len(h) != 1 || h[0].OnDisk {
		t.Errorf("held: %+v", h)
	}

	compile()
	if h := n.agent.Held(); len(h) != 1 || !h[0].OnDisk {
		t.Errorf("with what is compiled: %+v", h)
	}
	n.end()
	l := newLoop(t.Context(), n.agent)
	l.plan()
	defer l.end()
	s := l.slots[function.ID{Project: "default", Name: "f"}]
	s.live, l.swept = elsewhere[*version](s.want), time.Time{}
	l.sweep()
	if compiled() {
		t.Error("a sweep leaves what is compiled")
	}

	compile() // the same code, where a function may have it
	s.want.Placement.Residency = false
	s.live, l.swept = &ready[*version]{release: s.want, held: true}, time.Time{}
	l.sweep()
	if !compiled() {
		t.Error("what may be here is gone")
	}
	s.live = nil
}

// A placement that is no pin: it is held here for when nobody else can answer.
func TestPlacedElsewhere(t *testing.T) {
	c := newControl(t)
	n := newNode(t, c).run(func(c *Config[*version]) { c.Self.Labels = []string{"tier=large"} })
	c.deploy("f", routeOf("f.example")+placement("pop=nyc", ""), "one")
	n.serves("f.example", "one")
	if to := n.targetOf("f.example"); !to.Away {
		t.Error("it is not sent on")
	}
	c.deploy("g", routeOf("g.example")+placement("tier=large", ""), "two")
	n.serves("g.example", "two")
	if to := n.targetOf("g.example"); to.Away {
		t.Error("what has the node's label is sent on")
	}
	if h := n.agent.Held(); len(h) != 2 || h[0].Allowed || !h[0].MayHold || !h[0].Live || !h[1].Allowed || !strings.Contains(h[1].Placement.String(), "tier=large") {
		t.Errorf("held: %+v", h)
	}
}
