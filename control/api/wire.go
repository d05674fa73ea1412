package api

import (
	"time"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/report"
	"github.com/selvage-edge/selvage/control/store"
	"github.com/selvage-edge/selvage/edge/kv"
	"github.com/selvage-edge/selvage/runtime/function"
)

// Headers of the API besides the standard ones.
const (
	HeaderRevision    = "Selvage-Revision"     // KV: the value's, or the write's
	HeaderExpires     = "Selvage-Expires"      // KV: Unix ms on the store's clock; absent for never
	HeaderTime        = "Selvage-Time"         // KV: that clock at the answer, for who has another one
	HeaderEpoch       = "Selvage-Epoch"        // KV: the store's
	HeaderMetadata    = "Selvage-Metadata"     // KV: what was put beside the value, in base64; absent for none
	HeaderAsOf        = "Selvage-As-Of"        // KV: the answer reflects the log at least up to this sequence
	HeaderRequestID   = "Selvage-Request-Id"   // every answer
	HeaderIdempotency = "Idempotency-Key"      // requests that change something; up to 128 characters
	HeaderReplayed    = "Idempotency-Replayed" // "true" when an answer is a repetition
)

// BundleInfo answers an upload.
type BundleInfo struct {
	Digest    function.Digest `json:"digest"`
	Project   string          `json:"project"`
	Function  string          `json:"function"`
	Routes    []string        `json:"routes"`
	Bytes     int64           `json:"bytes"`
	Publisher identity.KeyID  `json:"publisher"`
}

// DeployRequest makes a bundle that was uploaded live.
type DeployRequest struct {
	Bundle function.Digest `json:"bundle"`
}

// RollbackRequest makes an earlier release live again.
type RollbackRequest struct {
	To uint64 `json:"to,omitempty"` // the release's number; 0: the one before what serves
}

// Deployed answers a deployment, or a rollback.
type Deployed struct {
	Release           Release  `json:"release"`
	Unchanged         bool     `json:"unchanged,omitempty"`          // this bundle was live already: nothing was done
	CreatedNamespaces []string `json:"created_namespaces,omitempty"` // bound, and new: made in mode "cached"
	Notes             []string `json:"notes,omitempty"`              // what the platform wants the author to know
	To                uint64   `json:"to,omitempty"`                 // rollback: the release that this one is again
	From              uint64   `json:"from,omitempty"`               // rollback: the release that served until now
}

// Release is one release, with its place in the catalog.
type Release struct {
	catalog.Position
	catalog.Release
}

// shown is r as it is told: limits that its manifest left open are those in force.
func shown(at catalog.Position, r catalog.Release) Release {
	if !r.Removed {
		r.Limits = r.Limits.WithDefaults()
	}
	return Release{at, r}
}

// Function is one function as it is live.
type Function struct {
	Release Release `json:"release"`
	Status  Status  `json:"status"`
}

// FunctionList answers a listing of functions.
type FunctionList struct {
	Functions []Function `json:"functions"`
}

// ReleaseList answers a listing of a function's releases, newest first.
type ReleaseList struct {
	Releases []Release `json:"releases"`
}

// Status is where a release stands on every node.
type Status struct {
	Project  string          `json:"project"`
	Function string          `json:"function"`
	Release  uint64          `json:"release"`
	Bundle   function.Digest `json:"bundle,omitempty"`
	Done     bool            `json:"done"` // every node that is there has it live, or said why not
	Live     int             `json:"live"` // nodes
	Failed   int             `json:"failed"`
	Pending  int             `json:"pending"`
	PoPs     []PoPStatus     `json:"pops"`
	Tag      string          `json:"tag"` // differs when anything above does: give it as ?after= to wait for a change
}

// PoPStatus is one PoP's part of a Status.
type PoPStatus struct {
	PoP    string       `json:"pop"`
	Region string       `json:"region,omitempty"`
	State  report.State `json:"state"` // the least advanced of its nodes'
	Nodes  []NodeStatus `json:"nodes"`
}

// Pending is the state of a node that has not spoken of the release yet.
const Pending report.State = "pending"

// NodeStatus is one node's part of a Status.
type NodeStatus struct {
	Node      string          `json:"node"`
	State     report.State    `json:"state"`
	Why       string          `json:"why,omitempty"`
	Digest    function.Digest `json:"digest,omitempty"`
	CompileMS float64         `json:"compile_ms"`
	FromCache bool            `json:"from_cache,omitempty"`
	ReadyMS   float64         `json:"ready_ms,omitempty"`
	Away      bool            `json:"away,omitempty"` // not heard of lately: it is not waited for
	Reported  time.Time       `json:"reported,omitzero"`
}

