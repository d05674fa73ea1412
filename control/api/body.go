package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/selvage-edge/selvage/runtime/hostcall"
	"github.com/selvage-edge/selvage/runtime/quota"
)

// Bodies are in memory whole: a bundle is checked before any of it is used, and a value
// is one message of the store, which is what makes a write one step. So those that are large have
// room made for them before they are read.
const (
	callerPart = 2 // of BodyBytes, one caller's

	// A value that is written is there several times: as the body, on its way into the store, and in its buffers.
	copiesWritten = 4

	nodeWait = 5 * time.Second // a node's guest waits for the write
)

// errBodies is the answer where there is no room in time; nothing was read, and nothing done.
var errBodies = problem(http.StatusServiceUnavailable, "busy", "try again in a moment; nothing was done", "the large bodies under way have as many bytes as they may")

func newBodies(bytes int64) *quota.Pool {
	one := max(bytes/callerPart, 1)
	p := quota.New(bytes, one)
	// The stream of each that waits may have a window full of its body: together no more than the caller may hold.
	p.Crowd(max(maxStreams, int(one/streamWindow)))
	return p
}

// readBody holds the whole body, within the route's limit; large ones also within the node's.
func (c *call) readBody(ctx context.Context) (release func(), err error) {
	limit := c.route.limit
	if limit == 0 {
		return func() {}, nil
	}
	if c.r.ContentLength > limit {
		return nil, c.tooLarge()
	}
	share, err := c.bodyShare(ctx)
	if err != nil {
		return nil, err
	}
	if c.route.who == aNode {
		// The peer server has no time limit for bodies, and one that never ends would hold its weight for ever.
		_ = http.NewResponseController(c.w).SetReadDeadline(time.Now().Add(c.a.cfg.NodeBody)) // a reader without deadlines does not block
	}
	if c.body, err = readAll(http.MaxBytesReader(c.w, c.r.Body, limit), c.r.ContentLength); err != nil {
		share.Release()
		var tooBig *http.MaxBytesError
		if errors.As(err, &tooBig) {
			return nil, c.tooLarge()
		}
		return nil, invalid("the body ended early: %v", err)
	}
	return share.Release, nil
}

// bodyShare waits for room for the body; nil where it needs none: whoever sends a small one slowly must
// not keep a large one out.
func (c *call) bodyShare(ctx context.Context) (*quota.Share, error) {
	size := c.r.ContentLength
	if size < 0 {
		size = c.route.limit
	}
	if c.route.limit <= jsonLimit || size <= smallBody {
		return nil, nil
	}
	if c.route.limit == hostcall.MaxValueBytes {
		size *= copiesWritten
	}
	wait := c.a.cfg.BodyWait
	if c.route.who == aNode {
		wait = min(wait, nodeWait)
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	share, err := c.a.bodies.Take(ctx, c.actor, size)
	if err != nil {
		return nil, errBodies
	}
	return share, nil
}

// smallBody is as much of a body as needs no room made for it, in bytes.
const smallBody = 64 << 10

// readAll reads a body in one piece where its length is known.
func readAll(r io.Reader, size int64) ([]byte, error) {
	if size < 0 {
		return io.ReadAll(r)
	}
	b := make([]byte, size)
	_, err := io.ReadFull(r, b)
	return b, err
}

// tooLarge is the answer to a body over the route's limit.
func (c *call) tooLarge() error {
	hint := c.route.over
	if hint == "" {
		hint = "send less"
	}
	return problem(http.StatusRequestEntityTooLarge, "too-large", hint, "the body is over %d bytes", c.route.limit)
}
