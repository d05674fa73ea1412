package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/selvage-edge/selvage/cmd/selvage/request"
	"github.com/selvage-edge/selvage/runtime/guesttest"
)

// reply is what a request of a function got.
type reply struct {
	status int
	body   string
}

// A function pinned to eu is answered at nyc through upgrades of either node, and what lon
// has begun when it is upgraded, or stopped, it ends.
func TestPinnedThroughUpgrades(t *testing.T) {
	w := openWorldOf(t, "127.0.12.70", 2)
	lon, nyc := w.Layout.Edges[0], w.Layout.Edges[1]
	pin := []string{"[placement]", `include = ["region = eu"]`, "residency = true"}
	w.selvage(t, "deploy", "--wait", w.function(t, "slow", guesttest.Guest(t, strings.Replace(inHalves, "4000000000", "8000000000", 1)), pin...)).expect(t, exitOK, "live", "elsewhere")
	w.selvage(t, "deploy", "--wait", w.function(t, "pinned", says(t, "from eu"), pin...)).expect(t, exitOK, "live", "elsewhere")
	w.answers(t, nyc, "pinned", "from eu")
	across := func(what string, meanwhile func()) {
		t.Helper()
		got := make(chan reply, 1)
		go func() {
			status, body := w.getFrom(t, nyc, request.HTTP2, "slow", "/")
			got <- reply{status, body}
		}()
		eventually(t, "it goes on", func() bool {
			return metric(nyc, "selvage_forward_running") == 1 && metric(lon, "selvage_limit_running") == 1
		})
		meanwhile()
		if a := <-got; a.status != 200 || !strings.HasSuffix(a.body, "second\n") {
			t.Errorf("%s: %d %q", what, a.status, a.body)
		}
	}
	across("lon was upgraded", func() {
		w.selvage(t, "edge", "upgrade", "--config", lon.Config, "--binary", w.another(t, "next")).expect(t, exitOK)
	})

	eventually(t, "nyc has written down where lon is", func() bool {
		kept, err := os.ReadFile(filepath.Join(nyc.State, "members.json"))
		return err == nil && strings.Contains(string(kept), `"lon-1"`)
	})
	stop, over := make(chan struct{}), make(chan int)
	go func() {
		asked := 0
		defer func() { over <- asked }()
		for ; ; asked++ {
			select {
			case <-stop:
				return
			default:
			}
			if status, body := w.getFrom(t, nyc, request.HTTP2, "pinned", "/"); status != 200 {
				t.Errorf("while nyc is upgraded: %d %s", status, body)
			}
		}
	}()
	w.selvage(t, "edge", "upgrade", "--config", nyc.Config, "--binary", w.another(t, "next")).expect(t, exitOK)
	eventually(t, "the new server hands on", func() bool { return metric(nyc, "selvage_forward_placed_total") > 5 })
	close(stop)
	if n := <-over; n < 5 {
		t.Errorf("%d requests", n)
	}
	across("lon was stopped", func() {
		if err := syscall.Kill(w.Edges[lon.Name].PID(), syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	})
	<-w.Edges[lon.Name].Done()
}
