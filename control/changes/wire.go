package changes

import (
	"fmt"
)

// Want names one log to follow and from where.
type Want struct {
	Log string `json:"log"`
	Position
	// Tail asks, when there is no position to continue from, to begin at the head
	// instead of the beginning: for a follower that only forgets what changed.
	Tail bool `json:"tail,omitempty"`
	// Proof is a sealed batch, by which a control node sees that its disk went back in
	// time: the newest with a change, or, for one that said its head is below the
	// position, one that ends above that head.
	Proof []byte `json:"proof,omitempty"`
}

// maxProof bounds a proof; a batch without changes has a few hundred bytes. The
// batches that are shown unasked are shorter, each and together.
const (
	maxProof       = 32 << 10
	maxEvidence    = 4 << 10
	maxEvidenceSum = 256 << 10
)

// Request opens a stream for some logs; it is the JSON body of a POST to Path.
type Request struct {
	Logs []Want `json:"logs"`
	// Reads is the newest version of batches that the follower reads. A node from before this
	// was said, 0, reads no pages (batch.go) and is sent none.
	Reads int `json:"reads,omitempty"`
}

func (r *Request) plain() bool { return r.Reads < batchPage }

// MaxLogs bounds the logs of one stream.
const MaxLogs = 4096

// Validate refuses a request that cannot be served.
func (r *Request) Validate() error {
	if len(r.Logs) == 0 || len(r.Logs) > MaxLogs {
		return fmt.Errorf("changes: request for %d logs: want 1 to %d", len(r.Logs), MaxLogs)
	}
	seen := make(map[string]bool, len(r.Logs))
	for _, w := range r.Logs {
		if w.Log == "" || len(w.Log) > maxLogBytes {
			return fmt.Errorf("changes: request for log %.80q: want a name of 1 to %d bytes", w.Log, maxLogBytes)
		}
		if len(w.Proof) > maxProof {
			return fmt.Errorf("changes: request with a proof of %d bytes for log %q, over %d", len(w.Proof), w.Log, maxProof)
		}
		if seen[w.Log] {
			return fmt.Errorf("changes: request names log %q twice", w.Log)
		}
		seen[w.Log] = true
	}
	return nil
}
