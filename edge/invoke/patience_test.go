package invoke

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selvage-edge/selvage/edge/telemetry"
	"github.com/selvage-edge/selvage/runtime/fault"
)

// drip is a body that gives its parts at intervals, and obeys a read deadline.
type drip struct {
	part  int
	every time.Duration
	parts int
	woken chan struct{}
}

func (d *drip) Read(p []byte) (int, error) {
	if d.parts == 0 {
		return 0, io.EOF
	}
	select {
	case <-d.woken:
		return 0, os.ErrDeadlineExceeded
	case <-time.After(d.every):
		d.parts--
		return copy(p[:d.part], strings.Repeat("x", d.part)), nil
	}
}

func (d *drip) Close() error { return nil }

// deadlined is a ResponseWriter whose read deadline wakes the drip.
type deadlined struct {
	*httptest.ResponseRecorder
	body *drip
}

func (w deadlined) SetReadDeadline(t time.Time) error {
	if t.Equal(longPast) {
		close(w.body.woken)
	}
	return nil
}

func TestPatience(t *testing.T) {
	for _, c := range []struct {
		name  string
		body  drip
		pause time.Duration // of the guest, after each read
		begun bool          // the answer has begun
		slow  bool
		after time.Duration
	}{
		{"whole at once", drip{part: 1000, parts: 1}, 0, false, false, 0},
		{"never", drip{every: time.Hour, parts: 1}, 0, false, true, 10 * time.Second},
		{"pauses of nine seconds", drip{part: 9 << 10, every: 9 * time.Second, parts: 20}, 0, false, false, 180 * time.Second},
		{"a byte a second", drip{part: 1, every: time.Second, parts: 1000}, 0, false, true, 10 * time.Second},
		{"just fast enough", drip{part: 1024, every: time.Second, parts: 1000}, 0, false, false, 1000 * time.Second},
		{"half as fast", drip{part: 512, every: time.Second, parts: 1000}, 0, false, true, 18 * time.Second},
		{"fast, then never", drip{part: 1 << 20, every: time.Millisecond, parts: 100}, 0, false, false, 100 * time.Millisecond},
		{"a slow guest", drip{part: 10, every: 10 * time.Millisecond, parts: 100}, time.Minute, false, false, 6001 * time.Second},
		{"after the answer has begun", drip{part: 1, every: time.Minute, parts: 5}, 0, true, false, 300 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.body.woken = make(chan struct{})
				r := httptest.NewRequest("POST", "/", &c.body)
				x := newExchange(deadlined{httptest.NewRecorder(), &c.body}, r, &answer(200, "").version, telemetry.Meta{})
				x.committed.Store(c.begun)
				defer x.forget()
				begin, p := time.Now(), make([]byte, 1<<20)
				var err error
				for err == nil {
					_, err = x.ReadBody(p)
					time.Sleep(c.pause)
				}
				var f *fault.Error
				if slow := errors.As(err, &f) && f.Kind == fault.BodySlow; slow != c.slow || !slow && err != io.EOF {
					t.Errorf("got %v", err)
				}
				if c.slow && (f.Kind.Status() != http.StatusRequestTimeout || x.w.Header().Get("Connection") != "close") {
					t.Errorf("status %d, %v", f.Kind.Status(), x.w.Header())
				}
				if took := time.Since(begin); took < c.after || took > c.after+time.Minute+time.Second {
					t.Errorf("after %v, want %v", took, c.after)
				}
			})
		})
	}
}
