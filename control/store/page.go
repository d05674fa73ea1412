package store

import (
	"context"
	"encoding/hex"
	"errors"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// filled returns the changes that items are, but of those that were replaced since: what
// replaced them comes later in the log.
func (t *table) filled(ctx context.Context, space string, items []*item, inline int) (list []Change, err error) {
	msgs, err := t.messages(ctx, space, items, inline)
	if err != nil {
		return nil, err
	}
	for _, it := range items {
		c := Change{Seq: it.seq, Key: it.key, Op: it.op, Expires: unixMilli(it.expires), Size: it.size, Metadata: it.metadata}
		if it.op == OpPut {
			msg := msgs[it.seq]
			if msg == nil {
				msg, err = t.stream.GetMsg(ctx, it.seq)
			}
			if err == nil {
				err = t.fillFrom(msg, &c, inline)
			} else {
				err = readFailed("read value", err)
			}
			if errors.Is(err, hostcall.ErrNotFound) {
				err = nil
				continue
			}
			if err != nil {
				return nil, err
			}
		}
		list = append(list, c)
	}
	return list, nil
}

// fill reads the value and digest of c from the stream.
func (t *table) fill(ctx context.Context, c *Change, inline int) error {
	msg, err := t.stream.GetMsg(ctx, c.Seq)
	if err != nil {
		return readFailed("read value", err)
	}
	return t.fillFrom(msg, c, inline)
}

func (t *table) fillFrom(msg *jetstream.RawStreamMsg, c *Change, inline int) error {
	sum, err := hex.DecodeString(msg.Header.Get(hdrSum))
	if err != nil || len(sum) != len(c.Sum) {
		return ErrCorrupt
	}
	copy(c.Sum[:], sum)
	if int(c.Size) <= inline {
		// An ended value is still a change; only its bytes are of no use.
		e, err := t.entry(msg)
		if err != nil && !errors.Is(err, hostcall.ErrNotFound) {
			return err
		}
		if c.Value = e.Value; err != nil {
			c.Value = msg.Data
		}
	}
	return nil
}

// Where a page has many small values, it is read in one go and not value by value.
const (
	manyValues = 64
	atOnce     = 512 // messages
)

// messages reads those of a page's items in one go, if they are many and small; nil if not. One
// that is not among them was replaced, or came late, and is looked for by itself.
func (t *table) messages(ctx context.Context, space string, items []*item, inline int) (map[uint64]*jetstream.RawStreamMsg, error) {
	wanted := make(map[uint64]*jetstream.RawStreamMsg, len(items))
	for _, it := range items {
		if it.op != OpPut {
			continue
		}
		if int(it.size) > inline {
			return nil, nil
		}
		wanted[it.seq] = nil
	}
	if len(wanted) < manyValues || space == "" {
		return nil, nil
	}
	first, last := items[0].seq, items[len(items)-1].seq
	c, err := t.stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{t.prefix + "." + strings.ReplaceAll(space, "/", ".") + ".>"},
		DeliverPolicy:  jetstream.DeliverByStartSequencePolicy, OptStartSeq: first, InactiveThreshold: readerLife,
	})
	if err != nil {
		return nil, readFailed("read values", err)
	}
	for {
		batch, err := c.FetchNoWait(atOnce)
		if err != nil {
			return nil, readFailed("read values", err)
		}
		end := true // unless there was something, and more
		for m := range batch.Messages() {
			meta, err := m.Metadata()
			if err != nil {
				return nil, readFailed("read values", err)
			}
			seq := meta.Sequence.Stream
			if _, want := wanted[seq]; want {
				wanted[seq] = &jetstream.RawStreamMsg{Subject: m.Subject(), Sequence: seq, Header: nats.Header(m.Headers()), Data: m.Data(), Time: meta.Timestamp}
			}
			end = seq >= last || meta.NumPending == 0
		}
		if err := batch.Error(); err != nil {
			return nil, readFailed("read values", err)
		}
		if end || ctx.Err() != nil {
			return wanted, ctx.Err()
		}
	}
}
