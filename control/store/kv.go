package store

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// MaxTTL bounds a value's time to live.
const MaxTTL = 10 * 365 * 24 * time.Hour

const minTTL = time.Millisecond

// KV reads and writes namespaces, strongly: a read sees every write that was
// acknowledged before it began.
type KV struct{ t *table }

var _ hostcall.KV = (*KV)(nil)

// KV returns the namespaces of all projects.
func (s *Store) KV() *KV { return &KV{s.kv} }

// AsOf returns a sequence that every read begun afterwards reflects: a change at or
// before it is in the answer. Fence cached answers, absent ones too, with it.
func (k *KV) AsOf() uint64 { return k.t.applied() }

// Reached waits until what AsOf returns has come to every write that this process was
// acknowledged, and returns it.
func (k *KV) Reached(ctx context.Context) (uint64, error) {
	if err := k.t.reached(ctx); err != nil {
		return 0, err
	}
	return k.t.applied(), nil
}

// Get implements hostcall.KV.
func (k *KV) Get(ctx context.Context, ns hostcall.Namespace, key string) (hostcall.Entry, error) {
	if err := checkNamespace(ns); err != nil {
		return hostcall.Entry{}, err
	}
	return k.t.get(ctx, space(ns), key)
}

// Put implements hostcall.KV.
func (k *KV) Put(ctx context.Context, ns hostcall.Namespace, key string, value []byte, o hostcall.PutOptions) (uint64, error) {
	if err := checkNamespace(ns); err != nil {
		return 0, err
	}
	return k.t.put(ctx, space(ns), key, value, o)
}

// Delete implements hostcall.KV. Deleting what is not there, without an expected
// revision, writes nothing and returns the log's sequence.
func (k *KV) Delete(ctx context.Context, ns hostcall.Namespace, key string, ifRevision int64) (uint64, error) {
	if err := checkNamespace(ns); err != nil {
		return 0, err
	}
	return k.t.delete(ctx, space(ns), key, ifRevision)
}

// List implements hostcall.KV. The cursor is the last key of the page before.
func (k *KV) List(ctx context.Context, ns hostcall.Namespace, prefix, cursor string, limit int) ([]hostcall.KeyInfo, string, error) {
	if err := checkNamespace(ns); err != nil {
		return nil, "", err
	}
	return k.t.list(ctx, space(ns), prefix, cursor, limit)
}

// Size returns what a namespace holds, at once.
func (k *KV) Size(ns hostcall.Namespace) (Size, error) {
	if err := checkNamespace(ns); err != nil {
		return Size{}, err
	}
	k.t.mu.RLock()
	defer k.t.mu.RUnlock()
	if x := k.t.mu.spaces[space(ns)]; x != nil {
		return x.size, nil
	}
	return Size{}, nil
}

// SizeOf returns the size that keys' values have together, without reading them; 0 for those
// that are not there. The next read may find others.
func (k *KV) SizeOf(ctx context.Context, ns hostcall.Namespace, keys ...string) (size int64, err error) {
	if err := k.t.reached(ctx); err != nil {
		return 0, err
	}
	for _, key := range keys {
		if it, ok := k.t.find(space(ns), key); ok && it.op == OpPut {
			size += int64(it.size)
		}
	}
	return size, nil
}

// Read implements hostcall.KV. All of its reads are strong, so AtLeast asks for
// nothing more; a revision that no write has had yet is an error.
func (k *KV) Read(ctx context.Context, ns hostcall.Namespace, keys []string, o hostcall.ReadOptions) ([]hostcall.Result, error) {
	if err := errors.Join(checkNamespace(ns), checkKeys(keys)); err != nil {
		return nil, err
	}
	if err := k.reaches(ctx, o.AtLeast); err != nil {
		return nil, err
	}
	// What reaches found in the stream each read reflects, applied here or not.
	out, asOf, size := make([]hostcall.Result, len(keys)), max(k.AsOf(), o.AtLeast), 0
	for i, key := range keys {
		e, err := k.t.get(ctx, space(ns), key)
		if err != nil && !errors.Is(err, hostcall.ErrNotFound) {
			return nil, err
		}
		e.AsOf = max(asOf, e.Revision)
		out[i] = hostcall.Result{Entry: e, Err: err}
		if size += len(e.Value) + len(e.Metadata); size > hostcall.MaxReadBytes {
			return nil, fmt.Errorf("store: the first %d of %d keys have over %d bytes: ask for fewer at once: %w", i+1, len(keys), hostcall.MaxReadBytes, hostcall.ErrTooLarge)
		}
	}
	return out, nil
}

func checkKeys(keys []string) error {
	if len(keys) == 0 || len(keys) > hostcall.MaxReadKeys {
		return fmt.Errorf("store: read of %d keys: want 1 to %d: %w", len(keys), hostcall.MaxReadKeys, hostcall.ErrInvalid)
	}
	return nil
}

