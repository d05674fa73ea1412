package keeper

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What is killed on the spot during an upgrade, keeper or server, leaves a node
// of the old program or of the new one, which can be upgraded again.

// killVariable has a keeper of these tests kill itself at that event of an upgrade.
const killVariable = "KEEPER_TEST_KILLED"

// killedAt returns what kills this process at the event that killVariable names.
func killedAt() func(Event) {
	point, upgrading := os.Getenv(killVariable), false
	return func(e Event) {
		upgrading = upgrading || e.Kind == Upgrading || e.Kind == Became
		if upgrading && e.Kind.String() == point {
			killSelf()
		}
	}
}

func killSelf() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// killAsKeeper kills somebody while this program is tried as keeper or takes
// over, if its name says so.
func killAsKeeper(left *Inheritance) {
	exe, _ := os.Executable()
	when := "takes"
	if left.Trial() {
		when = "is tried"
	}
	switch who, at, _ := strings.Cut(filepath.Base(exe), " killed when it "); {
	case left == nil || at != when:
	case who == "itself":
		killSelf()
	case who == "keeper":
		_ = syscall.Kill(os.Getppid(), syscall.SIGKILL)
	case who == "server":
		_ = syscall.Kill(left.d.Server.PID, syscall.SIGKILL)
	}
}

func TestKeeperKilledAtEachStep(t *testing.T) {
	for name, tc := range map[string]struct{ program, at string }{
		"before the new server":           {"next", Upgrading.String()},
		"new server started":              {"next", Started.String()},
		"new server ready":                {"next", Ready.String()},
		"old server told to retire":       {"next", Draining.String()},
		"old server gone":                 {"next", Exited.String()},
		"next keeper tried":               {"keeper killed when it is tried", ""},
		"next keeper begins":              {"itself killed when it takes", ""},
		"next keeper has taken over":      {"next", Became.String()},
		"next keeper is about to say so":  {"next", Upgraded.String()},
		"upgrade that fails, before that": {"crashes", Exited.String()},
		"upgrade that fails, after":       {"crashes", Kept.String()},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			k := startKeeper(t, dir, killVariable+"="+tc.at)
			if _, err := Ask(t.Context(), dir, as(t, tc.program), func(Stage) {}); !errors.Is(err, ErrKept) || !strings.Contains(err.Error(), "keeper is gone") {
				t.Errorf("err = %v", err)
			}
			if got := k.end(); got != "signal: killed" {
				t.Fatalf("it ended otherwise: %s", got)
			}
			waitUntil(t, func() bool { // no server is left that would take connections
				c, err := net.Dial("tcp", k.addr)
				if err == nil {
					c.Close()
				}
				return errors.Is(err, syscall.ECONNREFUSED)
			})
			again := startKeeper(t, dir, publicVariable+"="+k.addr)
			if got := dialAsk(t, k.addr, "reigns"); got != fmt.Sprint(again.server) {
				t.Errorf("answered by %q, want %d", got, again.server)
			}
			mustAsk(t, dir, as(t, "next"))
		})
	}
}

func TestServerKilledAtEachStep(t *testing.T) {
	for name, tc := range map[string]struct {
		isOld bool
		at    EventKind
	}{
		"old, before the new one": {true, Upgrading},
		"old, new one started":    {true, Started},
		"old, new one ready":      {true, Ready},
		"old, told to retire":     {true, Draining},
		"new, started":            {false, Started},
		"new, ready":              {false, Ready},
		"new, old one retires":    {false, Draining},
		"new, old one gone":       {false, Exited},
		"new, upgrade finished":   {false, Upgraded},
	} {
		t.Run(name, func(t *testing.T) {
			var first, next int
			var killed bool
			k, dir := upgradable(t, "plain", func(c *Config) {
				note := c.Event
				c.Event = func(e Event) { // on the keeper's own goroutine
					if e.Kind == Started && first == 0 {
						first = e.PID
					} else if e.Kind == Started && next == 0 {
						next = e.PID
					}
					if victim := map[bool]int{true: first, false: next}[tc.isOld]; e.Kind == tc.at && (next != 0 || e.Kind == Upgrading) && !killed {
						killed = syscall.Kill(victim, syscall.SIGKILL) == nil
					}
					note(e)
				}
			})
			old := k.await(t, Ready).Program
			program := as(t, "next")
			want := program.Name()
			if _, err := Ask(t.Context(), dir, program, func(Stage) {}); errors.Is(err, ErrKept) && !tc.isOld {
				want = old
			} else if err != nil {
				t.Fatal(err)
			}
			waitUntil(t, func() bool { // one that is being killed may take a connection along
				pid, _, err := k.ask("reigns")
				return err == nil && isOf(pid, want)
			})
			mustAsk(t, dir, as(t, "again"))
			k.stop(t)
			if !killed {
				t.Error("nothing was killed")
			}
		})
	}
}

func isOf(pid int, program string) bool {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return err == nil && exe == program
}

// The server is killed while its keeper becomes another, before and after.
func TestServerKilledWhileKeeperIsReplaced(t *testing.T) {
	for _, name := range []string{"server killed when it is tried", "server killed when it takes"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			k := startKeeper(t, dir)
			program := as(t, name)
			mustAsk(t, dir, program)
			if !isOf(k.cmd.Process.Pid, program.Name()) {
				t.Error("the keeper is of another program")
			}
			k.next(t) // the one that is killed
			killed := k.server
			k.next(t)
			if got := dialAsk(t, k.addr, "reigns"); got != fmt.Sprint(k.server) || k.server == killed || !isOf(k.server, program.Name()) {
				t.Errorf("answered by %q; killed %d, ready %d", got, killed, k.server)
			}
		})
	}
}