// Namespace is one KV namespace.
type Namespace struct {
	Project string       `json:"project"`
	Name    string       `json:"name"`
	Mode    catalog.Mode `json:"mode"`
	// MaxStaleMS is how old an answer from a node's memory may be, in milliseconds; 0: any.
	MaxStaleMS int64 `json:"max_stale_ms"`
}

// NamespaceRequest makes a namespace.
type NamespaceRequest struct {
	Mode       catalog.Mode `json:"mode,omitempty"`         // "cached" or "replicated"; default: as it is, or "cached"
	MaxStaleMS *int64       `json:"max_stale_ms,omitempty"` // 0, or 30 s to 365 days; default: as it is, or 0
}

// NamespaceList answers a listing of namespaces.
type NamespaceList struct {
	Namespaces []Namespace `json:"namespaces"`
}

// NamespaceStats is what a namespace holds, and what nodes were asked of it.
type NamespaceStats struct {
	Namespace string `json:"namespace"`
	store.Size
	// StaleBoundsMS are the upper bounds, in milliseconds, of each Usage's stale counts; the last count is beyond them, or not known.
	StaleBoundsMS []int64    `json:"stale_bounds_ms"`
	Total         kv.Usage   `json:"total"`
	PoPs          []PoPUsage `json:"pops"`
}

// PoPUsage is what the nodes of a PoP were asked of a namespace since the server of each started, as of its last report.
type PoPUsage struct {
	PoP      string    `json:"pop"`
	Nodes    int       `json:"nodes"`
	Away     int       `json:"away,omitempty"`    // of them not heard of lately
	Reported time.Time `json:"reported,omitzero"` // the oldest of the reports
	kv.Usage
}

// Key is one key of a listing. Keys are any bytes, so it comes in base64; Text
// is there too when it is valid UTF-8.
type Key struct {
	Key      []byte    `json:"key"`
	Text     string    `json:"text,omitempty"`
	Revision uint64    `json:"revision"`
	Expires  time.Time `json:"expires,omitzero"`
	Metadata []byte    `json:"metadata,omitempty"`
}

// KeyList answers a listing of keys, in byte order.
type KeyList struct {
	Keys []Key  `json:"keys"`
	Next []byte `json:"next,omitempty"` // the cursor of the next page; absent at the end

	AsOf  uint64 `json:"as_of"` // every change up to this revision is in the answer
	Epoch uint64 `json:"epoch"`
}

// ReadRequest asks for several keys.
type ReadRequest struct {
	Keys    [][]byte `json:"keys"`               // 1 to 100, in base64
	AtLeast uint64   `json:"at_least,omitempty"` // a revision that the answer has to reflect
}

// ReadAnswer has an entry for each key, in their order, as of one moment or later.
type ReadAnswer struct {
	Entries []ReadEntry `json:"entries"`
	AsOf    uint64      `json:"as_of"`
	Epoch   uint64      `json:"epoch"`
	Time    time.Time   `json:"time"` // the store's clock at the answer
}

// ReadEntry is one key's value, in base64.
type ReadEntry struct {
	Key      []byte    `json:"key"`
	Found    bool      `json:"found"`
	Value    []byte    `json:"value,omitempty"`
	Metadata []byte    `json:"metadata,omitempty"`
	Revision uint64    `json:"revision,omitempty"`
	Expires  time.Time `json:"expires,omitzero"`
}

// Incremented answers an increment.
type Incremented struct {
	Value    int64  `json:"value"`
	Revision uint64 `json:"revision"`
	Epoch    uint64 `json:"epoch"`
}

// The types of a WatchEvent.
const (
	WatchOpen   = "open"   // the first line: changes after its revision follow
	WatchPut    = "put"    // the key has this value
	WatchDelete = "delete" // the key was deleted
	WatchExpire = "expire" // the key's time was up
	WatchAlive  = "alive"  // every change up to its revision was sent; each ten seconds
	WatchGap    = "gap"    // what is between cannot be told: forget all keys, what there is follows
)

// WatchEvent is a line of a watch. Changes come in the order of their revisions. Of a key that is written
// faster than it is sent, what was replaced meanwhile is left out; its newest change always comes.
type WatchEvent struct {
	Type     string    `json:"type"`
	Revision uint64    `json:"revision,omitempty"` // of the change; watch since it to go on after it
	Key      []byte    `json:"key,omitempty"`
	Text     string    `json:"text,omitempty"`  // the key, if it is UTF-8
	Value    []byte    `json:"value,omitempty"` // absent too if Size is over 262,144: read it
	Size     uint32    `json:"size,omitempty"`  // of the value, in bytes
	Metadata []byte    `json:"metadata,omitempty"`
	Expires  time.Time `json:"expires,omitzero"`
	Why      string    `json:"why,omitempty"`   // of a gap
	Epoch    uint64    `json:"epoch,omitempty"` // the store's; on lines that are no change
	Time     time.Time `json:"time,omitzero"`   // its clock; on lines that are no change
}