// reaches refuses a revision that the stream has not come to.
func (k *KV) reaches(ctx context.Context, rev uint64) error {
	if rev <= k.AsOf() {
		return nil
	}
	info, err := k.t.stream.Info(ctx)
	if err != nil {
		return readFailed("look for the newest revision", err)
	}
	if rev > info.State.LastSeq {
		return fmt.Errorf("store: no write has had revision %d yet, the newest is %d: a revision of another store, or of before it was restored: %w", rev, info.State.LastSeq, hostcall.ErrInvalid)
	}
	return nil
}

func (t *table) get(ctx context.Context, space, key string) (hostcall.Entry, error) {
	subj, err := subject(t.prefix, space, key)
	if err != nil {
		return hostcall.Entry{}, err
	}
	msg, err := t.stream.GetLastMsgForSubject(ctx, subj)
	if err != nil {
		return hostcall.Entry{}, readFailed("get", err)
	}
	return t.entry(msg)
}

// entry checks a stored message and returns its value; ErrNotFound if it is a
// deletion or its time is up.
func (t *table) entry(msg *jetstream.RawStreamMsg) (hostcall.Entry, error) {
	e := hostcall.Entry{Value: msg.Data, Metadata: metadataOf(msg.Header.Get(hdrMetadata)), Revision: msg.Sequence}
	if opOf(msg.Header.Get(hdrOp), msg.Header.Get(hdrMarker)) != OpPut {
		return hostcall.Entry{}, hostcall.ErrNotFound
	}
	if ms, _ := strconv.ParseInt(msg.Header.Get(hdrExpires), 10, 64); ms > 0 {
		e.Expires = time.UnixMilli(ms)
		if !t.store.cfg.Now().Before(e.Expires) {
			return hostcall.Entry{}, hostcall.ErrNotFound
		}
	}
	sum := sha256.Sum256(msg.Data)
	if hex.EncodeToString(sum[:]) != msg.Header.Get(hdrSum) {
		return hostcall.Entry{}, fmt.Errorf("store: revision %d of %s: %w", msg.Sequence, msg.Subject, ErrCorrupt)
	}
	return e, nil
}

func readFailed(op string, err error) error {
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return hostcall.ErrNotFound
	}
	return fmt.Errorf("store: %s: %w: %w", op, hostcall.ErrUnavailable, err)
}

func (t *table) put(ctx context.Context, space, key string, value []byte, o hostcall.PutOptions) (uint64, error) {
	subj, err := subject(t.prefix, space, key)
	if err != nil {
		return 0, err
	}
	if len(value) > hostcall.MaxValueBytes {
		return 0, fmt.Errorf("store: a value of %d bytes, over %d: %w", len(value), hostcall.MaxValueBytes, hostcall.ErrTooLarge)
	}
	if len(o.Metadata) > hostcall.MaxMetadataBytes {
		return 0, fmt.Errorf("store: metadata of %d bytes, over %d: %w", len(o.Metadata), hostcall.MaxMetadataBytes, hostcall.ErrTooLarge)
	}
	msg := message(subj, value)
	setMetadata(msg, o.Metadata)
	if err := t.setTTL(msg, o.TTL); err != nil {
		return 0, err
	}
	return t.write(ctx, space, key, msg, o.IfRevision)
}

func setMetadata(msg *nats.Msg, metadata []byte) {
	if len(metadata) > 0 {
		msg.Header.Set(hdrMetadata, base64.StdEncoding.EncodeToString(metadata))
	}
}

// metadataOf undoes setMetadata; only this room writes the header.
func metadataOf(s string) []byte {
	if s == "" {
		return nil
	}
	b, _ := base64.StdEncoding.DecodeString(s)
	return b
}

func (t *table) setTTL(msg *nats.Msg, ttl time.Duration) error {
	switch {
	case ttl == 0:
		return nil
	case ttl < minTTL || ttl > MaxTTL:
		return fmt.Errorf("store: a time to live of %v: want %v to %v: %w", ttl, minTTL, MaxTTL, hostcall.ErrInvalid)
	}
	msg.Header.Set(hdrExpires, strconv.FormatInt(t.store.cfg.Now().Add(ttl).UnixMilli(), 10))
	// The server counts whole seconds; never let it end a value early.
	msg.Header.Set(jetstream.MsgTTLHeader, strconv.FormatInt(int64((ttl+time.Second-1)/time.Second), 10))
	return nil
}

