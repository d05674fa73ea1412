package kv

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// sending still has the value after Put, as an HTTP client does that is still
// sending the request when its context ends.
type sending struct {
	*truth
	value []byte
}

func (o *sending) Put(ctx context.Context, ns hostcall.Namespace, key string, value []byte, p hostcall.PutOptions) (uint64, error) {
	o.value = value
	return o.truth.Put(ctx, ns, key, value, p)
}

// TestNoGuestMemoryStaysBehind: a value is lent for the length of Put; what
// comes to lie in its place later must not be sent to the origin.
func TestNoGuestMemoryStaysBehind(t *testing.T) {
	o := &sending{truth: newTruth()}
	s := open(t, o, Config{Timeout: time.Second})
	o.away = context.DeadlineExceeded
	lent := []byte("mine")
	if _, err := s.Put(ctx, ns, "k", lent, anyTo); !errors.Is(err, hostcall.ErrUnavailable) {
		t.Fatal(err)
	}
	copy(lent, "them")
	if !bytes.Equal(o.value, []byte("mine")) {
		t.Errorf("the origin is sent %q", o.value)
	}
}

// restarting begins another epoch while a write of the old one is under way.
type restarting struct {
	*truth
	before func()
}

func (o *restarting) Put(ctx context.Context, ns hostcall.Namespace, key string, value []byte, p hostcall.PutOptions) (uint64, error) {
	rev, err := o.truth.Put(ctx, ns, key, value, p)
	if o.before != nil {
		o.before()
	}
	return rev, err
}

// TestWriteAcrossEpochs: a store that came back from a backup numbers anew, so
// the revision of a write that it no longer has must not fence what it has.
func TestWriteAcrossEpochs(t *testing.T) {
	o := &restarting{truth: newTruth()}
	s := open(t, o, Config{})
	o.seq = 1000
	o.before = func() {
		o.mu.Lock()
		o.seq = 10
		o.data[ns]["k"] = hostcall.Entry{Value: []byte("restored"), Revision: 7}
		o.mu.Unlock()
		s.Reset(ns)
		s.Apply(ns, Changes{Epoch: 2, From: 10, To: 10})
	}
	if _, err := s.Put(ctx, ns, "k", []byte("lost"), anyTo); err != nil {
		t.Fatal(err)
	}
	o.before = nil
	want(t, s, ns, "k", "restored")
	if _, err := s.Put(ctx, ns, "k", []byte("new"), anyTo); err != nil {
		t.Fatal(err)
	}
	want(t, s, ns, "k", "new")
}
