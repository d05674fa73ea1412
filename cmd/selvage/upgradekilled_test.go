package main

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/selvage-edge/selvage/cmd/selvage/up"
	"github.com/selvage-edge/selvage/edge/keeper"
	"github.com/selvage-edge/selvage/runtime/guesttest"
)

// A node whose keeper or server is killed during an upgrade serves what it did,
// and takes a deployment and the next upgrade.
func TestKilledDuringUpgrade(t *testing.T) {
	w := openWorld(t, "127.0.7.50")
	n := w.Layout.Edges[0]
	w.selvage(t, "deploy", "--wait", w.function(t, "good", guesttest.Guest(t, greet))).expect(t, exitOK, "live")
	for _, step := range []keeper.EventKind{keeper.Upgrading, keeper.Started, keeper.Ready, keeper.Draining, keeper.Exited, keeper.Became} {
		t.Run("keeper, "+step.String(), func(t *testing.T) {
			done := w.upgradeUntil(t, n, step)
			k := w.Edges[n.Name]
			kill9(t, k.PID())
			<-k.Done()
			<-done
			eventually(t, "no server stays without a keeper", func() bool {
				c, err := net.Dial("tcp", n.Public)
				if err == nil {
					c.Close()
				}
				return errors.Is(err, syscall.ECONNREFUSED)
			})
			if err := w.StartEdge(t.Context(), n); err != nil { // as systemd does
				t.Fatal(err)
			}
			w.answers(t, n, "good", "woven\n")
		})
	}
	for _, step := range []keeper.EventKind{keeper.Started, keeper.Ready} {
		for _, victim := range []string{"old", "new"} {
			t.Run(victim+" server, "+step.String(), func(t *testing.T) {
				old := w.onlyServer(t, n)
				done := w.upgradeUntil(t, n, step)
				for _, pid := range w.servers(t, n) {
					if (pid == old) == (victim == "old") {
						kill9(t, pid)
					}
				}
				if r := <-done; r.code != exitOK && (victim == "old" || !strings.Contains(r.errout, "serves on")) {
					t.Errorf("exit code %d\n%s%s", r.code, r.out, r.errout)
				}
				w.answers(t, n, "good", "woven\n")
			})
		}
	}
	w.selvage(t, "edge", "upgrade", "--config", n.Config, "--binary", w.another(t, "last")).expect(t, exitOK, "upgraded to")
	w.selvage(t, "deploy", "--wait", w.function(t, "after", says(t, "after"))).expect(t, exitOK, "live")
	w.answers(t, n, "after", "after")
	w.answers(t, n, "good", "woven\n")
}

// upgradeUntil begins an upgrade and returns when it came to step; its result follows.
func (w *world) upgradeUntil(t *testing.T, n up.Node, step keeper.EventKind) <-chan result {
	t.Helper()
	before := len(logOf(t, n))
	done, next := make(chan result, 1), w.another(t, "next")
	go func() { done <- w.selvage(t, "edge", "upgrade", "--config", n.Config, "--binary", next) }()
	eventually(t, "the log tells of the step", func() bool {
		return strings.Contains(logOf(t, n)[before:], `"msg":"server `+step.String()+`"`)
	})
	return done
}
