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

// The goroutine that called Serve answers the request too: its stack has grown
// at the rehearsals, and the snapshot keeps it. A goroutine made by the call of
// handle would begin with 2 KiB and copy itself larger in every instance.
var (
	starting bool
	serving  bool
	prepared = make(chan struct{}) // Serve is ready for the request
	ended    = make(chan struct{}) // main returned
	request  = make(chan struct{}) // handle was called
	answered = make(chan struct{})
)

//go:wasmexport selvage_start
func start() {
	starting = true
	go runMain()
	select {
	case <-prepared:
	case <-ended:
		die("main returned without calling edge.Serve: end func main() with edge.Serve(handler)")
	}
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
	theGenerator = findGenerator()
}

// explain ends a guest that panics, with the panic on stderr. The runtime would
// do so too, but it sleeps first, and at start-up nothing may wait.
func explain() {
	if v := recover(); v != nil {
		die(fmt.Sprintf("panic at start-up: %v\n\n%s", v, debug.Stack()))
	}
}

// serve ends start-up, waits for the one request, answers it, and parks.
func serve(h http.Handler) {
	switch {
	case !starting:
		panic("edge: Serve was called from package initialisation; call it from main")
	case serving:
		panic("edge: Serve was called twice")
	}
	serving = true
	warmUp()
	close(prepared)
	<-request
	answer(h)
	close(answered)
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
	h, heads := rehearsalHandler(), rehearsalHeads()
	for i := range rehearsals {
		invoke(h, heads[i%len(heads)], newRehearsal())
		if i == rehearsals*9/10 {
			runtime.GC() // the last ones refill the allocator's caches
		}
	}
}
