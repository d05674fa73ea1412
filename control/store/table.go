package store

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// Headers of stored messages.
const (
	hdrExpires  = "Selvage-Expires"  // Unix ms; the exact time, Nats-TTL is in whole seconds
	hdrSum      = "Selvage-Sum"      // SHA-256 of the value, hex
	hdrMetadata = "Selvage-Metadata" // base64; absent for none
	// A tombstone looks like the NATS KV's own: the server then leaves no marker when it ends.
	hdrOp     = "KV-Operation"
	opPurge   = "PURGE"
	hdrMarker = jetstream.MarkerReasonHeader
	hdrSize   = "Nats-Msg-Size" // set by the server on deliveries without the value
)

// table is one stream with the last value per key, and what its keys are.
//
// One consumer feeds the index in stream order. The index is therefore a state
// the stream had, at most a moment behind; who needs it to hold a write of this
// process waits for the write's sequence (reached).
type table struct {
	store  *Store
	prefix string
	stream jetstream.Stream
	feed   jetstream.ConsumeContext
	sweep  *time.Ticker
	done   chan struct{}
	wg     sync.WaitGroup

	mu struct {
		sync.RWMutex
		spaces  map[string]*index
		applied uint64        // the feed's position
		horizon uint64        // deletions up to here may be forgotten
		caught  bool          // the feed has met the stream's end once
		fed     uint64        // messages until then
		moved   chan struct{} // closed when applied moves and someone waits
		waiting bool
		subs    map[string]map[*Subscription]struct{}
	}
	acked struct {
		sync.Mutex
		seq uint64 // the highest sequence this process wrote
	}
}

func (s *Store) openTable(ctx context.Context, prefix string, cfg jetstream.StreamConfig) (*table, error) {
	stream, err := s.js.CreateOrUpdateStream(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("store: open stream %s: %w", cfg.Name, err)
	}
	t := &table{store: s, prefix: prefix, stream: stream, done: make(chan struct{})}
	t.mu.spaces = make(map[string]*index)
	t.mu.moved = make(chan struct{})
	t.mu.subs = make(map[string]map[*Subscription]struct{})
	if err := t.startFeed(ctx); err != nil {
		t.close()
		return nil, fmt.Errorf("store: read the keys of %s: %w", cfg.Name, err)
	}
	return t, nil
}

// startFeed reads all keys there are and goes on with those that come.
func (t *table) startFeed(ctx context.Context) error {
	info, err := t.stream.Info(ctx)
	if err != nil {
		return err
	}
	t.mu.horizon = info.State.LastSeq
	// Ordered consumers deliver once (MaxDeliver 1) and are made anew, at the
	// right place, when a delivery goes missing.
	consumer, err := t.stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverAllPolicy, HeadersOnly: true, MaxResetAttempts: -1,
	})
	if err != nil {
		return err
	}
	t.mu.caught = info.State.Msgs == 0
	if t.mu.caught {
		t.mu.applied = info.State.LastSeq
	}
	if t.feed, err = consumer.Consume(t.fed, jetstream.PullMaxMessages(4096)); err != nil {
		return err
	}
	t.sweep = time.NewTicker(time.Minute)
	t.wg.Go(t.sweeper)
	if err := t.untilCaught(ctx, consumer); err != nil {
		return err
	}
	return t.tellUnread(ctx, info.State.LastSeq)
}