func (t *table) delete(ctx context.Context, space, key string, ifRevision int64) (uint64, error) {
	subj, err := subject(t.prefix, space, key)
	if err != nil {
		return 0, err
	}
	if ifRevision < hostcall.AnyRevision || ifRevision == hostcall.AbsentRevision {
		return 0, fmt.Errorf("store: delete at revision %d: want a revision, or %d for any: %w", ifRevision, hostcall.AnyRevision, hostcall.ErrInvalid)
	}
	if err := t.reached(ctx); err != nil {
		return 0, err
	}
	asOf := t.applied()
	if it, ok := t.find(space, key); !ok || !it.live(t.store.cfg.Now()) {
		if ifRevision != hostcall.AnyRevision {
			return 0, hostcall.ErrNotFound
		}
		return asOf, nil
	}
	msg := &nats.Msg{Subject: subj, Header: nats.Header{}}
	msg.Header.Set(hdrOp, opPurge)
	msg.Header.Set(jetstream.MsgTTLHeader, strconv.FormatInt(int64(t.store.cfg.TombstoneLife/time.Second), 10))
	return t.write(ctx, space, key, msg, ifRevision)
}

// write publishes msg if the key is at the expected revision.
func (t *table) write(ctx context.Context, space, key string, msg *nats.Msg, ifRevision int64) (uint64, error) {
	if ifRevision < hostcall.AnyRevision {
		return 0, fmt.Errorf("store: write at revision %d: want %d or more: %w", ifRevision, hostcall.AnyRevision, hostcall.ErrInvalid)
	}
	if err := t.mayWrite(len(msg.Data)); err != nil {
		return 0, err
	}
	if ifRevision == hostcall.AnyRevision {
		return t.publish(ctx, msg)
	}
	// The index says what the key is at; the stream has the last word. What the
	// stream refuses is looked at once more there: the index may have been behind.
	expected, err := t.expected(ctx, space, key, ifRevision)
	if err != nil {
		return 0, err
	}
	seq, err := t.publish(ctx, msg, jetstream.WithExpectLastSequencePerSubject(expected))
	if !errors.Is(err, hostcall.ErrConflict) {
		return seq, err
	}
	if expected, err = t.expectedInStream(ctx, msg.Subject, ifRevision); err != nil {
		return 0, err
	}
	return t.publish(ctx, msg, jetstream.WithExpectLastSequencePerSubject(expected))
}

// mayWrite refuses what the disk has no room for, and KV's writes in an epoch that is over.
func (t *table) mayWrite(size int) error {
	if err := t.store.disk.room(int64(size)); err != nil {
		return err
	}
	if t == t.store.kv {
		return t.store.past.refusal()
	}
	return nil
}

func (t *table) publish(ctx context.Context, msg *nats.Msg, opts ...jetstream.PublishOpt) (uint64, error) {
	ack, err := t.store.js.PublishMsg(ctx, msg, opts...)
	if err != nil {
		return 0, publishFailed("write", err)
	}
	t.wrote(ack.Sequence)
	return ack.Sequence, nil
}

// expected returns the subject's sequence that stands for ifRevision: that
// revision itself, or for "absent" whatever is left of the key.
func (t *table) expected(ctx context.Context, space, key string, ifRevision int64) (uint64, error) {
	if err := t.reached(ctx); err != nil {
		return 0, err
	}
	it, ok := t.find(space, key)
	if !ok {
		return match(0, false, ifRevision)
	}
	return match(it.seq, it.live(t.store.cfg.Now()), ifRevision)
}

func (t *table) expectedInStream(ctx context.Context, subj string, ifRevision int64) (uint64, error) {
	msg, err := t.stream.GetLastMsgForSubject(ctx, subj)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return match(0, false, ifRevision)
	}
	if err != nil {
		return 0, readFailed("read the revision", err)
	}
	_, err = t.entry(msg)
	return match(msg.Sequence, !errors.Is(err, hostcall.ErrNotFound), ifRevision)
}

func match(seq uint64, live bool, ifRevision int64) (uint64, error) {
	if live != (ifRevision != hostcall.AbsentRevision) || live && seq != uint64(ifRevision) {
		return 0, hostcall.ErrConflict
	}
	return seq, nil
}

func (t *table) list(ctx context.Context, space, prefix, cursor string, limit int) ([]hostcall.KeyInfo, string, error) {
	if limit <= 0 || limit > hostcall.MaxListKeys {
		return nil, "", fmt.Errorf("store: list %d keys: want 1 to %d: %w", limit, hostcall.MaxListKeys, hostcall.ErrInvalid)
	}
	if err := t.reached(ctx); err != nil {
		return nil, "", err
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	x := t.mu.spaces[space]
	if x == nil {
		return nil, "", nil
	}
	items, more := x.list(prefix, cursor, limit, t.store.cfg.Now())
	keys := make([]hostcall.KeyInfo, len(items))
	for i, it := range items {
		keys[i] = hostcall.KeyInfo{Key: it.key, Revision: it.seq, Expires: unixMilli(it.expires), Metadata: it.metadata}
	}
	if more {
		return keys, items[len(items)-1].key, nil
	}
	return keys, "", nil
}

// unixMilli is the zero time for 0.
func unixMilli(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
