package agent

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/control/report"
)

// counted counts the reports that go over a link.
type counted struct {
	Doer
	reports atomic.Int64
}

func (c *counted) Do(r *http.Request) (*http.Response, error) {
	if r.URL.Path == report.Path {
		c.reports.Add(1)
	}
	return c.Doer.Do(r)
}

// beside returns another agent of the same node, in the same folder.
func (n *node) beside() *node {
	next := &node{t: n.t, control: n.control, id: n.id, dir: n.dir, link: n.link, held: make(chan struct{}), live: map[*version]bool{}}
	n.t.Cleanup(func() { next.end() })
	return next
}

// While a node is upgraded two agents share its folder: both keep up with the
// catalog, one of them reports and writes.
func TestTwoAgentsInOneFolder(t *testing.T) {
	c := newControl(t)
	old := newNode(t, c)
	oldLink := &counted{Doer: old.link}
	old.link = oldLink
	old.run()
	c.deploy("f", routeOf("f.example"), "one")
	old.serves("f.example", "one")
	old.until("the catalog is kept", func() bool { _, err := os.Stat(filepath.Join(old.dir, "catalog")); return err == nil })

	writing, err := os.CreateTemp(filepath.Join(old.dir, "blobs"), ".new-")
	if err != nil {
		t.Fatal(err)
	}
	writing.Close() // nobody has it locked: a crash left it
	reign := make(chan struct{})
	next := old.beside()
	nextLink := &counted{Doer: oldLink.Doer}
	next.link = nextLink
	next.run(func(c *Config[*version]) { c.Reign = reign })
	next.serves("f.example", "one")
	if _, err := os.Stat(writing.Name()); err == nil {
		t.Error("what a crash left half written is still there")
	}
	c.deploy("f", routeOf("f.example"), "two")
	next.serves("f.example", "two")
	old.serves("f.example", "two")
	if got := nextLink.reports.Load(); got != 0 {
		t.Errorf("the one beside sent %d reports", got)
	}

	old.agent.Retire()
	before := oldLink.reports.Load()
	close(reign)
	r := c.deploy("f", routeOf("f.example"), "three")
	next.serves("f.example", "three")
	old.serves("f.example", "three") // what it still serves is not stale
	old.until("control knows, from the new one", func() bool { return c.status(r).State == report.Live && nextLink.reports.Load() > 0 })
	if got := oldLink.reports.Load(); got > before+1 { // one may have been under way
		t.Errorf("the retired one sent %d more reports", got-before)
	}
	old.end()
	next.until("the new one keeps the catalog", func() bool { return next.agent.Stats().Connected })
	next.end()
	c.stop()
	next.run()
	next.serves("f.example", "three")
}

// What is being written by another agent of the node stays.
func TestHalfWrittenByAnother(t *testing.T) {
	dir := t.TempDir()
	a, err := openBlobs(dir, nil, newPop("n1", nil, nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, goOn := newSlowReader("two halves")
	done := make(chan error, 1)
	d := codeOf("x")
	go func() { done <- a.write(d, int64(len("two halves")), body) }()
	<-body.begun
	if _, err := openBlobs(dir, nil, newPop("n1", nil, nil), nil); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 || !strings.HasPrefix(files[0].Name(), ".new-") {
		t.Errorf("%v, %v: what is being written was removed", files, err)
	}
	close(goOn)
	if err := <-done; err == nil {
		t.Error("other bytes than the digest's were taken") // the file was whole until then
	}
}

// slowReader gives its text when it is told to.
type slowReader struct {
	text        *strings.Reader
	begun, goOn chan struct{}
	first       bool
}

func newSlowReader(text string) (*slowReader, chan struct{}) {
	r := &slowReader{text: strings.NewReader(text), begun: make(chan struct{}), goOn: make(chan struct{})}
	return r, r.goOn
}

func (r *slowReader) Read(b []byte) (int, error) {
	if !r.first {
		r.first = true
		close(r.begun)
		<-r.goOn
	}
	return r.text.Read(b)
}

// A node whose servers die of the newest catalog serves the one that served
// well, and after a while gives the newest another chance.
func TestHoldsWhatServedWell(t *testing.T) {
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

	n.run(func(c *Config[*version]) { c.Hold = time.Hour })
	n.serves("f.example", "good")
	n.until("it says so", func() bool { n.mu.Lock(); defer n.mu.Unlock(); return has(n.events, CatalogHeld) })
	n.end()
	n.run(func(c *Config[*version]) { c.Hold = 50 * time.Millisecond })
	n.serves("f.example", "fatal")
}

func has(events []Event, kind EventKind) bool {
	for _, e := range events {
		if e.Kind == kind {
			return true
		}
	}
	return false
}
