package fleet

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var testKey = []byte("0123456789abcdef0123456789abcdef")

// town is some members on one mesh.
type town struct {
	t    *testing.T
	mesh *mesh
	all  []*Fleet
	mu   sync.Mutex
	seen map[string][]Event
	news map[string][]Head
}

func newTown(t *testing.T) *town {
	return &town{t: t, mesh: newMesh(), seen: map[string][]Event{}, news: map[string][]Head{}}
}

func address(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 7946)
}

// join adds member i, which knows the address of member 1.
func (w *town) join(i int, change ...func(*Config)) *Fleet {
	w.t.Helper()
	name := fmt.Sprintf("n%d", i)
	c := Config{
		Fleet: "test", Name: name, Key: testKey, Bind: address(i).String(), Seeds: []string{address(1).String()},
		Meta:      Meta{Role: Node, PoP: fmt.Sprintf("pop-%d", i%3), Region: "eu", Public: "192.0.2.1:443", Peer: address(i).String(), Version: "v1"},
		Transport: w.mesh.open(address(i)),
		OnEvent:   func(e Event) { w.mu.Lock(); defer w.mu.Unlock(); w.seen[name] = append(w.seen[name], e) },
		OnHead:    func(h Head) { w.mu.Lock(); defer w.mu.Unlock(); w.news[name] = append(w.news[name], h) },
	}
	for _, f := range change {
		f(&c)
	}
	f, err := Join(c)
	if err != nil {
		w.t.Fatal(err)
	}
	w.all = append(w.all, f)
	return f
}

// end closes everyone and lets what memberlist still has under way run out.
func (w *town) end() {
	for _, f := range w.all {
		if err := f.Close(); err != nil {
			w.t.Error(err)
		}
	}
	time.Sleep(2 * time.Minute)
}

// until waits, in virtual time, and returns how long it took.
func (w *town) until(what string, limit time.Duration, done func() bool) time.Duration {
	w.t.Helper()
	start := time.Now()
	for !done() {
		if time.Since(start) > limit {
			w.t.Fatalf("%s: not within %v", what, limit)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return time.Since(start)
}

func (w *town) whole(n int) func() bool {
	return func() bool {
		return !slices.ContainsFunc(w.all, func(f *Fleet) bool { return f.Stats().Alive != n })
	}
}

func TestMembersFindOneAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t)
		defer w.end()
		for i := 1; i <= 10; i++ {
			w.join(i)
		}
		w.until("ten members", time.Minute, w.whole(10))
		got := w.all[3].Members()
		if len(got) != 10 || got[0].Name != "n1" || got[1].Name != "n10" {
			t.Fatalf("members: %v", got)
		}
		m, ok := w.all[9].Member("n4")
		want := Meta{Role: Node, PoP: "pop-1", Region: "eu", Public: "192.0.2.1:443", Peer: "10.0.0.4:7946", Version: "v1"}
		if !ok || m.Meta != want || m.Gossip != address(4) || m.Health != Alive {
			t.Errorf("n4: %+v", m)
		}
		if a := w.all[0].Address(); a != address(1) {
			t.Errorf("address %s", a)
		}
	})
}

func TestFailureLeaveAndReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t)
		defer w.end()
		for i := 1; i <= 5; i++ {
			w.join(i)
		}
		w.until("five members", time.Minute, w.whole(5))
		health := func(name string, h Health) func() bool {
			return func() bool { m, _ := w.all[0].Member(name); return m.Health == h }
		}
		if err := w.all[4].Leave(5 * time.Second); err != nil {
			t.Fatal(err)
		}
		w.all[4].Close()
		w.until("the word of leaving", time.Minute, health("n5", Left)) // without it: Failed

		w.all[3].Close() // without a word
		took := w.until("the failure", time.Minute, health("n4", Failed))
		t.Logf("failure known after %v", took)

		// It comes back under its name, at another address.
		w.mesh.mu.Lock()
		delete(w.mesh.mu.ports, address(4).String())
		w.mesh.mu.Unlock()
		moved := w.join(6, func(c *Config) { c.Name = "n4" })
		took = w.until("the return", 3*time.Minute, func() bool {
			m, _ := w.all[0].Member("n4")
			return m.Health == Alive && m.Gossip == address(6)
		})
		t.Logf("return at another address known after %v", took)
		w.until("the mover's view", time.Minute, func() bool { return moved.Stats().Alive == 4 })

		w.mu.Lock()
		defer w.mu.Unlock()
		var kinds []string
		for _, e := range w.seen["n1"] {
			if e.Kind != Conflict {
				kinds = append(kinds, e.Member.Name+" "+e.Kind.String()+" "+e.Member.Health.String())
			}
		}
		for _, want := range []string{"n1 joined alive", "n5 joined alive", "n5 gone left", "n4 gone failed"} {
			if !slices.Contains(kinds, want) {
				t.Errorf("no event %q in %v", want, kinds)
			}
		}
		if last := kinds[len(kinds)-1]; last != "n4 joined alive" {
			t.Errorf("last event %q", last)
		}
	})
}

