package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selvage-edge/selvage/control/api"
	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/edge/replica"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

var copied = hostcall.Namespace{Project: "default", Name: "links"}

const bindsLinks = "[[kv]]\nname = \"links\"\naccess = \"write\"\n"

// withReplica gives the node a place for copies, of so many bytes; 0: the default.
func (n *node) withReplica(bytes int64) func(*Config[*version]) {
	return func(c *Config[*version]) {
		c.Replica = replica.Config{Dir: filepath.Join(n.dir, "replica"), Bytes: bytes, Spare: 1}
	}
}

func (c *control) mode(m catalog.Mode) {
	c.t.Helper()
	c.call("PUT", "/v1/projects/default/kv/links", api.NamespaceRequest{Mode: m}, 200, nil)
}

func (c *control) fill(keys int, value string) {
	c.t.Helper()
	for i := range keys {
		if _, err := c.store.KV().Put(context.Background(), copied, fmt.Sprintf("key-%03d", i), []byte(value), hostcall.PutOptions{IfRevision: hostcall.AnyRevision}); err != nil {
			c.t.Fatal(err)
		}
	}
}

func (n *node) whole() {
	n.t.Helper()
	n.until("the copy is whole", func() bool { return n.agent.Stats().Copies.Whole == 1 })
}

// has checks what the node says of a key; "" is that it is not there.
func (n *node) has(key, want string) {
	n.t.Helper()
	e, err := n.kv.Get(context.Background(), copied, key)
	if want == "" && !errors.Is(err, hostcall.ErrNotFound) || want != "" && (err != nil || string(e.Value) != want) {
		n.t.Errorf("%s is %.40q, %v; want %q", key, e.Value, err, want)
	}
}

// TestReplicatedNamespaceIsOnDisk takes a node's copy from a first catch-up through a start
// without control, another epoch of the store, and the end of the mode.
func TestReplicatedNamespaceIsOnDisk(t *testing.T) {
	c := newControl(t)
	c.mode(catalog.ModeReplicated)
	c.fill(100, "one")
	n := newNode(t, c)
	n.run(n.withReplica(0))
	c.deploy("f", routeOf("f.example")+bindsLinks, "code")
	n.serves("f.example", "code")
	n.whole()
	misses := n.kv.Stats().Misses
	n.has("key-042", "one")
	n.has("never", "")
	if s := n.kv.Stats(); s.Misses != misses || s.Replica < 2 {
		t.Errorf("%d were asked for elsewhere, %d read from the copy", s.Misses-misses, s.Replica)
	}
	if _, err := c.store.KV().Delete(context.Background(), copied, "key-000", hostcall.AnyRevision); err != nil {
		t.Fatal(err)
	}
	n.until("a deletion is seen", func() bool {
		_, err := n.kv.Get(context.Background(), copied, "key-000")
		return errors.Is(err, hostcall.ErrNotFound)
	})

	n.end()
	c.stop()
	n.run(n.withReplica(0))
	n.serves("f.example", "code")
	n.has("key-099", "one")
	n.has("key-000", "")
	if keys, _, err := n.kv.List(context.Background(), copied, "key-00", "", 100); err != nil || len(keys) != 9 {
		t.Errorf("%d keys, %v", len(keys), err)
	}

	c.start()
	epoch, err := c.store.NewEpoch(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	c.stop()
	c.start()
	c.fill(1, "again")
	n.until("what the new epoch wrote is seen", func() bool {
		e, err := n.kv.Get(context.Background(), copied, "key-000")
		return err == nil && string(e.Value) == "again"
	})
	n.until("the copy is whole in the new epoch", func() bool {
		s := n.agent.spaces
		s.mu.Lock()
		defer s.mu.Unlock()
		b := s.mu.byLog[logOf(copied)]
		return b.attached && b.copy.Position().Epoch == epoch
	})
	n.has("key-050", "one")

	c.mode(catalog.ModeCached)
	n.until("the copy is dropped", func() bool {
		s := n.agent.Stats().Copies
		return s.Whole == 0 && s.Others == 0 && s.Bytes == 0
	})
	n.has("key-050", "one")
	c.mode(catalog.ModeReplicated)
	n.whole()
	n.has("key-051", "one")
}

// TestCopyWithoutRoom has a namespace that does not fit: it is read from control, and that
// is said; with more room there is a copy.
func TestCopyWithoutRoom(t *testing.T) {
	c := newControl(t)
	c.mode(catalog.ModeReplicated)
	c.fill(30, strings.Repeat("x", 100))
	n := newNode(t, c)
	n.run(n.withReplica(2000))
	c.deploy("f", routeOf("f.example")+bindsLinks, "code")
	n.serves("f.example", "code")
	n.until("it is said that there is no room", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, e := range n.events {
			if e.Kind == Replicated && e.Log == logOf(copied) && errors.Is(e.Err, replica.ErrRoom) && strings.Contains(e.What, "limits.replica_bytes") {
				return true
			}
		}
		return false
	})
	if s := n.agent.Stats().Copies; s.NoRoom != 1 || s.Whole != 0 || s.Bytes != 0 {
		t.Errorf("%+v", s)
	}
	n.has("key-001", strings.Repeat("x", 100))
	c.fill(1, "new")
	n.until("changes are seen as in a cached namespace", func() bool {
		e, err := n.kv.Get(context.Background(), copied, "key-000")
		return err == nil && string(e.Value) == "new"
	})
	if u := n.kv.Usage(); len(u) != 1 || u[0].NoRoom != 1 || u[0].Copies != 0 || u[0].Replica != 0 {
		t.Errorf("%+v", u)
	}
	n.agent.spaces.refit()
	if s := n.agent.Stats().Copies; s.NoRoom != 1 {
		t.Errorf("tried again where it cannot fit: %+v", s)
	}
	n.end()
	n.run(n.withReplica(0))
	n.whole()
	n.has("key-000", "new")
}

// TestCopyGoesToTheNextServer has two agents of one node: the copy is the older's until it retires.
func TestCopyGoesToTheNextServer(t *testing.T) {
	c := newControl(t)
	c.mode(catalog.ModeReplicated)
	c.fill(5, "one")
	old := newNode(t, c)
	old.run(old.withReplica(0))
	c.deploy("f", routeOf("f.example")+bindsLinks, "code")
	old.serves("f.example", "code")
	old.whole()

	reign := make(chan struct{})
	next := old.beside()
	next.run(next.withReplica(0), func(c *Config[*version]) { c.Reign = reign })
	next.serves("f.example", "code")
	next.has("key-001", "one")
	if s := next.agent.Stats().Copies; s.Whole != 0 {
		t.Errorf("beside the other it has %+v", s)
	}
	old.has("key-002", "one")
	old.agent.Retire()
	close(reign)
	next.whole()
	next.has("key-003", "one")
	old.has("key-004", "one") // what it still answers it asks control for
	if s := old.agent.Stats().Copies; s.Whole != 0 {
		t.Errorf("the retired one still has %+v", s)
	}
	c.fill(1, "two")
	for _, n := range []*node{old, next} {
		n.until("both see what is written then", func() bool {
			e, err := n.kv.Get(context.Background(), copied, "key-000")
			return err == nil && string(e.Value) == "two"
		})
	}
}
