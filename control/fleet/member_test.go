package fleet

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
)

// What is counted as members come and go is what is there.
func TestViewCountsWhoLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seed := rand.Uint64()
		r, v := rand.New(rand.NewPCG(seed, 0)), newView("a")
		alive := func(m *Member) bool { return m.Health == Alive }
		for range 2000 {
			v.set(&memberlist.Node{Name: fmt.Sprint("n", r.IntN(20)), Addr: net.IPv4(10, 0, 0, 1), Port: 1}, Health(1+r.IntN(3)))
			time.Sleep(time.Duration(r.IntN(300)) * time.Second) // some are gone for long, and forgotten
			if n, list := v.alive(), v.snapshot(alive); n != len(list) || v.stats().Alive != n {
				t.Fatalf("seed %d: %d are counted and %+v, %d are there", seed, n, v.stats(), len(list))
			}
		}
		if all := v.snapshot(anyone); len(all) != v.stats().Alive+v.stats().Failed+left(all) {
			t.Errorf("seed %d: %d are listed, and counted %+v", seed, len(all), v.stats())
		}
	})
}

func left(all []Member) (n int) {
	for _, m := range all {
		if m.Health == Left {
			n++
		}
	}
	return n
}

// Room that the forgotten leave is given to others.
func TestViewMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newView("a")
		for i := range MaxMembers {
			v.set(&memberlist.Node{Name: fmt.Sprint("n", i), Addr: net.IPv4(10, 0, 0, 1), Port: 1}, Failed)
		}
		if v.admits("new") {
			t.Fatalf("%d members are known and another is admitted", MaxMembers)
		}
		time.Sleep(remember + time.Second)
		if !v.admits("new") {
			t.Error("all are gone for long, and there is no room")
		}
	})
}
