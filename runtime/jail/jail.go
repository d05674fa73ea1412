// Package jail runs work on hostile bytes in a child process that can only
// compute: bytes in, bytes out, under fixed limits.
package jail

import (
	"context"
	"errors"
	"time"
)

// Verb names a kind of work; the limits of each are fixed here, never by the caller.
type Verb uint8

// The verbs.
const (
	Compile Verb = iota + 1 // code -> artifact
	Prepare                 // module -> code, image, report
)

// What Run may fail with, besides the worker's own refusal (Refused).
var (
	ErrTime   = errors.New("jail: the work took too long")
	ErrMemory = errors.New("jail: the work needed too much memory")
	ErrCrash  = errors.New("jail: the helper crashed")
	// ErrKilled says nothing of the work: try again. A server of an older version hears ErrCrash of its keeper.
	ErrKilled = errors.New("jail: the helper was killed")
)

// Refused is a worker's own, orderly no; its text is for the developer.
type Refused struct{ Reason string }

func (r *Refused) Error() string { return r.Reason }

// Result is what a helper gave back.
type Result struct {
	Output []byte
	Wall   time.Duration
	CPU    time.Duration
}

// Runner runs one piece of work in a jailed child and waits for it. The keeper
// implements it for a server (which never execs); Local implements it for
// processes that may. Input is not kept.
type Runner interface {
	Run(ctx context.Context, verb Verb, input []byte) (Result, error)
}
