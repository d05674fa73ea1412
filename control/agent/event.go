package agent

import (
	"time"

	"github.com/selvage-edge/selvage/runtime/function"
)

// EventKind names an Event.
type EventKind string

// What an agent tells of.
const (
	Live          EventKind = "live"           // a release is served
	Elsewhere     EventKind = "elsewhere"      // a release may not be held here: its requests go on to other nodes
	Waiting       EventKind = "waiting"        // a release cannot be fetched now; it is tried again
	Failed        EventKind = "failed"         // a release cannot run here
	Removed       EventKind = "removed"        // a function is no longer served
	Swapped       EventKind = "swapped"        // another route table
	Stream        EventKind = "stream"         // What happened to the stream of Log
	Unreported    EventKind = "unreported"     // control did not take a report; it is sent again
	CatalogUnread EventKind = "catalog-unread" // the catalog on disk cannot be used; control has it
	CatalogEmpty  EventKind = "catalog-empty"  // control lost its catalog; this node keeps its own
	CatalogHeld   EventKind = "catalog-held"   // the catalog that last served well is served; control is followed after Took
	Unsaved       EventKind = "unsaved"        // the catalog could not be written to disk
	Unswept       EventKind = "unswept"        // what no release names could not be removed
	Distrusted    EventKind = "distrusted"     // Neighbour failed or lied: nothing is asked of it for Took
	Detour        EventKind = "detour"         // Neighbour did not give a blob: control is asked
	Replicated    EventKind = "replicated"     // What happened to the copy of Log's namespace, or to all if there is no Log
	Rotten        EventKind = "rotten"         // a blob on disk is not what it was: it is fetched again
)

// Event is one fact.
type Event struct {
	Kind      EventKind
	Function  function.ID
	Release   uint64
	Digest    function.Digest
	Took      time.Duration // Live: from seeing the release to serving it; CatalogHeld: for how long
	Neighbour string
	Routes    int    // Swapped
	Log       string // Stream, Replicated
	What      string // Stream, Replicated
	Err       error
}
