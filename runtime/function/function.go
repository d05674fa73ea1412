// Package function names and bounds one version of a function: who it belongs
// to, what it may use, what it may reach. Plain values, no behaviour.
package function

import "time"

// ID names a function within a fleet.
type ID struct {
	Project string
	Name    string
}

// String returns "project/name".
func (id ID) String() string { return id.Project + "/" + id.Name }

// Version is one deployable version: its code, its image and its bounds. It is
// immutable; a change is another Version.
type Version struct {
	ID        ID
	Digest    Digest // the bundle's
	Code      Digest // the module without its data
	Image     Digest // initial memory and globals
	Started   bool   // the image was taken after start-up: run only handle
	Limits    Limits
	Bindings  Bindings
	Placement Placement
}

// Snapshot says whether a function's start-up is run once, at deploy.
type Snapshot string

const (
	// SnapshotAuto runs it ahead where that changes nothing, and where the module
	// is made for it: where it exports selvage_start.
	SnapshotAuto Snapshot = ""
	// SnapshotRequired runs it ahead whatever it asks for; a start-up that cannot be is an error.
	SnapshotRequired Snapshot = "required"
	// SnapshotOff runs it with every request.
	SnapshotOff Snapshot = "off"
)

// Digest is "sha256:" and 64 lower-case hex digits; see ParseDigest.
type Digest string

// Limits bound one invocation. The zero value of a field means its default.
type Limits struct {
	CPU            time.Duration `json:"cpu"`                       // processor time; default 50 ms
	Wall           time.Duration `json:"wall"`                      // from the first byte in to the last byte out; default 30 s
	MemoryBytes    int64         `json:"memory_bytes"`              // linear memory; default 128 MiB
	RequestBody    int64         `json:"request_body"`              // bytes; default 100 MiB
	ResponseHead   int           `json:"response_head"`             // bytes; default 32 KiB
	LogBytes       int           `json:"log_bytes"`                 // per request; default 64 KiB
	Subrequests    int           `json:"subrequests"`               // default 32
	SubrequestsNow int           `json:"subrequests_now"`           // at once; default 6
	SubrequestBody int64         `json:"subrequest_body,omitempty"` // bytes of one subrequest's response; default 100 MiB
	HostCalls      int           `json:"host_calls,omitempty"`      // calls that the node answers outside the engine; default 1,000,000
	KVOperations   int           `json:"kv_operations"`             // default 1,000
	Concurrency    int           `json:"concurrency"`               // invocations of the function at once on a node; default 1,000
	Queue          int           `json:"queue,omitempty"`           // requests that wait to be started, on a node; default 100
	QueueWait      time.Duration `json:"queue_wait,omitempty"`      // how long one waits, from its arrival; default 1 s
	Weight         int           `json:"weight,omitempty"`          // share against the project's other functions; default 10
}

// Bindings are a function's capabilities: what is not here it cannot reach.
type Bindings struct {
	KV        []KVBinding       `json:"kv,omitempty"`
	Backends  []Backend         `json:"backends,omitempty"`
	Variables map[string]string `json:"variables,omitempty"`
}

// KVBinding gives a function a namespace of its project under a name of its own.
type KVBinding struct {
	Name      string `json:"name"`      // what the guest calls it
	Namespace string `json:"namespace"` // within the function's project
	Write     bool   `json:"write"`
}

// Backend is an origin the function may fetch from.
type Backend struct {
	Name string `json:"name"`
	URL  string `json:"url"` // scheme, host and optional port; no path
	// Private lets the backend be in a network that is not public, where the node's
	// configuration (fetch.allow) allows that network too.
	Private  bool     `json:"private,omitempty"`
	Timeouts Timeouts `json:"timeouts,omitzero"`
}

// Timeouts bound the phases of one request to a backend. The zero value of a
// field means its default; the function's wall time bounds all of them.
type Timeouts struct {
	Connect   time.Duration `json:"connect,omitempty"`    // name and TCP connection; default 5 s
	TLS       time.Duration `json:"tls,omitempty"`        // the handshake; default 5 s
	FirstByte time.Duration `json:"first_byte,omitempty"` // from the request sent to the response's head; default 10 s
	Between   time.Duration `json:"between,omitempty"`    // without a byte of the response's body; default 30 s
	Total     time.Duration `json:"total,omitempty"`      // from the call to the body's last byte; default none
}