// Written answers a write or deletion of a key.
type Written struct {
	Revision uint64 `json:"revision"`
	Epoch    uint64 `json:"epoch"`
	Absent   bool   `json:"absent,omitempty"` // a deletion found nothing to delete, and wrote nothing
}

// TokenRequest makes an API token.
type TokenRequest struct {
	Scopes  []identity.Scope `json:"scopes"`
	Project string           `json:"project,omitempty"` // empty: all projects
	Note    string           `json:"note,omitempty"`
	Expires time.Time        `json:"expires,omitzero"` // default and at most 90 days from now
}

// TokenInfo is a token without its secret.
type TokenInfo struct {
	ID      string           `json:"id"`
	Scopes  []identity.Scope `json:"scopes"`
	Project string           `json:"project,omitempty"`
	Note    string           `json:"note,omitempty"`
	Created time.Time        `json:"created"`
	Expires time.Time        `json:"expires"`
}

// TokenCreated answers with the only sight of the secret.
type TokenCreated struct {
	TokenInfo
	Token string `json:"token"`
}

// TokenList answers a listing of tokens.
type TokenList struct {
	Tokens []TokenInfo `json:"tokens"`
}

// JoinTokenRequest makes a join token.
type JoinTokenRequest struct {
	PoP       string   `json:"pop,omitempty"`       // only a node of this PoP may use it
	TTL       string   `json:"ttl,omitempty"`       // Go duration; default 1h, at most 168h
	Addresses []string `json:"addresses,omitempty"` // of this API, host:port; default the control node's own
}

// JoinTokenCreated answers with the token, which lets one node join once.
type JoinTokenCreated struct {
	ID      string    `json:"id"`
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

// Fleet is what control knows of its nodes.
type Fleet struct {
	Fleet    string `json:"fleet"`
	Control  string `json:"control"` // the name of this control node
	Epoch    uint64 `json:"epoch"`
	Revision uint64 `json:"revision"` // of the catalog
	Nodes    []Node `json:"nodes"`
}

// Node is one node.
type Node struct {
	Name     string    `json:"name"`
	PoP      string    `json:"pop"`
	Region   string    `json:"region,omitempty"`
	Public   string    `json:"public,omitempty"` // where requests reach it, host:port
	Build    string    `json:"build,omitempty"`
	Away     bool      `json:"away,omitempty"`   // not heard of lately
	Behind   bool      `json:"behind"`           // its catalog is older than control's
	Drain    bool      `json:"drain"`            // it was ordered to drain
	Draining bool      `json:"draining"`         // it says that it drains
	Reason   string    `json:"reason,omitempty"` // for the order
	Epoch    uint64    `json:"epoch"`
	Revision uint64    `json:"revision"`
	Live     int       `json:"live"`   // functions
	Failed   int       `json:"failed"` // functions
	Started  time.Time `json:"started,omitzero"`
	Reported time.Time `json:"reported,omitzero"`
	// Copies of replicated KV namespaces that the node should have.
	Copies []report.Copy `json:"copies,omitempty"`
}

// DrainRequest has a node drained.
type DrainRequest struct {
	Reason string `json:"reason,omitempty"` // for those who look at the status; at most 200 bytes
}

// ProjectList answers a listing of projects.
type ProjectList struct {
	Projects []string `json:"projects"`
}

// AuditList answers a page of the audit trail, oldest first.
type AuditList struct {
	Entries []AuditEntry `json:"entries"`
	Next    uint64       `json:"next,omitempty"` // give as ?after= for the next page; 0 at the end
}

// AuditEntry is one change, or an attempt at one.
type AuditEntry struct {
	Seq     uint64            `json:"seq"`
	Time    time.Time         `json:"time"`
	Request string            `json:"request"` // its ID
	Actor   string            `json:"actor"`   // "token:ID", "node:NAME" or "join:ID"
	Remote  string            `json:"remote"`
	Method  string            `json:"method"`
	Path    string            `json:"path"` // escaped
	Project string            `json:"project,omitempty"`
	Action  string            `json:"action"` // the operation's name in the OpenAPI document
	Status  int               `json:"status"`
	Detail  map[string]string `json:"detail,omitempty"`
}

// Empty answers where there is nothing to say.
type Empty struct{}
