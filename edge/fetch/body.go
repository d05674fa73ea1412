package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

var errSilent = errors.New("the backend stopped sending")

// body is a response's body that ends when the backend goes silent.
type body struct {
	io.ReadCloser
	ctx     context.Context
	cancel  context.CancelCauseFunc
	silence *time.Timer
	limit   time.Duration
}

func newBody(ctx context.Context, cancel context.CancelCauseFunc, b io.ReadCloser, limit time.Duration) *body {
	t := time.AfterFunc(limit, func() { cancel(errSilent) })
	t.Stop() // counts only while a Read waits: a slow function is not a silent backend
	return &body{b, ctx, cancel, t, limit}
}

func (b *body) Read(p []byte) (int, error) {
	b.silence.Reset(b.limit)
	n, err := b.ReadCloser.Read(p)
	b.silence.Stop()
	switch {
	case err == nil || err == io.EOF:
		return n, err
	case context.Cause(b.ctx) == errSilent:
		return n, fmt.Errorf("fetch: %w: %w for %v", hostcall.ErrUnavailable, errSilent, b.limit)
	case context.Cause(b.ctx) == errTotal:
		return n, fmt.Errorf("fetch: %w", errTotal)
	case b.ctx.Err() != nil:
		return n, fmt.Errorf("fetch: %w", context.Cause(b.ctx))
	}
	return n, fmt.Errorf("fetch: %w: %w", hostcall.ErrUnavailable, err)
}

// Close gives the connection back when the body was read to its end, and ends it otherwise.
func (b *body) Close() error {
	b.silence.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
