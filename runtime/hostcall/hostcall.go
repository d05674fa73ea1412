// Package hostcall declares the ports through which a guest's calls reach the
// node: KV, outbound requests, the log. The rooms that implement them are on
// higher floors; the rooms that decode a guest's calls are in runtime/abi.
package hostcall

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/selvage-edge/selvage/runtime/function"
)

// What a port may answer; the ABI rooms map each to one status.
var (
	ErrNotFound    = errors.New("not found")
	ErrConflict    = errors.New("the revision differs")
	ErrDenied      = errors.New("not bound to this function, or without that access")
	ErrAddress     = fmt.Errorf("an address that may not be reached: %w", ErrDenied)
	ErrTooLarge    = errors.New("over a documented limit")
	ErrUnavailable = errors.New("cannot be reached now")
	ErrUnsent      = fmt.Errorf("nothing was asked of the other side: %w", ErrUnavailable)
	ErrInvalid     = errors.New("not of the call's form")
	ErrNotNumber   = fmt.Errorf("the value is no decimal number of 64 bits, so it cannot be incremented: %w", ErrInvalid)
	ErrOverflow    = fmt.Errorf("the sum is over 64 bits: %w", ErrInvalid)
)

// Namespace names a KV namespace: the project's name and its own.
type Namespace struct {
	Project string
	Name    string
}

// Limits of KV, everywhere.
const (
	MaxKeyBytes      = 512
	MaxValueBytes    = 25 << 20
	MaxMetadataBytes = 1 << 10
	MaxListKeys      = 1000
	MaxReadKeys      = 100      // of one Read
	MaxReadBytes     = 32 << 20 // of one Read: values and metadata together
)

// Entry is one value with what is known of it. Value and Metadata are shared: do
// not write to them.
type Entry struct {
	Value    []byte
	Metadata []byte // at most MaxMetadataBytes, as they were put with the value
	Revision uint64
	Expires  time.Time // zero: never; on the store's clock
	// AsOf says what the answer reflects: every change of the namespace up to this
	// revision, of the key at least. 0: not known. Answers of "not found" have it too.
	AsOf uint64
	// Stale bounds how long ago the answer was the newest there is; 0: it was when
	// the read began. Negative: not known.
	Stale time.Duration
	// At is the store's clock when the truth itself answered; zero: not known.
	At time.Time
}

// ReadOptions say how fresh an answer has to be. The zero value takes what the node has.
type ReadOptions struct {
	Strong  bool   // as the truth has it now
	AtLeast uint64 // not older than this revision, of a write anywhere in the namespace
}

// Result is one key's part of a Read: its entry, or ErrNotFound.
type Result struct {
	Entry
	Err error
}

// Any and Absent are the two special values of an expected revision.
const (
	AnyRevision    int64 = -1
	AbsentRevision int64 = 0
)

// PutOptions say how a value is written.
type PutOptions struct {
	TTL        time.Duration // 0: forever
	Metadata   []byte        // kept with the value, listed with the key
	IfRevision int64         // AnyRevision, AbsentRevision or the revision that must be there
}

// KeyInfo is one key of a listing.
type KeyInfo struct {
	Key      string
	Revision uint64
	Expires  time.Time
	Metadata []byte // shared: do not write to it
}

// KV reads and writes namespaces. Errors to test for: ErrNotFound (Get, and
// Delete with an expected revision), ErrConflict, ErrUnavailable (a write may have happened, but
// with ErrUnsent, which is an ErrUnavailable too, has not), ErrTooLarge, ErrInvalid,
// ErrNotNumber and ErrOverflow (Increment), which are ErrInvalid too.
// Keys are any bytes, 1 to MaxKeyBytes of them. Calls may wait on the network.
type KV interface {
	Get(ctx context.Context, ns Namespace, key string) (Entry, error)
	// Read answers for each of 1 to MaxReadKeys keys, in their order; its own error means all of them.
	Read(ctx context.Context, ns Namespace, keys []string, o ReadOptions) ([]Result, error)
	// Put returns once the value is durable. It does not keep value.
	Put(ctx context.Context, ns Namespace, key string, value []byte, o PutOptions) (revision uint64, err error)
	Delete(ctx context.Context, ns Namespace, key string, ifRevision int64) (revision uint64, err error)
	// Increment adds delta to a decimal number and returns the sum, once it is durable. A key that
	// is not there counts as 0; expiry and metadata stay.
	Increment(ctx context.Context, ns Namespace, key string, delta int64) (value int64, revision uint64, err error)
	// List returns up to limit keys with the prefix after cursor, in byte order, and the next cursor ("" at the end).
	List(ctx context.Context, ns Namespace, prefix, cursor string, limit int) (keys []KeyInfo, next string, err error)
}

// Fetcher makes one outbound request for a function. ErrDenied when its
// backends do not allow the host, ErrAddress (which is an ErrDenied too) when
// its address may not be reached. The caller closes the response's body.
type Fetcher interface {
	Fetch(ctx context.Context, v *function.Version, r *http.Request) (*http.Response, error)
}

// Line is one line a function logged.
type Line struct {
	Time      time.Time
	Function  function.ID
	Version   function.Digest
	RequestID string
	Level     int    // slog's numbers
	Text      string // valid UTF-8; control characters not yet escaped
}

// LogSink takes lines; it must not block.
type LogSink interface {
	Log(Line)
}
