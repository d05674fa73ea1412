//go:build !wasip1

package edge

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Off the edge there is no KV: each namespace is a map in this process, empty at
// start and lost at its end. It keeps KV's rules on revisions, expiry and order.

const (
	maxKeyBytes   = 512
	maxValueBytes = 25 << 20
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
	e.Value = bytes.Clone(e.Value)
	return e, nil
}

func (n *Namespace) put(key string, value []byte, ttl, ifRevision int64) (uint64, error) {
	local.Lock()
	defer local.Unlock()
	if err := n.mayWrite(key, ifRevision); err != nil {
		return 0, err
	}
	if len(value) > maxValueBytes {
		return 0, ErrTooLarge
	}
	local.revision++
	e := Entry{Value: append([]byte{}, value...), Revision: local.revision}
	if ttl > 0 {
		e.Expires = time.Now().Add(time.Duration(ttl) * time.Millisecond)
	}
	if local.values[n.name] == nil {
		local.values[n.name] = map[string]Entry{}
	}
	local.values[n.name][key] = e
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
		page.Keys = append(page.Keys, KeyInfo{Key: key, Revision: e.Revision, Expires: e.Expires})
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
