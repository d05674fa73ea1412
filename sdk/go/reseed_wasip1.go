package edge

import "unsafe"

// The runtime's generator of random numbers feeds math/rand's and
// math/rand/v2's own functions, maphash.MakeSeed, the seeds of maps and their
// order. It is seeded at start-up, so a snapshot freezes it, and no API seeds it
// again. So start-up looks for where it is, and each request fills it with
// numbers from the host.

//go:linkname runtimeRand runtime.rand
func runtimeRand() uint64

// generator is internal/chacha8rand.State, unchanged from Go 1.22 to 1.26.
type generator struct {
	numbers [32]uint64 // those up to used are
	seed    [4]uint64  // of those that come after
	used    uint32
	usable  uint32 // all, or all but those that become the next seed
	counter uint32 // of blocks made of seed, times 4; at 16 it gets another
}

// theGenerator is nil if it was not found: then what it feeds stays frozen.
var theGenerator *generator

// findGenerator looks for the one place among the program's variables that holds
// the number just drawn and moves on as numbers are drawn.
func findGenerator() *generator {
	var found *generator
	drawn := runtimeRand()
	end := uintptr(unsafe.Pointer(new([64]byte))) // on the heap, which follows the variables
	const first = 4096                            // a guest has nothing below
	for at := uintptr(first); at+unsafe.Sizeof(generator{}) <= end; at += 8 {
		g := (*generator)(unsafe.Add(nil, at))
		if g.used == 0 || g.used > g.usable || g.usable != 32 && g.usable != 28 || g.counter > 12 || g.counter%4 != 0 ||
			g.numbers[g.used-1] != drawn {
			continue
		}
		if found != nil {
			return nil
		}
		found = g
	}
	if found == nil {
		return nil
	}
	for range 100 {
		if drawn = runtimeRand(); found.used == 0 || found.used > 32 || found.numbers[found.used-1] != drawn {
			return nil
		}
	}
	return found
}

// reseed makes what the runtime draws another sequence than start-up's.
func reseed() {
	g := theGenerator
	if g == nil {
		return
	}
	fresh := unsafe.Pointer(&g.numbers)
	if hostRandom(fresh, uint32(unsafe.Offsetof(g.used))) != 0 {
		die("the host has no random numbers")
	}
	g.used, g.usable, g.counter = 0, 32, 0
}
