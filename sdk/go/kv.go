package edge

import (
	"context"
	"fmt"
	"iter"
	"math"
	"time"
)

// kvEntrySize is the size of the entry header kv_get writes; see sdk/abi.
const kvEntrySize = 24

// The special revisions of kv_put and kv_delete.
const (
	anyRevision    = -1
	absentRevision = 0
)

// pageKeys is how many keys List asks for at a time.
const pageKeys = 500

// Namespace is a KV namespace that selvage.toml binds to this function. Keys are
// any bytes, 1 to 512 of them; values have up to 25 MiB.
//
// Reads are answered by the node: they may be as stale as the namespace's mode
// allows, but never older than what this node wrote. Writes return once they are
// durable. Errors wrap a [Status].
//
// The context is looked at before each call. Gets of several goroutines are under
// way at once, and end with their context; any other call stops all goroutines of
// the request until it is answered.
type Namespace struct {
	name string
	open opened
}

// KV returns the namespace bound under name. It asks nothing yet, so a package
// variable may hold it: whether it is bound shows at the first call.
func KV(name string) *Namespace { return &Namespace{name: name} }

// Entry is a value and what is known of it.
type Entry struct {
	Value    []byte    // the caller's own
	Revision uint64    // grows with each write in the namespace
	Expires  time.Time // zero: never
}

// KeyInfo is one key of a listing.
type KeyInfo struct {
	Key      string
	Revision uint64
	Expires  time.Time // zero: never
}

// Page is one step of a listing.
type Page struct {
	Keys   []KeyInfo // in byte order
	Cursor string    // where the next page begins; "" after the last
}

// WriteOption bounds a Put or a Delete.
type WriteOption func(*write)

type write struct {
	ttl        time.Duration
	ifRevision int64
}

// TTL lets the value expire after d, rounded up to a millisecond. Put only.
func TTL(d time.Duration) WriteOption { return func(w *write) { w.ttl = d } }

// IfRevision writes only while the key is at revision r: else ErrConflict. 0 is
// the revision of a key that is not there.
func IfRevision(r uint64) WriteOption {
	return func(w *write) { w.ifRevision = int64(min(r, math.MaxInt64)) }
}

// IfAbsent writes only if the key is not there: else ErrConflict.
func IfAbsent() WriteOption { return IfRevision(absentRevision) }

func options(list []WriteOption) write {
	w := write{ifRevision: anyRevision}
	for _, o := range list {
		o(&w)
	}
	return w
}

// milliseconds returns the ttl as kv_put takes it.
func (w write) milliseconds() (int64, error) {
	if w.ttl < 0 {
		return 0, fmt.Errorf("TTL %v: %w", w.ttl, ErrInvalid)
	}
	ms := w.ttl / time.Millisecond
	if w.ttl%time.Millisecond > 0 {
		ms++
	}
	return int64(ms), nil
}

// Get returns the value of key; ErrNotFound if there is none.
func (n *Namespace) Get(ctx context.Context, key string) ([]byte, error) {
	e, err := n.GetEntry(ctx, key)
	return e.Value, err
}

// GetEntry returns the value of key with its revision and expiry; ErrNotFound if
// there is none.
func (n *Namespace) GetEntry(ctx context.Context, key string) (Entry, error) {
	if err := ctx.Err(); err != nil {
		return Entry{}, n.wrap("get", key, err)
	}
	e, err := n.get(ctx, key)
	return e, n.wrap("get", key, err)
}

// Put stores value under key and returns the write's revision, once it is
// durable. Options: [TTL], [IfRevision], [IfAbsent].
func (n *Namespace) Put(ctx context.Context, key string, value []byte, opts ...WriteOption) (revision uint64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, n.wrap("put", key, err)
	}
	w := options(opts)
	ttl, err := w.milliseconds()
	if err == nil {
		revision, err = n.put(key, value, ttl, w.ifRevision)
	}
	return revision, n.wrap("put", key, err)
}

// Delete removes key and returns the deletion's revision. With [IfRevision] it
// does so only at that revision.
func (n *Namespace) Delete(ctx context.Context, key string, opts ...WriteOption) (revision uint64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, n.wrap("delete", key, err)
	}
	revision, err = n.delete(key, options(opts).ifRevision)
	return revision, n.wrap("delete", key, err)
}

// List yields the keys that begin with prefix, in byte order. It asks page by
// page, so what changes meanwhile may or may not be seen. An error ends it.
func (n *Namespace) List(ctx context.Context, prefix string) iter.Seq2[KeyInfo, error] {
	return func(yield func(KeyInfo, error) bool) {
		for cursor := ""; ; {
			page, err := n.ListPage(ctx, prefix, cursor, pageKeys)
			if err != nil {
				yield(KeyInfo{}, err)
				return
			}
			for _, k := range page.Keys {
				if !yield(k, nil) {
					return
				}
			}
			if cursor = page.Cursor; cursor == "" {
				return
			}
		}
	}
}

// ListPage returns up to limit keys that begin with prefix, from cursor on: ""
// or the Cursor of the page before. A page may have fewer keys though more follow.
func (n *Namespace) ListPage(ctx context.Context, prefix, cursor string, limit int) (Page, error) {
	err := ctx.Err()
	if err == nil && limit < 1 {
		err = fmt.Errorf("limit %d: %w", limit, ErrInvalid)
	}
	if err != nil {
		return Page{}, n.wrap("list", prefix, err)
	}
	page, err := n.list(prefix, cursor, min(limit, 1000))
	return page, n.wrap("list", prefix, err)
}

func (n *Namespace) wrap(op, key string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("edge: kv %s: %s %q: %w", n.name, op, key, err)
}

// expiry turns the layout's Unix milliseconds into a time; 0 is never.
func expiry(ms uint64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(ms))
}

// decodePage reads what kv_list wrote.
func decodePage(s string) (Page, error) {
	d := decoder{s: s}
	page := Page{Keys: make([]KeyInfo, d.count(20))}
	for i := range page.Keys {
		page.Keys[i] = KeyInfo{Key: d.string(), Revision: d.u64(), Expires: expiry(d.u64())}
	}
	page.Cursor = d.string()
	return page, d.err
}
