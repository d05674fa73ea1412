//go:build !wasip1

package edge

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Off the edge there is no KV: each namespace is a map in this process, empty at
// start and lost at its end. It keeps KV's rules on revisions, expiry and order.

const (
	maxKeyBytes   = 512
	maxValueBytes = 25 << 20
	maxMetadata   = 1 << 10
)

// opened is nothing here.
type opened struct{}

var local = struct {
	sync.Mutex
	revision uint64
	values   map[string]map[string]Entry // by namespace and key
}{values: map[string]map[string]Entry{}}

// current returns the entry under key unless it has expired; revision 0 if none.
// The lock is held.
func (n *Namespace) current(key string) Entry {
	e := local.values[n.name][key]
	if !e.Expires.IsZero() && !time.Now().Before(e.Expires) {
		return Entry{}
	}
	return e
}

func (n *Namespace) get(_ context.Context, key string) (Entry, error) {
	local.Lock()
	defer local.Unlock()
	if err := checkKey(key); err != nil {
		return Entry{}, err
	}
	e := n.current(key)
	if e.Revision == 0 {
		return Entry{}, ErrNotFound
	}
	e.Value, e.Metadata = bytes.Clone(e.Value), bytes.Clone(e.Metadata)
	return e, nil
}

// many takes no heed of how fresh the answer has to be: a map is the truth.
func (n *Namespace) many(keys []string, _ int64) ([]*Entry, error) {
	out := make([]*Entry, len(keys))
	for i, key := range keys {
		e, err := n.get(context.Background(), key)
		switch {
		case err == nil:
			out[i] = &e
		case !errors.Is(err, ErrNotFound):
			return nil, err
		}
	}
	return out, nil
}

func (n *Namespace) increment(key string, delta int64) (int64, error) {
	local.Lock()
	defer local.Unlock()
	if err := checkKey(key); err != nil {
		return 0, err
	}
	e, sum := n.current(key), int64(0)
	if e.Revision != 0 {
		var err error
		if sum, err = strconv.ParseInt(string(e.Value), 10, 64); err != nil {
			return 0, ErrInvalid
		}
	}
	if delta > 0 && sum > math.MaxInt64-delta || delta < 0 && sum < math.MinInt64-delta {
		return 0, ErrInvalid
	}
	sum += delta
	local.revision++
	e.Value, e.Revision = strconv.AppendInt(nil, sum, 10), local.revision
	n.keep(key, e)
	return sum, nil
}

// keep stores e. The lock is held.
func (n *Namespace) keep(key string, e Entry) {
	if local.values[n.name] == nil {
		local.values[n.name] = map[string]Entry{}
	}
	local.values[n.name][key] = e
}

func (n *Namespace) put(key string, value, metadata []byte, ttl, ifRevision int64) (uint64, error) {
	local.Lock()
	defer local.Unlock()
	if err := n.mayWrite(key, ifRevision); err != nil {
		return 0, err
	}
	if len(value) > maxValueBytes || len(metadata) > maxMetadata {
		return 0, ErrTooLarge
	}
	local.revision++
	e := Entry{Value: append([]byte{}, value...), Metadata: append([]byte(nil), metadata...), Revision: local.revision}
	if ttl > 0 {
		e.Expires = time.Now().Add(time.Duration(ttl) * time.Millisecond)
	}
	n.keep(key, e)
	return e.Revision, nil
}

func (n *Namespace) delete(key string, ifRevision int64) (uint64, error) {
	local.Lock()
	defer local.Unlock()
	if err := n.mayWrite(key, ifRevision); err != nil {
		return 0, err
	}
	local.revision++
	delete(local.values[n.name], key)
	return local.revision, nil
}

// mayWrite checks the key and the expected revision. The lock is held.
func (n *Namespace) mayWrite(key string, ifRevision int64) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if ifRevision != anyRevision && n.current(key).Revision != uint64(ifRevision) {
		return ErrConflict
	}
	return nil
}

func (n *Namespace) list(prefix, cursor string, limit int) (Page, error) {
	local.Lock()
	defer local.Unlock()
	var page Page
	for _, key := range slices.Sorted(maps.Keys(local.values[n.name])) {
		e := n.current(key)
		if e.Revision == 0 || !strings.HasPrefix(key, prefix) || key <= cursor {
			continue
		}
		if len(page.Keys) == limit {
			page.Cursor = page.Keys[limit-1].Key
			break
		}
		page.Keys = append(page.Keys, KeyInfo{Key: key, Revision: e.Revision, Expires: e.Expires, Metadata: bytes.Clone(e.Metadata)})
	}
	return page, nil
}

func checkKey(key string) error {
	switch {
	case key == "":
		return ErrInvalid
	case len(key) > maxKeyBytes:
		return ErrTooLarge
	}
	return nil
}
