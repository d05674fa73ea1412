package guest_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/sdk/abi"
)

// TestFetchWait has two subrequests under way, of which only the second is answered.
func TestFetchWait(t *testing.T) {
	var calls atomic.Int32
	x, _, f := run(t, fetchText(`
		(local.set $a (call $start)) (i32.store (i32.const 2000) (local.get $a))
		(call $keep (i32.const 0) (call $fetch_wait (i32.const 2000) (i32.const 1) (i64.const 0)))
		(call $keep (i32.const 1) (call $fetch_wait (i32.const 2000) (i32.const 1) (i64.const 1000000)))
		(local.set $b (call $start)) (i32.store (i32.const 2004) (local.get $b))
		(call $keep (i32.const 2) (call $fetch_wait (i32.const 2000) (i32.const 2) (i64.const -1)))
		(call $keep (i32.const 3) (call $fetch_wait (i32.const 2000) (i32.const 2) (i64.const 0)))
		(i32.store (i32.const 2000) (i32.const 99))
		(call $keep (i32.const 4) (call $fetch_wait (i32.const 2000) (i32.const 2) (i64.const -1)))
		(call $keep (i32.const 5) (call $fetch_wait (i32.const 2000) (i32.const 65) (i64.const -1)))
		(call $keep (i32.const 6) (call $fetch_wait (i32.const 2000) (i32.const 0) (i64.const 1)))`),
		fetches(func(ctx context.Context, _ *http.Request) (*http.Response, error) {
			if calls.Add(1) == 1 {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return respond(strings.NewReader("")), nil
		}))
	expect(t, x, f, 1, 1, 1, 1, 0, abi.StatusTooLarge, 0)
}

func TestFetchTrailers(t *testing.T) {
	x, _, f := run(t, fetchText(`
		(local.set $a (call $start))
		(call $keep (i32.const 0) (call $fetch_trailers (local.get $a) (i32.const 2000) (i32.const 100)))
		(call $keep (i32.const 1) (call $fetch_read (local.get $a) (i32.const 3000) (i32.const 100)))
		(call $keep (i32.const 2) (call $fetch_read (local.get $a) (i32.const 3000) (i32.const 0)))
		(call $keep (i32.const 3) (call $fetch_trailers (local.get $a) (i32.const 2000) (i32.const 100)))
		(call $keep (i32.const 4) (call $fetch_read (local.get $a) (i32.const 3000) (i32.const 100)))
		(call $keep (i32.const 5) (call $fetch_trailers (local.get $a) (i32.const 2000) (i32.const 3)))
		(call $keep (i32.const 6) (call $fetch_trailers (local.get $a) (i32.const 2000) (i32.const 100)))
		(call $keep (i32.const 7) (i32.load (i32.const 2000)))`),
		fetches(func(context.Context, *http.Request) (*http.Response, error) {
			r := respond(strings.NewReader("hello"))
			r.Trailer = http.Header{"X-Sum": {"42"}, "X-Bad": {"a\r\nb"}, "Connection": {"x"}} // the last two do not cross
			return r, nil
		}))
	const one = 4 + 4 + 5 + 4 + 2
	expect(t, x, f, abi.StatusState, 5, 0, abi.StatusState, 0, one, one, 1)
}

// TestLargeAnswers: a response that says it is too large is not begun, one that
// turns out to be is cut.
func TestLargeAnswers(t *testing.T) {
	for _, known := range []bool{true, false} {
		closed := &closing{Reader: io.LimitReader(zeros{}, 1000)}
		x, _, f := run(t, fetchText(`
			(local.set $a (call $start))
			(drop (call $fetch_read (local.get $a) (i32.const 3000) (i32.const 400)))
			(call $keep (i32.const 0) (call $fetch_read (local.get $a) (i32.const 3000) (i32.const 400)))`),
			limits(function.Limits{SubrequestBody: 500}),
			fetches(func(context.Context, *http.Request) (*http.Response, error) {
				r := respond(nil)
				r.Body = closed
				if known {
					r.ContentLength = 1000
				}
				return r, nil
			}))
		expect(t, x, f, abi.StatusTooLarge)
		if !closed.closed.Load() {
			t.Errorf("length known: %t: the body is still open", known)
		}
	}
}
