package edge

import (
	"context"
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
	reseed()
	idle, gathered = runtime.NumGoroutine(), 0
	head, err := gather(hostRequestHead)
	if err != nil {
		die("reading the request head: " + err.Error())
	}
	invoke(h, head, hostExchange{})
}

// hostExchange is the request this instance was started for.
type hostExchange struct{}

// gatherBytes is how much of the answer the node gathers before it sends, and
// gathered how much it has: a write that only adds to it waits for nobody.
const gatherBytes = 16 << 10

var gathered int

// ready waits until a call for events would not hold up other goroutines.
func (hostExchange) ready(events uint32) error {
	ctx := context.Background()
	if alone(ctx) {
		return nil
	}
	return await(ctx, waitExchange, events)
}

func (x hostExchange) readBody(p []byte) (int, error) {
	if err := x.ready(waitRead); err != nil {
		return 0, err
	}
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

func (x hostExchange) writeBody(p []byte) error {
	for len(p) > gatherBytes-gathered {
		if err := x.ready(waitWrite); err != nil {
			return err
		}
		n := len(p)
		if !alone(context.Background()) {
			n = min(n, waitBytes)
		}
		gathered = 0
		if err := failure(hostResponseWrite(of(p[:n]))); err != nil || n == len(p) {
			return err
		}
		p = p[n:]
	}
	gathered += len(p)
	return failure(hostResponseWrite(of(p)))
}

func (x hostExchange) flush() error {
	if err := x.ready(waitWrite); err != nil {
		return err
	}
	gathered = 0
	if err := failure(hostResponseFlush()); err != nil {
		return err
	}
	return x.ready(waitWrite) // it goes on behind
}

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
