package guest_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/guesttest"
	"github.com/selvage-edge/selvage/sdk/abi"
)

// waitText is fetchText with $wait1: a wait for events of one handle.
func waitText(calls string) string {
	return `(func $wait1 (param $h i32) (param $events i32) (param $for i64) (result i32)
		(i32.store (i32.const 2000) (local.get $h)) (i32.store (i32.const 2004) (local.get $events))
		(call $wait (i32.const 2000) (i32.const 1) (local.get $for)))` + fetchText(calls)
}

// counted is a body without an end.
type counted struct{ n atomic.Int64 }

func (c *counted) Read(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	clear(p)
	return len(p), nil
}

// TestWaitReadsOnePieceAhead: however often a guest waits for a body that it
// does not read, the node holds 16 KiB of it.
func TestWaitReadsOnePieceAhead(t *testing.T) {
	upload, answer := &counted{}, &counted{}
	x, _, f := run(t, waitText(`
		(local.set $a (call $start))
		(call $keep (i32.const 0) (call $wait1 (i32.const 0) (i32.const 1) (i64.const -1)))
		(call $keep (i32.const 1) (call $wait1 (i32.const 0) (i32.const 1) (i64.const -1)))
		(call $keep (i32.const 2) (call $wait1 (local.get $a) (i32.const 1) (i64.const -1)))
		(call $keep (i32.const 3) (call $wait1 (local.get $a) (i32.const 5) (i64.const -1)))
		(call $keep (i32.const 4) (call $request_read (i32.const 4096) (i32.const 100)))
		(call $keep (i32.const 5) (call $wait1 (i32.const 0) (i32.const 1) (i64.const 0)))
		(call $keep (i32.const 6) (call $fetch_read (local.get $a) (i32.const 4096) (i32.const 40000)))`),
		fetches(func(context.Context, *http.Request) (*http.Response, error) { return respond(answer), nil }),
		func(_ *function.Version, _ *guest.Ports, x *exchange) { x.body = upload })
	expect(t, x, f, 0, 0, 0, 0, 100, 0, 16<<10)
	if upload.n.Load() != 16<<10 || answer.n.Load() != 16<<10 {
		t.Errorf("read %d and %d bytes", upload.n.Load(), answer.n.Load())
	}
}

