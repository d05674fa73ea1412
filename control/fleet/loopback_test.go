package fleet

import (
	"fmt"
	"testing"
	"time"
)

// TestLoopback runs three members over real sockets.
func TestLoopback(t *testing.T) {
	events := make(chan Event, 100)
	heads := make(chan Head, 100)
	open := func(i int, seeds ...string) *Fleet {
		t.Helper()
		f, err := Join(Config{
			Fleet: "loopback", Name: fmt.Sprintf("n%d", i), Key: testKey, Bind: fmt.Sprintf("127.0.0.%d:0", 10+i), Seeds: seeds,
			Meta: Meta{Role: Node, PoP: "lon"}, Rejoin: 200 * time.Millisecond,
			OnEvent: func(e Event) {
				if i == 1 {
					events <- e
				}
			},
			OnHead: func(h Head) {
				if i == 1 {
					heads <- h
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	first := open(1)
	second := open(2, first.Address().String())
	third := open(3, second.Address().String())
	for _, name := range []string{"n1", "n2", "n3"} {
		expect(t, events, func(e Event) bool { return e.Kind == Joined && (e.Member.Name == name || name != "n1") })
	}
	if err := third.Announce(Head{Log: "catalog", Epoch: 1, Sequence: 42}); err != nil {
		t.Fatal(err)
	}
	expect(t, heads, func(h Head) bool { return h.Sequence == 42 })
	if err := third.Leave(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	third.Close()
	expect(t, events, func(e Event) bool { return e.Kind == Gone && e.Member.Name == "n3" && e.Member.Health == Left })
	// A seed that does not answer must not hold up the end.
	lonely := open(4, "192.0.2.1:9")
	start := time.Now()
	if err := lonely.Close(); err != nil || time.Since(start) > 3*time.Second {
		t.Errorf("close: %v after %v", err, time.Since(start))
	}
}

func expect[T any](t *testing.T, from <-chan T, ok func(T) bool) {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		select {
		case v := <-from:
			if ok(v) {
				return
			}
		case <-late:
			t.Fatal("did not happen within 20 s")
		}
	}
}
