package store

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// outside starts a JetStream server as an operator would, and returns its URL.
func outside(t *testing.T, payload int32) string {
	t.Helper()
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), SyncAlways: true, MaxPayload: payload, NoSigs: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	})
	if !srv.ReadyForConnections(20 * time.Second) {
		t.Fatal("the outside server did not start")
	}
	return srv.ClientURL()
}

// The same code runs on an outside server, and two control nodes on it see each other's writes.
func TestOutsideServer(t *testing.T) {
	url := outside(t, maxPayload)
	open := func() *Store {
		s, err := Open(t.Context(), Config{URL: url, Replicas: 1})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	one, two := open(), open()
	if one.Epoch() != two.Epoch() {
		t.Errorf("epochs %d and %d", one.Epoch(), two.Epoch())
	}
	rev := mustPut(t, one, links, "k", "v", whenever)
	if e, err := two.KV().Get(t.Context(), links, "k"); err != nil || e.Revision != rev {
		t.Errorf("the other reads %+v, %v", e, err)
	}
	until(t, "the other lists it", func() bool {
		keys, _, err := two.KV().List(t.Context(), links, "", "", 10)
		return err == nil && len(keys) == 1
	})
	if err := two.Audit(t.Context(), "", []byte("two")); err != nil {
		t.Error(err)
	}
	if err := one.Audit(t.Context(), "", []byte("one, after two")); err != nil {
		t.Error(err)
	}
	if n, err := one.VerifyAudit(t.Context()); n != 2 || err != nil {
		t.Errorf("the trail: %d, %v", n, err)
	}
	if err := one.Health(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestOutsideServerWithSmallPayloads(t *testing.T) {
	_, err := Open(t.Context(), Config{URL: outside(t, 1<<20), Replicas: 1})
	if err == nil || !strings.Contains(err.Error(), "max_payload") {
		t.Errorf("%v", err)
	}
}
