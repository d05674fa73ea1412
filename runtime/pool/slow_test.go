package pool_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/guesttest"
	"github.com/selvage-edge/selvage/runtime/pool"
)

// hasty waits no longer than until by.
type hasty struct {
	exchange
	by time.Time
}

func (h *hasty) StartBy() time.Time { return h.by }

// known prepares a version that the node knows and has not loaded.
func known(t *testing.T, p *pool.Pool, k *keeper, d deployed, parts pool.Parts) *pool.Function {
	t.Helper()
	if _, _, _, err := k.Artifact(t.Context(), d.version.Code, d.code); err != nil {
		t.Fatal(err)
	}
	parts.Known = true
	f, _, err := p.Prepare(t.Context(), d.version, parts)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// away gives bytes that are on another node, which does not answer before end.
func away(b []byte, asked *atomic.Int32, end chan struct{}) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		asked.Add(1)
		select {
		case <-end:
			return b, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// coming is away for a part that comes to this node's disk.
func coming(asked *atomic.Int32, end chan struct{}) func(context.Context) error {
	give := away(nil, asked, end)
	return func(ctx context.Context) error {
		_, err := give(ctx)
		return err
	}
}

// However many functions wait for blobs that do not come, or for a compilation, those
// of others that are on the node are loaded.
func TestSlowLoadsHoldNobodyUp(t *testing.T) {
	const slow = 8 // more than are loaded at once
	p, k := openBounded(t, pool.Config{})
	end, answers, asked := make(chan struct{}), make(chan string, slow), &atomic.Int32{}
	for i := range slow {
		want := fmt.Sprintf("s%02d", i)
		d := deploy(t, guesttest.Guest(t, fmt.Sprintf(`(data (i32.const 8) %[1]q) (func (result i32) (i32.const %[2]d))
			(func (export "handle") (drop (call $response_write (i32.const 8) (i32.const 3))))`, want, i)))
		d.version.ID.Project = want
		parts := pool.Bytes(d.code, d.image)
		if i%2 == 0 {
			parts.Here, parts.Fetch = func() bool { return false }, coming(asked, end)
		} else {
			parts.Code = away(d.code, asked, end)
		}
		f := known(t, p, k, d, parts)
		if i%2 == 1 {
			k.forget(d)
		}
		go func() {
			x := &exchange{}
			if _, err := f.Invoke(t.Context(), guest.Ports{}, x); err != nil || string(x.out) != want {
				t.Errorf("%s answers %q, %v", want, x.out, err)
			}
			answers <- want
		}()
	}
	until(t, func() bool { return asked.Load() >= 4 }) // as many as are loaded at once
	quick := says(t, "now")
	quick.version.ID.Project = "other"
	f := known(t, p, k, quick, pool.Bytes(quick.code, quick.image))
	if got := invoke(t, f); got != "now" {
		t.Errorf("got %q", got)
	}
	select {
	case got := <-answers:
		t.Errorf("%s did not wait", got)
	default:
	}
	close(end)
	for range slow {
		<-answers
	}
}

// Who waits for a load is turned away when it has waited too long, and the load goes on.
func TestWhoWaitsForALoadIsShed(t *testing.T) {
	p, k := openBounded(t, pool.Config{})
	end, asked, d := make(chan struct{}), &atomic.Int32{}, says(t, "one")
	parts := pool.Bytes(d.code, d.image)
	parts.Here, parts.Fetch = func() bool { return false }, coming(asked, end)
	f := known(t, p, k, d, parts)
	_, err := f.Invoke(t.Context(), guest.Ports{}, &hasty{by: time.Now().Add(time.Millisecond)})
	if got := fault.Of(err); got.Kind != fault.Shed || got.Limit != "1s" || got.Kind.Status() != http.StatusServiceUnavailable {
		t.Errorf("got %v", err)
	}
	close(end)
	if got := invoke(t, f); got != "one" {
		t.Errorf("got %q", got)
	}
	if loads, _ := p.Churn(); loads != 1 {
		t.Errorf("%d loads", loads)
	}
	if _, err := f.Invoke(t.Context(), guest.Ports{}, &hasty{by: time.Now().Add(-time.Hour)}); err != nil {
		t.Errorf("late, but it is loaded: %v", err)
	}
}

// What could not be loaded is not loaded again at once: who comes has the same error.
func TestAFailedLoadIsNotRepeatedAtOnce(t *testing.T) {
	p, k := openBounded(t, pool.Config{Retry: time.Hour})
	s, bad := &source{d: says(t, "one")}, errors.New("the disk is gone")
	f := known(t, p, k, s.d, s.parts(true))
	s.err.Store(&bad)
	for range 3 {
		if _, err := f.Invoke(t.Context(), guest.Ports{}, &exchange{}); !errors.Is(err, bad) || fault.Of(err).Kind != fault.Internal {
			t.Errorf("got %v", err)
		}
	}
	if got := s.images.Load(); got != 1 {
		t.Errorf("its image was asked for %d times", got)
	}
}

// What was compiled and could not be kept is loaded all the same, and compiled once for that.
func TestWhatCannotBeKeptIsLoaded(t *testing.T) {
	p, k := openBounded(t, pool.Config{})
	d := says(t, "one")
	f := known(t, p, k, d, pool.Bytes(d.code, d.image))
	k.forget(d)
	k.full.Store(true)
	before := k.calls.Load()
	for range 2 {
		if got := invoke(t, f); got != "one" {
			t.Errorf("got %q", got)
		}
	}
	if n := k.calls.Load() - before; n != 1 {
		t.Errorf("compiled %d times", n)
	}
	if loads, _ := p.Churn(); loads != 1 {
		t.Errorf("%d loads", loads)
	}
}

// An image that is not here comes to disk, and is read into memory by the load alone.
func TestAnImageComesToDisk(t *testing.T) {
	p, k := openBounded(t, pool.Config{})
	s := &source{d: says(t, "one")}
	var here atomic.Bool
	var fetched atomic.Int32
	parts := s.parts(true)
	parts.Here = here.Load
	parts.Fetch = func(context.Context) error {
		if s.images.Load() != 0 {
			t.Error("it was read before it was here")
		}
		fetched.Add(1)
		here.Store(true)
		return nil
	}
	f := known(t, p, k, s.d, parts)
	for range 2 {
		if got := invoke(t, f); got != "one" {
			t.Errorf("got %q", got)
		}
	}
	if fetched.Load() != 1 || s.images.Load() != 1 {
		t.Errorf("fetched %d times, read %d times", fetched.Load(), s.images.Load())
	}
}
