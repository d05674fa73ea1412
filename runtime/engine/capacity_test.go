package engine

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/selvage-edge/selvage/runtime/image"
)

const waitWAT = `(module
  (import "test" "wait" (func $wait (param i32) (result i32)))
  (import "selvage_v1" "response_write" (func $write (param i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "waited")
  (func (export "handle")
    (i32.store8 (i32.const 70000) (i32.const 1))
    (i32.store8 (i32.const 5) (call $wait (i32.const 7)))
    (drop (call $write (i32.const 0) (i32.const 6)))))`

func status(t testing.TB, key string) (n int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			fmt.Sscan(rest, &n)
		}
	}
	return n
}

// A function that waits holds no thread, and costs the maps that we count.
func TestManySuspended(t *testing.T) {
	const n = 2000
	p, img := build(t, waitWAT, ProgramConfig{})
	threads := status(t, "Threads")
	before, err := readMaps()
	if err != nil {
		t.Fatal(err)
	}
	counted := eng.Stats().Maps
	instances := make([]*Instance, n)
	for i := range instances {
		instances[i] = start(t, p, StartConfig{})
		if e := run(instances[i]); e.Kind != Call || e.Op != opWait || e.N != 1 || e.Args[0] != 7 {
			t.Fatalf("instance %d: %+v, trap %v", i, e, e.Trap)
		}
	}
	after, err := readMaps()
	if err != nil {
		t.Fatal(err)
	}
	if more := status(t, "Threads") - threads; more > 2 {
		t.Errorf("%d suspended instances hold %d threads", n, more)
	}
	real, counted := after.now-before.now, eng.Stats().Maps-counted
	t.Logf("%d suspended: %.1f maps each, counted as %.1f", n, float64(real)/n, float64(counted)/n)
	if real > counted+64 {
		t.Errorf("%d maps are counted as %d", real, counted)
	}
	for i, in := range instances {
		in.Resume(int64('0' + i%10))
		if e := run(in); e.Kind != Done {
			t.Fatalf("instance %d: %v", i, e.Trap)
		}
		if want := fmt.Sprintf("waite%d", i%10); string(in.Response().Body) != want {
			t.Fatalf("instance %d: %q", i, in.Response().Body)
		}
		in.Close()
	}
	if slots, err := img.Audit(); err != nil || slots < 1 {
		t.Errorf("audit of %d slots: %v", slots, err)
	}
}

func TestCapacity(t *testing.T) { child(t, "capacity") }

// With room for a hundred maps some twenty instances fit; the next is refused,
// and fits again once one is gone.
func capacityChild(t testing.TB) error {
	p, _ := build(t, waitWAT, ProgramConfig{})
	var alive []*Instance
	for {
		in, err := p.Start(StartConfig{MemoryLimit: memoryLimit})
		if errors.Is(err, ErrCapacity) {
			break
		}
		if err != nil || len(alive) > 50 {
			return fmt.Errorf("%d instances: %w", len(alive), err)
		}
		if e := run(in); e.Kind != Call {
			return fmt.Errorf("event %d: %w", e.Kind, e.Trap)
		}
		alive = append(alive, in)
	}
	if len(alive) < 10 {
		return fmt.Errorf("only %d instances fit", len(alive))
	}
	var images []*Image
	for len(images) < 8 { // fewer than an instance's maps are left
		m, err := eng.Image(&image.Image{Size: 1 << 16})
		if errors.Is(err, ErrCapacity) {
			break
		}
		if err != nil {
			return fmt.Errorf("image: %w", err)
		}
		images = append(images, m)
	}
	if len(images) == 8 {
		return errors.New("images are made without end")
	}
	for _, m := range images {
		m.Close()
	}
	alive[0].Close()
	in, err := p.Start(StartConfig{MemoryLimit: memoryLimit})
	if err != nil {
		return fmt.Errorf("after one was closed: %w", err)
	}
	in.Close()
	for _, in := range alive[1:] {
		in.Close()
	}
	// Free slots of one program make room for another.
	q, _ := build(t, helloWAT, ProgramConfig{})
	for i := range 15 {
		in, err := q.Start(StartConfig{MemoryLimit: memoryLimit})
		if err != nil {
			return fmt.Errorf("instance %d of another program: %w", i, err)
		}
		defer in.Close()
		run(in)
	}
	return nil
}

func TestResidentBudget(t *testing.T) { child(t, "budget") }

// Free slots keep their pages up to the budget; the coldest go first.
func budgetChild(t testing.TB) error {
	const wat = `(module (memory (export "memory") 4)
	  (func (export "handle") (memory.fill (i32.const 0) (i32.const %d) (i32.const 262144))))` // 64 pages
	var programs []*Program
	for i := range 8 {
		p, _ := build(t, fmt.Sprintf(wat, i+1), ProgramConfig{})
		programs = append(programs, p)
	}
	for range 3 {
		for _, p := range programs {
			in := start(t, p, StartConfig{})
			if e := run(in); e.Kind != Done {
				return e.Trap
			}
			in.Close()
			if s := eng.Stats(); s.ResidentBytes > 1<<20 {
				return fmt.Errorf("free slots keep %d bytes", s.ResidentBytes)
			}
		}
	}
	if s := eng.Stats(); s.Scanning && (s.SlotsFree != 4 || s.ResidentBytes != 1<<20) {
		return fmt.Errorf("%d free slots keep %d bytes", s.SlotsFree, s.ResidentBytes)
	}
	return nil
}
