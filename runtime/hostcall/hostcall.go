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
	ErrInvalid     = errors.New("not of the call's form")
)

// Namespace names a KV namespace: the project's name and its own.
type Namespace struct {
	Project string
	Name    string
}

// Limits of KV, everywhere.
const (
	MaxKeyBytes   = 512
	MaxValueBytes = 25 << 20
	MaxListKeys   = 1000
)

// Entry is one value with what is known of it. Value is shared: do not write to it.
type Entry struct {
	Value    []byte
	Revision uint64
	Expires  time.Time // zero: never; on the store's clock
}

// Any and Absent are the two special values of an expected revision.
const (
	AnyRevision    int64 = -1
	AbsentRevision int64 = 0
)

// PutOptions say how a value is written.
type PutOptions struct {
	TTL        time.Duration // 0: forever
	IfRevision int64         // AnyRevision, AbsentRevision or the revision that must be there
}

// KeyInfo is one key of a listing.
type KeyInfo struct {
	Key      string
	Revision uint64
	Expires  time.Time
}

// KV reads and writes namespaces. Errors to test for: ErrNotFound (Get, and
// Delete with an expected revision), ErrConflict, ErrUnavailable, ErrTooLarge, ErrInvalid.
// Keys are any bytes, 1 to MaxKeyBytes of them. Calls may wait on the network.
type KV interface {
	Get(ctx context.Context, ns Namespace, key string) (Entry, error)
	// Put returns once the value is durable. It does not keep value.
	Put(ctx context.Context, ns Namespace, key string, value []byte, o PutOptions) (revision uint64, err error)
	Delete(ctx context.Context, ns Namespace, key string, ifRevision int64) (revision uint64, err error)
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
