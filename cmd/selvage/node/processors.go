package node

import "runtime"

// Computing returns how many guests may compute long at once, one a processor, and
// gives Go's scheduler twice as many processors: as many as guests may compute at all.
// A guest that computes holds one of Go's for its slice, until Go sees that others
// want it: if there were no more, requests could not even be read until slices end.
// Call it once, when serving begins.
func Computing() int {
	n := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(2 * n)
	return n
}
