package node

import "runtime"

// Computing returns how many guests may compute at once, one a processor, and
// gives Go's scheduler as many processors again. A guest that computes holds one of
// Go's for its slice: if there were no others, requests could not even be read until slices end.
// Call it once, when serving begins.
func Computing() int {
	n := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(2 * n)
	return n
}
