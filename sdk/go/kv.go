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
// any bytes, 1 to 512 of them; values have up to 25 MiB, and metadata of up to 1 KiB beside them.
//
// Reads are answered by the node: they may be as stale as the namespace's mode
// allows, but never older than what this node wrote; [Strong] and [AtLeast] ask for more. Writes return once they are
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
	Metadata []byte    // the caller's own; nil: none
	Revision uint64    // grows with each write in the namespace
	Expires  time.Time // zero: never
	// Staleness bounds how long ago this was the newest there is: 0 for now, below 0 if that is not known.
	Staleness time.Duration
}

// KeyInfo is one key of a listing.
type KeyInfo struct {
	Key      string
	Revision uint64
	Expires  time.Time // zero: never
	Metadata []byte    // nil: none
}

// Page is one step of a listing.
type Page struct {
	Keys   []KeyInfo // in byte order
	Cursor string    // where the next page begins; "" after the last
}

// WriteOption bounds a Put or a Delete.
type WriteOption func(*write)

type write struct {
	metadata   []byte
	ttl        time.Duration
	ifRevision int64
}

// TTL lets the value expire after d, rounded up to a millisecond. Put only.
func TTL(d time.Duration) WriteOption { return func(w *write) { w.ttl = d } }

// WithMetadata keeps b with the value and lists it with the key: up to 1,024 bytes. Put only.
func WithMetadata(b []byte) WriteOption { return func(w *write) { w.metadata = b } }

// The special revisions that kv_read takes, and how many keys.
const (
	readAny     = 0
	readStrong  = -1
	maxReadKeys = 100
)

// ReadOption asks for a fresher answer than the node may have.
type ReadOption func(*read)

type read struct{ atLeast int64 }

// Strong reads the truth: the answer reflects every write that was acknowledged
// anywhere before the read began.
func Strong() ReadOption { return func(r *read) { r.atLeast = readStrong } }

// AtLeast reads what reflects the write, of any key of the namespace, that had this
// revision: so that whoever is told of a write sees it, in another PoP too.
func AtLeast(revision uint64) ReadOption {
	return func(r *read) {
		if r.atLeast != readStrong {
			r.atLeast = max(r.atLeast, int64(min(revision, math.MaxInt64)))
		}
	}
}

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
func (n *Namespace) Get(ctx context.Context, key string, opts ...ReadOption) ([]byte, error) {
	if len(opts) > 0 {
		e, err := n.GetEntry(ctx, key, opts...)
		return e.Value, err
	}
	if err := ctx.Err(); err != nil {
		return nil, n.wrap("get", key, err)
	}
	e, err := n.get(ctx, key)
	return e.Value, n.wrap("get", key, err)
}

// GetEntry returns the value of key with all that is known of it; ErrNotFound if
// there is none. Unlike Get it stops all goroutines of the request until it is answered.
func (n *Namespace) GetEntry(ctx context.Context, key string, opts ...ReadOption) (Entry, error) {
	found, err := n.read(ctx, []string{key}, opts)
	if err == nil && found[0] == nil {
		err = ErrNotFound
	}
	if err != nil {
		return Entry{}, n.wrap("get", key, err)
	}
	return *found[0], nil
}

// GetMany returns the entries of those of the keys that are there: of up to 100 keys and 32 MiB
// at once. Each key counts as one KV operation.
func (n *Namespace) GetMany(ctx context.Context, keys []string, opts ...ReadOption) (map[string]Entry, error) {
	out := make(map[string]Entry, len(keys))
	if len(keys) == 0 {
		return out, nil
	}
	found, err := n.read(ctx, keys, opts)
	if err != nil {
		return nil, n.wrap("get", keys[0], err)
	}
	for i, e := range found {
		if e != nil {
			out[keys[i]] = *e
		}
	}
	return out, nil
}

// read answers in the order of the keys; nil for what is not there.
func (n *Namespace) read(ctx context.Context, keys []string, opts []ReadOption) ([]*Entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(keys) > maxReadKeys {
		return nil, fmt.Errorf("%d keys, at most %d at once: %w", len(keys), maxReadKeys, ErrInvalid)
	}
	r := read{atLeast: readAny}
	for _, o := range opts {
		o(&r)
	}
	return n.many(keys, r.atLeast)
}

// Increment adds delta to the decimal number under key, in one step that no other write
// comes between, and returns the sum. A key that is not there counts as 0; expiry and
// metadata stay. ErrInvalid if the value is no number of 64 bits, or the sum is not.
func (n *Namespace) Increment(ctx context.Context, key string, delta int64) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, n.wrap("increment", key, err)
	}
	sum, err := n.increment(key, delta)
	return sum, n.wrap("increment", key, err)
}

// Put stores value under key and returns the write's revision, once it is
// durable. Options: [TTL], [WithMetadata], [IfRevision], [IfAbsent].
func (n *Namespace) Put(ctx context.Context, key string, value []byte, opts ...WriteOption) (revision uint64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, n.wrap("put", key, err)
	}
	w := options(opts)
	ttl, err := w.milliseconds()
	if err == nil {
		revision, err = n.put(key, value, w.metadata, ttl, w.ifRevision)
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

// decodeRead reads what kv_read wrote: nil for what is not there.
func decodeRead(s string) ([]*Entry, error) {
	d := decoder{s: s}
	out := make([]*Entry, d.count(36))
	for i := range out {
		status := Status(int32(d.u32()))
		e := &Entry{Revision: d.u64(), Expires: expiry(d.u64()), Staleness: staleness(int64(d.u64())), Metadata: d.bytes(), Value: d.bytes()}
		if status == 0 {
			if e.Value == nil {
				e.Value = []byte{}
			}
			out[i] = e
		} else if status != ErrNotFound {
			return nil, status
		}
	}
	return out, d.err
}

func staleness(ms int64) time.Duration {
	if ms < 0 {
		return -1
	}
	return time.Duration(ms) * time.Millisecond
}

// decodePage reads what kv_keys wrote.
func decodePage(s string) (Page, error) {
	d := decoder{s: s}
	page := Page{Keys: make([]KeyInfo, d.count(24))}
	for i := range page.Keys {
		page.Keys[i] = KeyInfo{Key: d.string(), Revision: d.u64(), Expires: expiry(d.u64()), Metadata: d.bytes()}
	}
	page.Cursor = d.string()
	return page, d.err
}