// TestWritesGoOnBehind: after a wait the guest goes on while nobody takes what
// it wrote; there is room for one such write, and only after a wait.
func TestWritesGoOnBehind(t *testing.T) {
	letGo := make(chan struct{})
	var calls atomic.Int32
	x, _, f := run(t, waitText(`
		(local.set $a (call $upload))
		(call $keep (i32.const 0) (call $wait1 (i32.const 0) (i32.const 2) (i64.const -1)))
		(call $keep (i32.const 1) (call $response_write (i32.const 4096) (i32.const 32768)))
		(call $keep (i32.const 2) (call $wait1 (i32.const 0) (i32.const 2) (i64.const 1000)))
		(call $keep (i32.const 3) (call $wait1 (local.get $a) (i32.const 2) (i64.const -1)))
		(call $keep (i32.const 4) (call $fetch_write (local.get $a) (i32.const 4096) (i32.const 32768)))
		(call $keep (i32.const 5) (call $wait1 (local.get $a) (i32.const 2) (i64.const 1000)))
		(drop (call $start))
		(call $keep (i32.const 6) (call $wait1 (i32.const 0) (i32.const 2) (i64.const -1)))
		(call $keep (i32.const 7) (call $wait1 (local.get $a) (i32.const 2) (i64.const -1)))
		(call $keep (i32.const 8) (call $fetch_write (local.get $a) (i32.const 0) (i32.const 0)))
		(call $keep (i32.const 9) (call $fetch_read (local.get $a) (i32.const 4096) (i32.const 100)))`),
		fetches(func(_ context.Context, r *http.Request) (*http.Response, error) {
			if calls.Add(1); r.Method != "PUT" {
				close(letGo)
				return respond(bytes.NewReader(nil)), nil
			}
			<-letGo
			n, err := io.Copy(io.Discard, r.Body)
			return respond(bytes.NewReader(fmt.Append(nil, n))), err
		}),
		func(_ *function.Version, _ *guest.Ports, x *exchange) { x.hold = func() { <-letGo } })
	if f != nil || x.out.Len() != 32768+80 {
		t.Fatalf("%d bytes, %v", x.out.Len(), f)
	}
	var got []int64
	for kept := x.out.Bytes()[32768:]; len(kept) > 0; kept = kept[8:] {
		got = append(got, int64(binary.LittleEndian.Uint64(kept)))
	}
	if want := []int64{0, 32768, 1, 0, 32768, 1, 0, 0, 0, 5}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestAWriteBehindFails: the next call on the answer, or wait, ends the guest.
func TestAWriteBehindFails(t *testing.T) {
	gone := fault.New(fault.Canceled, "while its answer was sent", nil)
	for name, next := range map[string]string{
		"wait":  `(loop $l (drop (call $wait1 (i32.const 9) (i32.const 1) (i64.const 0))) (br $l))`,
		"write": `(drop (call $response_write (i32.const 4096) (i32.const 32768)))`,
		"flush": `(drop (call $response_flush))`,
		"end":   ``,
	} {
		prog := guesttest.Program(t, guesttest.Guest(t, waitText(`
			(drop (call $wait1 (i32.const 0) (i32.const 2) (i64.const -1)))
			(drop (call $response_write (i32.const 4096) (i32.const 32768)))`+next)))
		x := &refusing{exchange{target: "/"}, gone}
		if _, err := runner.Run(t.Context(), prog, version(), guest.Ports{}, x); fault.Of(err) == nil || fault.Of(err).Kind != fault.Canceled {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// refusing is an exchange whose client takes nothing.
type refusing struct {
	exchange
	why error
}

func (x *refusing) WriteBody([]byte) error { return x.why }

// TestWaitEndsWithTheClient: all that is under way for a guest ends with its client.
func TestWaitEndsWithTheClient(t *testing.T) {
	ctx, leave := context.WithCancel(t.Context())
	interrupted := make(chan struct{})
	var under sync.WaitGroup // the write and the subrequest have begun
	under.Add(2)
	pending, end := io.Pipe()
	x := &exchange{target: "/", body: pending, hold: func() { under.Done(); <-interrupted }}
	x.interrupt = sync.OnceFunc(func() { close(interrupted); end.CloseWithError(context.Canceled) })
	prog := guesttest.Program(t, guesttest.Guest(t, waitText(`
		(local.set $a (call $upload))
		(drop (call $wait1 (local.get $a) (i32.const 2) (i64.const -1)))
		(drop (call $fetch_write (local.get $a) (i32.const 4096) (i32.const 32768)))
		(drop (call $wait1 (i32.const 0) (i32.const 2) (i64.const -1)))
		(drop (call $response_write (i32.const 4096) (i32.const 32768)))
		(drop (call $wait1 (i32.const 0) (i32.const 3) (i64.const 0)))
		(drop (call $wait1 (local.get $a) (i32.const 7) (i64.const -1)))`)))
	ports := guest.Ports{Fetch: fetcher(func(ctx context.Context, _ *http.Request) (*http.Response, error) {
		under.Done()
		<-ctx.Done()
		return nil, ctx.Err()
	})}
	go func() {
		under.Wait()
		leave()
	}()
	_, err := runner.Run(ctx, prog, version(), ports, x)
	if f := fault.Of(err); f == nil || f.Kind != fault.Canceled {
		t.Errorf("got %v", err)
	}
}

// TestWaitForASlowClient: the read that gives it up ends the context too.
func TestWaitForASlowClient(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	prog := guesttest.Program(t, guesttest.Guest(t, waitText(`(drop (call $wait1 (i32.const 0) (i32.const 1) (i64.const -1)))`)))
	x := &exchange{target: "/", body: readFunc(func([]byte) (int, error) {
		cancel()
		return 0, fault.New(fault.BodySlow, "", nil)
	})}
	_, err := runner.Run(ctx, prog, version(), guest.Ports{}, x)
	if f := fault.Of(err); f == nil || f.Kind != fault.BodySlow {
		t.Errorf("got %v", err)
	}
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// TestAnswersWhileTheBodyIsAwaited: a guest need not wait for what it waited for.
func TestAnswersWhileTheBodyIsAwaited(t *testing.T) {
	pending, end := io.Pipe()
	x, _, f := run(t, waitText(`
		(call $keep (i32.const 0) (call $wait1 (i32.const 0) (i32.const 1) (i64.const 0)))`),
		func(_ *function.Version, _ *guest.Ports, x *exchange) {
			x.body, x.interrupt = pending, func() {
				if !x.finished {
					t.Error("interrupted before its answer was sent")
				}
				end.CloseWithError(context.Canceled)
			}
		})
	expect(t, x, f, 1)
}

func TestWaitRefuses(t *testing.T) {
	x, u, f := run(t, waitText(`
		(call $keep (i32.const 0) (call $wait1 (i32.const 0) (i32.const 0) (i64.const 0)))
		(call $keep (i32.const 1) (call $wait1 (i32.const 0) (i32.const 8) (i64.const 0)))
		(call $keep (i32.const 2) (call $wait (i32.const 2000) (i32.const 257) (i64.const 0)))
		(call $keep (i32.const 3) (call $wait1 (i32.const 7) (i32.const 1) (i64.const -1)))
		(call $keep (i32.const 4) (call $wait1 (i32.const -1) (i32.const 7) (i64.const -1)))
		(call $keep (i32.const 5) (call $wait1 (i32.const 0) (i32.const 1) (i64.const -1)))
		(call $keep (i32.const 6) (call $wait (i32.const 2000) (i32.const 0) (i64.const 1)))`))
	expect(t, x, f, abi.StatusInvalid, abi.StatusInvalid, abi.StatusTooLarge, 0, 0, 0, 0)
	if len(u.Refused) != 1 || u.Refused[0].Refusal != fault.BadWait || u.Refused[0].Count != 3 {
		t.Errorf("refused %v", u.Refused)
	}
}
