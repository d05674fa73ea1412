package sdktest

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// memoryKV is KV without a network, for one process.
type memoryKV struct {
	meet chan struct{} // closed once twenty ask for keys that begin with "meet"; they are answered then
	mu   struct {
		sync.Mutex
		meeting  int
		revision uint64
		entries  map[hostcall.Namespace]map[string]hostcall.Entry
	}
}

var _ hostcall.KV = (*memoryKV)(nil)

func newMemoryKV() *memoryKV {
	k := &memoryKV{meet: make(chan struct{})}
	k.mu.entries = map[hostcall.Namespace]map[string]hostcall.Entry{}
	return k
}

func (k *memoryKV) Get(ctx context.Context, ns hostcall.Namespace, key string) (hostcall.Entry, error) {
	if err := k.hold(ctx, key); err != nil {
		return hostcall.Entry{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.current(ns, key)
}

// hold waits where the key says so: "meet" for others, "never" for ever.
func (k *memoryKV) hold(ctx context.Context, key string) error {
	var held <-chan struct{}
	switch {
	case strings.HasPrefix(key, "meet"):
		k.mu.Lock()
		if k.mu.meeting++; k.mu.meeting == 20 {
			close(k.meet)
		}
		k.mu.Unlock()
		held = k.meet
	case key != "never":
		return nil
	}
	select {
	case <-held:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// current returns the entry that has not expired. The lock is held.
func (k *memoryKV) current(ns hostcall.Namespace, key string) (hostcall.Entry, error) {
	e, ok := k.mu.entries[ns][key]
	if !ok || !e.Expires.IsZero() && !time.Now().Before(e.Expires) {
		return hostcall.Entry{}, hostcall.ErrNotFound
	}
	return e, nil
}

func (k *memoryKV) Put(_ context.Context, ns hostcall.Namespace, key string, value []byte, o hostcall.PutOptions) (uint64, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e, _ := k.current(ns, key)
	if o.IfRevision >= 0 && e.Revision != uint64(o.IfRevision) {
		return 0, hostcall.ErrConflict
	}
	if k.mu.entries[ns] == nil {
		k.mu.entries[ns] = map[string]hostcall.Entry{}
	}
	k.mu.revision++
	e = hostcall.Entry{Value: bytes.Clone(value), Metadata: bytes.Clone(o.Metadata), Revision: k.mu.revision}
	if o.TTL > 0 {
		e.Expires = time.Now().Add(o.TTL)
	}
	k.mu.entries[ns][key] = e
	return e.Revision, nil
}

// Read takes a strong one as 5 ms old less than any other.
func (k *memoryKV) Read(ctx context.Context, ns hostcall.Namespace, keys []string, o hostcall.ReadOptions) ([]hostcall.Result, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if o.AtLeast > k.mu.revision {
		return nil, hostcall.ErrInvalid
	}
	out := make([]hostcall.Result, len(keys))
	for i, key := range keys {
		out[i].Entry, out[i].Err = k.current(ns, key)
		if !o.Strong {
			out[i].Stale = 5 * time.Millisecond
		}
	}
	return out, nil
}

func (k *memoryKV) Increment(_ context.Context, ns hostcall.Namespace, key string, delta int64) (int64, uint64, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e, err := k.current(ns, key)
	n := int64(0)
	if err == nil {
		if n, err = strconv.ParseInt(string(e.Value), 10, 64); err != nil {
			return 0, 0, hostcall.ErrNotNumber
		}
	}
	k.mu.revision++
	e.Value, e.Revision = strconv.AppendInt(nil, n+delta, 10), k.mu.revision
	if k.mu.entries[ns] == nil {
		k.mu.entries[ns] = map[string]hostcall.Entry{}
	}
	k.mu.entries[ns][key] = e
	return n + delta, e.Revision, nil
}

func (k *memoryKV) Delete(_ context.Context, ns hostcall.Namespace, key string, ifRevision int64) (uint64, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e, err := k.current(ns, key)
	if ifRevision >= 0 && err != nil {
		return 0, err
	}
	if ifRevision >= 0 && e.Revision != uint64(ifRevision) {
		return 0, hostcall.ErrConflict
	}
	delete(k.mu.entries[ns], key)
	k.mu.revision++
	return k.mu.revision, nil
}

func (k *memoryKV) List(_ context.Context, ns hostcall.Namespace, prefix, cursor string, limit int) ([]hostcall.KeyInfo, string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var keys []hostcall.KeyInfo
	for _, key := range slices.Sorted(maps.Keys(k.mu.entries[ns])) {
		e, err := k.current(ns, key)
		if err != nil || !strings.HasPrefix(key, prefix) || key <= cursor {
			continue
		}
		if len(keys) == limit {
			return keys, keys[limit-1].Key, nil
		}
		keys = append(keys, hostcall.KeyInfo{Key: key, Revision: e.Revision, Expires: e.Expires, Metadata: e.Metadata})
	}
	return keys, "", nil
}