// TestLongPartitionHeals cuts a fleet in two for ten minutes: long enough for
// memberlist to forget the other half. The rejoin loop must find it again.
func TestLongPartitionHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t)
		defer w.end()
		const n = 20
		for i := 1; i <= n; i++ {
			w.join(i, func(c *Config) {
				c.Seeds = nil
				if i > 1 {
					c.Seeds = []string{address(i - 1).String()} // nobody is everyone's seed
				}
			})
		}
		w.until("twenty members", 2*time.Minute, w.whole(n))
		low := func(a netip.Addr) bool { return a.As4()[3] <= n/2 }
		w.mesh.split(func(a, b netip.Addr) bool { return low(a) != low(b) })
		w.until("two halves", 2*time.Minute, w.whole(n/2))
		time.Sleep(10 * time.Minute)
		if !w.whole(n / 2)() {
			t.Error("the halves did not stay apart")
		}
		w.all[0].Announce(Head{Log: "catalog", Epoch: 1, Sequence: 7})
		w.mesh.heal()
		took := w.until("one fleet again", time.Minute, w.whole(n))
		t.Logf("healed after %v", took)
		w.until("the head in the other half", 30*time.Second, func() bool { return len(w.all[n-1].Heads()) == 1 })
	})
}

func TestHeadsTravel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t)
		defer w.end()
		w.mesh.mu.loss = 0.2
		for i := 1; i <= 15; i++ {
			w.join(i)
		}
		w.until("fifteen members", 2*time.Minute, w.whole(15))
		for seq := range uint64(50) {
			if err := w.all[2].Announce(Head{Log: "catalog", Epoch: 1, Sequence: seq + 1}); err != nil {
				t.Fatal(err)
			}
		}
		w.all[3].Announce(Head{Log: "catalog", Epoch: 1, Sequence: 3}) // old news are none
		newest := Head{Log: "catalog", Epoch: 1, Sequence: 50}
		took := w.until("the newest head everywhere", 20*time.Second, func() bool {
			return !slices.ContainsFunc(w.all, func(f *Fleet) bool { return !slices.Equal(f.Heads(), []Head{newest}) })
		})
		t.Logf("head everywhere after %v at 20 %% loss", took)
		w.all[5].Announce(Head{Log: "catalog", Epoch: 2, Sequence: 1})
		w.until("the newer epoch", 20*time.Second, func() bool { return w.all[9].Heads()[0].Epoch == 2 })
		time.Sleep(time.Second)
		w.mu.Lock()
		heard := slices.Clone(w.news["n10"])
		w.mu.Unlock()
		if !slices.IsSortedFunc(heard, func(a, b Head) int {
			if a.After(b) {
				return 1
			}
			return -1
		}) || heard[len(heard)-1].Epoch != 2 {
			t.Errorf("heard %v", heard)
		}
		late := w.join(16) // push/pull brings it to who was not there
		w.until("the head at a newcomer", 20*time.Second, func() bool { return len(late.Heads()) == 1 })
	})
}

func TestDuplicateName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t)
		defer w.end()
		first := w.join(1)
		w.join(2)
		w.join(3)
		w.until("three members", time.Minute, w.whole(3))
		second := w.join(9, func(c *Config) { c.Name = "n2" })
		w.until("the second to be told", time.Minute, func() bool { return errors.Is(second.Duplicate(), ErrDuplicate) })
		time.Sleep(time.Minute)
		if m, _ := first.Member("n2"); m.Gossip != address(2) || m.Health != Alive {
			t.Errorf("the first of the name: %+v", m)
		}
		if n := second.Stats().Alive; n != 1 {
			t.Errorf("the second found %d members", n)
		}
		if second.Stats().Conflicts == 0 || !strings.Contains(second.Duplicate().Error(), "10.0.0.2:7946") {
			t.Errorf("reported: %v", second.Duplicate())
		}
		w.all = slices.DeleteFunc(w.all, func(f *Fleet) bool { f2 := f == second; return f2 })
		second.Close()
	})
}

func TestStrangersStayOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t)
		defer w.end()
		w.join(1)
		w.join(2, func(c *Config) { c.Key = []byte("fedcba9876543210") })
		w.join(3, func(c *Config) { c.Fleet = "another" })
		w.join(4)
		time.Sleep(time.Minute)
		for i, want := range []int{2, 1, 1, 2} {
			if n := w.all[i].Stats().Alive; n != want {
				t.Errorf("member %d sees %d, want %d", i+1, n, want)
			}
		}
	})
}

// TestSeedsOutliveARestart restarts a member that has no configured seed.
func TestSeedsOutliveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t)
		defer w.end()
		file := filepath.Join(t.TempDir(), "seeds.json")
		keep := func(c *Config) { c.SeedsFile = file }
		w.join(1)
		third := w.join(3, keep)
		w.until("two members", time.Minute, w.whole(2))
		third.Close()
		w.all = w.all[:1]
		w.until("it is missed", time.Minute, w.whole(1))
		w.join(3, keep, func(c *Config) { c.Seeds = nil })
		w.until("two members again", time.Minute, w.whole(2))

		if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		w.all[1].Close()
		w.all = w.all[:1]
		w.join(3, keep) // a file that cannot be read is no reason not to start
		w.until("two members from configured seeds", time.Minute, w.whole(2))
	})
}

func TestConfigIsValidated(t *testing.T) {
	_, err := Join(Config{Name: "Bad_Name", Key: []byte("short"), Bind: "nowhere", Seeds: []string{"x"}, Advertise: "y", Meta: Meta{Role: Node}})
	for _, want := range []string{"fleet id", "Bad_Name", "never in the clear", "nowhere", `seed "x"`, `advertise "y"`, "pop"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: does not say %q", err, want)
		}
	}
	if _, err := Join(Config{Fleet: "f", Name: "n", Key: testKey, Bind: "0.0.0.0:0", Meta: Meta{Role: Control}}); err == nil || !strings.Contains(err.Error(), "advertise") {
		t.Errorf("every address without one to tell others: %v", err)
	}
}
