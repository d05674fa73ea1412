// Package guest runs one invocation on one instance, start to finish.
//
// A goroutine stands for the guest. While the guest computes, the goroutine
// polls its fiber and holds a turn of the scheduler; while the guest waits, the
// goroutine waits in its stead, in Go, and no thread is held. A host call is
// answered on that same goroutine, so every borrow of the guest's memory is back
// before the instance is closed, whatever ended the invocation.
package guest

import (
	"time"

	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// Ports are what the guest's calls reach. A nil port answers as if nothing were bound.
type Ports struct {
	KV    hostcall.KV
	Fetch hostcall.Fetcher
	Log   hostcall.LogSink
}

// Exchange is what the guest's request and its answer ride on. Its methods are
// called from one goroutine at a time, but for ReadBody, which another may be in
// meanwhile, and may wait. An error ends the invocation: a *fault.Error as that
// fault, any other as an internal one.
type Exchange interface {
	// RequestID names the exchange in the function's log.
	RequestID() string
	// StartBy is when it has waited too long for its guest to be started; zero: never.
	StartBy() time.Time
	// AppendHead appends the request head in sdk/abi's layout.
	AppendHead([]byte) []byte
	// HasBody reports whether ReadBody may give bytes.
	HasBody() bool
	// ReadBody reads body bytes into p, which is the guest's own memory; io.EOF is the end.
	ReadBody(p []byte) (int, error)
	// WriteHead takes the response head: headers is a pair list (sdk/abi), not
	// yet checked, valid during the call. Statuses below 200 may come before the final one.
	WriteHead(status int, headers []byte) error
	// WriteBody sends bytes and waits for the client to take them. It does not keep p.
	WriteBody(p []byte) error
	// Flush hands what was written to the connection.
	Flush() error
	// Finish sends the last bytes of the body: the answer is complete.
	Finish(p []byte) error
	// RequestTrailers is the fields that came after the body, as a pair list;
	// ended is false while they may still come.
	RequestTrailers() (list []byte, ended bool)
	// SetTrailers takes the fields that go out after the body, a pair list not
	// yet checked, valid during the call.
	SetTrailers(list []byte) error
	// Interrupt makes a method that waits return soon and later ones fail at
	// once. It comes from another goroutine, when the invocation's context ends.
	Interrupt()
}

// Usage is what one invocation took.
type Usage struct {
	Queued       time.Duration // for its first turn
	CPU          time.Duration // processor time inside the guest and its calls in C
	MemoryBytes  int64         // linear memory at its largest
	HostCalls    uint64        // calls the guest made
	Crossings    uint64        // those that came back to Go
	KVOperations int
	Subrequests  int
	LogDropped   int         // log records dropped: over the limit
	Refused      fault.Tally // calls that were refused, the dropped log records among them
	Started      bool        // false: no instance could be had
}
