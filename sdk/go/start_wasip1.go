package edge

import (
	"fmt"
	"net/http"
	"runtime"
	"runtime/debug"
	_ "unsafe" // for linkname
)

// A guest is a reactor: the Go runtime runs package initialisation and never
// main.main. selvage_start runs it, up to Serve.

//go:linkname mainMain main.main
func mainMain()

var (
	starting bool
	serving  = make(chan http.Handler) // from Serve
	ended    = make(chan struct{})     // main returned
)

//go:wasmexport selvage_start
func start() {
	starting = true
	go runMain()
	select {
	case handler = <-serving:
	case <-ended:
		die("main returned without calling edge.Serve: end func main() with edge.Serve(handler)")
	}
	warmUp()
}

// runMain runs main as the runtime would.
func runMain() {
	defer explain()
	mainMain()
	close(ended)
}

// warmUp ends start-up.
func warmUp() {
	defer explain()
	runWarmUps()
	rehearse()
}

// explain ends a guest that panics, with the panic on stderr. The runtime would
// do so too, but it sleeps first, and at start-up nothing may wait.
func explain() {
	if v := recover(); v != nil {
		die(fmt.Sprintf("panic at start-up: %v\n\n%s", v, debug.Stack()))
	}
}

// serve hands h over and parks: start-up ends here.
func serve(h http.Handler) {
	switch {
	case !starting:
		panic("edge: Serve was called from package initialisation; call it from main")
	case handler != nil:
		panic("edge: Serve was called twice")
	}
	serving <- h
	select {}
}

// rehearsals is how many requests of the SDK's own are answered before the
// snapshot is taken.
const rehearsals = 50

// rehearse brings the SDK's own request path into the state in which requests
// should find it: lazily built tables built, stacks grown, and after a collection
// the allocator with free room at hand, so that a request need not ask for memory.
// The developer's handler has no part in it: what it might do once and remember
// (a sync.Once that fails, say) would be frozen for all requests.
func rehearse() {
	head := rehearsalHead()
	for i := range rehearsals {
		invoke(http.HandlerFunc(echo), head, newRehearsal())
		if i == rehearsals*9/10 {
			runtime.GC() // the last ones refill the allocator's caches
		}
	}
}
