package telemetry

import (
	"net/netip"
	"time"

	"github.com/selvage-edge/selvage/runtime/fault"
)

// Meta is what is known of an exchange before its function runs. The function's
// own name and version are not here: the invoker has them.
type Meta struct {
	RequestID string         // 32 hex digits, made by this node
	Scheme    string         // "https"
	Authority string         // canonical host, with the port when it is not the scheme's default
	Target    string         // canonical path, and "?" and the query as the client sent it
	Protocol  string         // "HTTP/1.1", "HTTP/2.0" or "HTTP/3.0"
	Client    netip.AddrPort // the peer's address; the zero value if it has none
	Place     Place
	StartBy   time.Time // when it has waited too long to be started; zero: never
}

// Place says where a node is.
type Place struct {
	PoP    string
	Node   string
	Region string
}

// Usage is what one invocation used.
type Usage struct {
	Queued      time.Duration // until it was started, or given up
	CPU         time.Duration
	MemoryBytes int64 // peak of the linear memory
	HostCalls   uint64
	Crossings   uint64 // host calls that left the engine for Go
	Refused     fault.Tally
}
