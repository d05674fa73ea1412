package guest_test

import (
	"sync"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/guesttest"
)

// holder keeps its turn, once it has it, until it is let go.
type holder struct {
	exchange
	has, letGo chan struct{}
}

func (h *holder) AppendHead(b []byte) []byte {
	close(h.has)
	<-h.letGo
	return h.exchange.AppendHead(b)
}

// An invocation that has no turn by when it was to be started is not started; one that
// had to wait says for how long.
func TestStartedTooLate(t *testing.T) {
	prog := guesttest.Program(t, guesttest.Guest(t, handle(status200)))
	one := guest.NewRunner(1, 1)
	defer one.Close()
	h := &holder{has: make(chan struct{}), letGo: make(chan struct{})}
	var all sync.WaitGroup
	all.Go(func() {
		if _, err := one.Run(t.Context(), prog, version(), guest.Ports{}, h); err != nil {
			t.Error(err)
		}
	})
	<-h.has
	begin := time.Now()
	late := &exchange{startBy: begin.Add(20 * time.Millisecond)}
	u, err := one.Run(t.Context(), prog, version(), guest.Ports{}, late)
	f := fault.Of(err)
	if f == nil || f.Kind != fault.Shed || f.Limit != "1s" || f.Knob != "limits.queue_wait" {
		t.Errorf("got %v", err)
	}
	if u.Started || u.CPU != 0 || u.Queued <= 0 || u.Queued > time.Since(begin) || late.finished {
		t.Errorf("used %+v, finished %t", u, late.finished)
	}
	all.Go(func() {
		u, err := one.Run(t.Context(), prog, version(), guest.Ports{}, &exchange{startBy: time.Now().Add(time.Hour)})
		if err != nil || u.Queued <= 0 || !u.Started {
			t.Errorf("%v, used %+v", err, u)
		}
	})
	for short := 0; short == 0; short, _ = one.Waiting() {
		time.Sleep(time.Millisecond)
	}
	close(h.letGo)
	all.Wait()
}
