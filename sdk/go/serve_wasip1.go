package edge

import (
	"io"
	"net/http"
	"os"
	"runtime"
)

// generation counts the requests of this instance: what belongs to one request
// (KV handles, say) is good in that generation only. 0 is start-up.
var generation uint32

// exitAborted is the exit status of a guest that cannot finish its answer.
const exitAborted = 70

//go:wasmexport handle
func handle() {
	if !serving {
		die("handle was called before selvage_start")
	}
	close(request)
	<-answered
}

// answer answers the request this instance was started for with h.
func answer(h http.Handler) {
	generation++
	idle = runtime.NumGoroutine()
	head, err := gather(hostRequestHead)
	if err != nil {
		die("reading the request head: " + err.Error())
	}
	invoke(h, head, hostExchange{})
}

// hostExchange is the request this instance was started for.
type hostExchange struct{}

func (hostExchange) readBody(p []byte) (int, error) {
	n := hostRequestRead(of(p))
	if n == 0 {
		return 0, io.EOF
	}
	return int(max(n, 0)), failure(n)
}

func (hostExchange) writeHead(status int, headers []byte) error {
	p, size := of(headers)
	return failure(hostResponseHead(uint32(status), p, size))
}

func (hostExchange) writeBody(p []byte) error { return failure(hostResponseWrite(of(p))) }

func (hostExchange) flush() error { return failure(hostResponseFlush()) }

func (hostExchange) readTrailers() (string, error) { return gather(hostRequestTrailers) }

func (hostExchange) writeTrailers(trailers []byte) error {
	return failure(hostResponseTrailers(of(trailers)))
}

func (hostExchange) abort() { os.Exit(exitAborted) }

// die ends the guest with a message on stderr, which is the function's log.
func die(message string) {
	os.Stderr.WriteString("selvage: " + message + "\n")
	os.Exit(1)
}
