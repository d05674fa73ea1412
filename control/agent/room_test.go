package agent

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/selvage-edge/selvage/edge/kv"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// valued is a stalled that answers as who has a value does.
type valued struct{ stalled }

func (v valued) Do(r *http.Request) (*http.Response, error) {
	resp, err := v.stalled.Do(r)
	resp.Header = http.Header{headerRevision: {"1"}, headerAsOf: {"1"}}
	return resp, err
}

// A neighbour whose value is not received, since this node has no room for it, is not blamed.
func TestNobodyIsBlamedForWantOfRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var blamed, held atomic.Int64
		p := newPop("n1", nil, func(Event) { blamed.Add(1) })
		silent := valued{stalled{make([]byte, hostcall.MaxValueBytes), make(chan struct{}), &held}}
		store, err := kv.New(kv.Config{Origin: NewOrigin(silent), Owner: func(hostcall.Namespace, string) kv.Owner {
			return owner{Neighbour{Name: "n2", Node: silent}, p}
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		links := hostcall.Namespace{Project: "p", Name: "links"}
		store.Apply(links, kv.Changes{Epoch: 1})
		var all sync.WaitGroup
		ask := func(get func(context.Context) (hostcall.Entry, error)) {
			all.Go(func() {
				if _, err := get(t.Context()); !errors.Is(err, hostcall.ErrUnavailable) {
					t.Errorf("got %v", err)
				}
			})
			synctest.Wait()
		}
		for _, key := range []string{"a", "b"} { // as the owner, of control, which takes twice as long
			ask(func(ctx context.Context) (hostcall.Entry, error) {
				return store.Own(ctx, links, key, kv.Question{Epoch: 1})
			})
		}
		ask(func(ctx context.Context) (hostcall.Entry, error) { return store.Get(ctx, links, "c") })
		all.Wait()
		if blamed.Load() != 0 || held.Load() < 2*hostcall.MaxValueBytes {
			t.Errorf("%d were blamed; %d bytes were asked for", blamed.Load(), held.Load())
		}
	})
}
