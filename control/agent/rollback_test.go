package agent

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/selvage-edge/selvage/control/changes"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/store"
)

// A control node whose disk went back in time is shown so by the nodes, who have
// what it signed: it writes nothing more, also after a restart, until it has a new epoch.
func TestControlThatWentBackInTime(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	n := newNode(t, c).run()
	c.deploy("f", routeOf("f.example"), "one")
	n.serves("f.example", "one")
	c.stop()
	backup := t.TempDir()
	if err := os.CopyFS(backup, os.DirFS(c.dir)); err != nil {
		t.Fatal(err)
	}
	c.start()
	c.deploy("f", routeOf("f.example"), "two")
	n.serves("f.example", "two")
	n.until("it has the newest batch", func() bool { return n.agent.Stats().Relay.Bytes > 0 && n.agent.Stats().Connected })

	c.stop()
	c.dir = backup
	c.start()
	refused := func(name string) func() bool {
		return func() bool {
			r, err := http.NewRequest("DELETE", "https://"+c.apiAddr+"/v1/projects/default/functions/"+name, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+c.created.AdminToken)
			resp, err := c.client.Do(r)
			if err != nil {
				return false
			}
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			return resp.StatusCode == http.StatusConflict && strings.Contains(string(b), "store-rolled-back") && strings.Contains(string(b), "new-epoch")
		}
	}
	n.until("control was shown", func() bool { return errors.Is(c.store.Health(t.Context()), store.ErrRolledBack) })
	if !refused("f")() {
		t.Error("it writes on")
	}
	n.serves("f.example", "two")
	c.stop()
	c.start()
	if !refused("f")() {
		t.Error("after a restart it writes again")
	}
	var list json.RawMessage
	c.call("GET", "/v1/projects/default/functions", nil, 200, &list) // reads go on
	if _, err := c.store.NewEpoch(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.stop()
	c.start()
	c.deploy("f", routeOf("f.example"), "three")
	n.serves("f.example", "three")
}

// It is shown so too when it was written to at once, so that it is as far as the
// nodes are: the numbers it gave out again are other changes.
func TestControlThatWentBackAndWroteOn(t *testing.T) {
	t.Parallel()
	c := newControl(t)
	n := newNode(t, c).run()
	c.deploy("f", routeOf("f.example"), "one")
	n.serves("f.example", "one")
	c.stop()
	backup := t.TempDir()
	if err := os.CopyFS(backup, os.DirFS(c.dir)); err != nil {
		t.Fatal(err)
	}
	c.start()
	c.deploy("f", routeOf("f.example"), "two")
	n.serves("f.example", "two")
	n.until("it has the newest batch", func() bool { return n.agent.Stats().Relay.Bytes > 0 && n.agent.Stats().Connected })
	head := func() uint64 {
		seq, err := c.store.Head(store.CatalogLog)
		if err != nil {
			t.Fatal(err)
		}
		return seq
	}
	before := head()

	c.stop()
	c.dir = backup
	c.open()
	for i := 0; head() <= before; i++ {
		c.deploy(fmt.Sprint("other-", i), routeOf(fmt.Sprintf("other-%d.example", i)), "other")
	}
	c.servePeers(c.peers, c.api.PeerHandler())
	n.until("control was shown", func() bool { return errors.Is(c.store.Health(t.Context()), store.ErrRolledBack) })
}

// Nobody but who holds a changes key of the fleet can stop a control node so.
func TestAFalseProofStopsNobody(t *testing.T) {
	c := newControl(t)
	n := newNode(t, c)
	c.deploy("f", routeOf("f.example"), "one")
	stranger, err := identity.NewSigner()
	if err != nil {
		t.Fatal(err)
	}
	epoch := c.store.Epoch()
	payload := func(log string, epoch, to uint64) []byte {
		b, err := (&changes.Batch{Log: log, Epoch: epoch, From: to, To: to}).Encode()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, proof := range map[string][]byte{
		"a stranger's":       stranger.Sign(changes.PayloadType, payload("catalog", epoch, 99)).Encode(),
		"of another log":     c.id.Changes.Sign(changes.PayloadType, payload("kv/default/x", epoch, 99)).Encode(),
		"not above the head": c.id.Changes.Sign(changes.PayloadType, payload("catalog", epoch, 1)).Encode(),
		"of an epoch before": c.id.Changes.Sign(changes.PayloadType, payload("catalog", epoch-1, 99)).Encode(),
		"of another type":    c.id.Changes.Sign("application/json", payload("catalog", epoch, 99)).Encode(),
		"the catalog key's":  c.id.Catalog.Sign(changes.PayloadType, payload("catalog", epoch, 99)).Encode(),
		"no proof":           []byte("99"),
	} {
		b, err := json.Marshal(changes.Request{Logs: []changes.Want{{Log: "catalog", Position: changes.Position{Epoch: epoch, Seq: 99}, Proof: proof}}})
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequestWithContext(t.Context(), "POST", changes.Path, bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := n.link.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := bufio.NewReader(resp.Body).ReadString('}') // the stream goes on
		resp.Body.Close()
		if err != nil || !strings.Contains(answer, "rolled back") {
			t.Errorf("%s: %q, %v", name, answer, err)
		}
		c.deploy("f", routeOf("f.example"), name) // it writes on
	}
}