// tellUnread says how many messages the stream has that the feed did not bring: the server passes
// over what its checksums do not fit, without a word. Last is the stream's last message before:
// if somebody has written since, it cannot be told.
func (t *table) tellUnread(ctx context.Context, last uint64) error {
	info, err := t.stream.Info(ctx)
	if err != nil {
		return err
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	if info.State.LastSeq == last && info.State.Msgs > t.mu.fed {
		t.store.cfg.Log.Error("store: messages cannot be read: their keys count as not there; restore the store from a backup, or write them again",
			"stream", info.Config.Name, "messages", info.State.Msgs-t.mu.fed)
	}
	return nil
}

// stall is how long the feed may bring nothing before it is taken to never will, in patiences.
const stall = 4

// untilCaught waits until every key that was there is in the index.
func (t *table) untilCaught(ctx context.Context, consumer jetstream.Consumer) error {
	// The last messages may end their time while they are waited for, and never
	// come: ask the consumer now and then.
	ask := time.NewTicker(250 * time.Millisecond)
	defer ask.Stop()
	most := stall * t.store.cfg.patience
	stalled := time.NewTimer(most)
	defer stalled.Stop()
	for {
		t.mu.Lock()
		caught, moved := t.mu.caught, t.waitLocked()
		t.mu.Unlock()
		if caught {
			return nil
		}
		select {
		case <-moved:
			stalled.Reset(most)
		case <-stalled.C:
			return fmt.Errorf("nothing came after message %d for %v: %w: restore the store from a backup", t.position(), most, ErrCorrupt)
		case <-ask.C:
			info, err := consumer.Info(ctx)
			if err == nil && info.NumPending == 0 {
				t.catch(info.Delivered.Stream)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (t *table) position() uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.mu.applied
}

// catch notes that nothing follows the delivery of seq.
func (t *table) catch(seq uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.caught = t.mu.caught || t.mu.applied >= seq
}

func (t *table) close() {
	if t.feed != nil {
		t.feed.Stop()
		<-t.feed.Closed()
	}
	close(t.done)
	if t.sweep != nil {
		t.sweep.Stop()
	}
	t.wg.Wait()
}

// fed takes one message of the feed.
func (t *table) fed(msg jetstream.Msg) {
	meta, err := msg.Metadata()
	if err != nil {
		t.store.cfg.Log.Error("store: a message without metadata", "subject", msg.Subject(), "error", err)
		return
	}
	space, it, err := t.itemOf(msg, meta)
	if err != nil {
		t.store.cfg.Log.Error("store: a message that is not ours", "error", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	// What was removed since was stored before the oldest message that may still be removed.
	if !t.mu.caught && t.mu.horizon >= meta.Sequence.Stream && it != nil && it.at >= t.cutoff() {
		t.mu.horizon = meta.Sequence.Stream - 1
	}
	if err == nil {
		t.index(space).apply(it)
	}
	t.mu.applied = meta.Sequence.Stream
	if !t.mu.caught {
		t.mu.fed++
	}
	t.mu.caught = t.mu.caught || meta.NumPending == 0
	t.tell(space)
}

// itemOf reads a message delivered without its value.
func (t *table) itemOf(msg jetstream.Msg, meta *jetstream.MsgMetadata) (string, *item, error) {
	space, key, err := parseSubject(t.prefix, msg.Subject())
	if err != nil {
		return "", nil, err
	}
	h := msg.Headers()
	it := &item{key: key, seq: meta.Sequence.Stream, at: meta.Timestamp.UnixMilli(), op: opOf(h.Get(hdrOp), h.Get(hdrMarker))}
	if it.op != OpPut {
		return space, it, nil
	}
	it.expires, _ = strconv.ParseInt(h.Get(hdrExpires), 10, 64)
	size, err := strconv.ParseUint(h.Get(hdrSize), 10, 32)
	if err != nil {
		return "", nil, fmt.Errorf("store: message %d of %s has no size: %w", it.seq, msg.Subject(), err)
	}
	it.size, it.metadata = uint32(size), metadataOf(h.Get(hdrMetadata))
	if sum, err := hex.DecodeString(h.Get(hdrSum)); err == nil {
		copy(it.sum[:], sum) // one that is not there is found when the value is read
	}
	return space, it, nil
}

func opOf(op, marker string) Op {
	switch {
	case marker != "":
		return OpExpire
	case op == opPurge:
		return OpDelete
	}
	return OpPut
}

// index returns the space's index, making it; the lock is held.
func (t *table) index(space string) *index {
	x := t.mu.spaces[space]
	if x == nil {
		x = newIndex()
		t.mu.spaces[space] = x
	}
	return x
}

// tell wakes who waits for space or for the feed to move; the lock is held.
func (t *table) tell(space string) {
	if t.mu.waiting {
		close(t.mu.moved)
		t.mu.moved, t.mu.waiting = make(chan struct{}), false
	}
	for sub := range t.mu.subs[space] {
		sub.Mark(t.logOf(space))
	}
}

// waitLocked returns what is closed when the feed moves next; the lock is held.
func (t *table) waitLocked() <-chan struct{} {
	t.mu.waiting = true
	return t.mu.moved
}

func (t *table) logOf(space string) string {
	if space == "" {
		return t.prefix
	}
	return t.prefix + "/" + space
}

// wrote notes that this process was acknowledged seq.
func (t *table) wrote(seq uint64) {
	t.acked.Lock()
	defer t.acked.Unlock()
	t.acked.seq = max(t.acked.seq, seq)
}

// reached waits until the index holds everything this process was acknowledged.
func (t *table) reached(ctx context.Context) error {
	t.acked.Lock()
	seq := t.acked.seq
	t.acked.Unlock()
	for t.applied() < seq {
		t.mu.Lock()
		applied, moved := t.mu.applied, t.waitLocked()
		t.mu.Unlock()
		if applied >= seq {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("store: wait for revision %d: %w: %w", seq, hostcall.ErrUnavailable, ctx.Err())
		}
	}
	return nil
}

// applied returns the sequence that the index reflects.
func (t *table) applied() uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.mu.applied
}

// find returns the key's newest change.
func (t *table) find(space, key string) (*item, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	x := t.mu.spaces[space]
	if x == nil {
		return nil, false
	}
	return x.get(key)
}

// cutoff is the time, in Unix ms, before which deletions may be forgotten.
func (t *table) cutoff() int64 { return time.Now().Add(-t.store.cfg.TombstoneLife).UnixMilli() }

// sweeper drops from the index the deletions that the stream drops by itself.
func (t *table) sweeper() {
	for {
		select {
		case <-t.sweep.C:
			t.forget(t.cutoff())
		case <-t.done:
			return
		}
	}
}

func (t *table) forget(cutoff int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, x := range t.mu.spaces {
		x.rest()
		t.mu.horizon = max(t.mu.horizon, x.forget(cutoff))
	}
}

// publishFailed turns what the stream said no with into this room's errors.
func publishFailed(op string, err error) error {
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return fmt.Errorf("store: %s: %w: %w", op, hostcall.ErrUnavailable, err)
	}
	switch api.ErrorCode {
	case jetstream.JSErrCodeStreamWrongLastSequence, jetstream.JSErrCodeStreamWrongLastSequenceConstant:
		return fmt.Errorf("store: %s: %w", op, hostcall.ErrConflict)
	case errCodeInsufficient, errCodeStorage, errCodeStoreFailed:
		return fmt.Errorf("store: %s: %w (%s)", op, ErrFull, api.Description)
	case jetstream.JSErrCodeStreamMessageExceedsMaximum:
		return fmt.Errorf("store: %s: %w", op, hostcall.ErrTooLarge)
	}
	return fmt.Errorf("store: %s: %w: %w", op, hostcall.ErrUnavailable, err)
}

// Codes of nats-server (errors.json) that nats.go does not name.
const (
	errCodeInsufficient jetstream.ErrorCode = 10023
	errCodeStorage      jetstream.ErrorCode = 10047
	errCodeStoreFailed  jetstream.ErrorCode = 10077
)
