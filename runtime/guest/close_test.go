package guest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/runtime/abi/native"
	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/guesttest"
	"github.com/selvage-edge/selvage/runtime/sched"
)

// stuck is an exchange whose head is never taken.
type stuck struct {
	guest.Exchange
	reached, interrupted chan struct{}
}

func (*stuck) RequestID() string          { return "" }
func (*stuck) StartBy() time.Time         { return time.Time{} }
func (*stuck) AppendHead(b []byte) []byte { return (&native.Head{}).Append(b) }
func (*stuck) HasBody() bool              { return false }
func (x *stuck) Interrupt()               { close(x.interrupted) }

func (x *stuck) WriteHead(int, []byte) error {
	close(x.reached)
	<-x.interrupted
	return errors.New("interrupted")
}

// The end of a guest that has computed long, and so its answer, waits for one turn and
// not for those of its function that have computed less.
func TestTheEndOfALongGuestIsNotLast(t *testing.T) {
	prog := guesttest.Program(t, guesttest.Guest(t, `(func (export "handle") (local $i i32)
		(loop $l (br_if $l (i32.ne (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 100_000_000))))
		(drop (call $response_head (i32.const 200) (i32.const 0) (i32.const 0)))
		(drop (call $response_flush)))`))
	r := guest.NewRunner(1, 1)
	defer r.Close()
	v := &function.Version{ID: function.ID{Project: "p", Name: "f"}, Limits: function.Limits{CPU: 30 * time.Second, Wall: 10 * time.Minute}}
	x := &stuck{reached: make(chan struct{}), interrupted: make(chan struct{})}
	ctx, leave := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := r.Run(ctx, prog, v, guest.Ports{}, x)
		ended <- err
	}()
	<-x.reached

	var has, next sched.Job // the one computes; the other has done so for a little, and waits
	for _, j := range []*sched.Job{&has, &next} {
		r.Long().Begin(j, v.ID, 0)
		defer j.End()
		_ = r.Long().Take(t.Context(), j)
		r.Long().Give(j, time.Microsecond)
	}
	_ = r.Long().Take(t.Context(), &has)
	granted := make(chan struct{})
	go func() {
		_ = r.Long().Take(context.Background(), &next)
		close(granted)
	}()
	waiting := func(n int) {
		for long := -1; long != n; _, long = r.Waiting() {
			time.Sleep(time.Millisecond)
		}
	}
	waiting(1)
	leave()
	waiting(2)
	r.Long().Give(&has, 0)
	select {
	case err := <-ended:
		if fault.Of(err).Kind != fault.Canceled {
			t.Errorf("got %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("it waits for the turns of one that has computed less")
	}
	<-granted
	r.Long().Give(&next, 0)
}
