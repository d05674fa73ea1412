package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// message returns a message with its digest.
func message(subject string, value []byte) *nats.Msg {
	sum := sha256.Sum256(value)
	m := &nats.Msg{Subject: subject, Data: value, Header: nats.Header{}}
	m.Header.Set(hdrSum, hex.EncodeToString(sum[:]))
	return m
}

// readerLife is how long the server keeps a reader that no longer asks.
const readerLife = 10 * time.Second

// each calls do for the messages of stream on subject from sequence from, oldest first, up to limit, until it fails or there are no more.
func (s *Store) each(ctx context.Context, stream jetstream.Stream, subject string, from uint64, limit int, do func(jetstream.Msg, *jetstream.MsgMetadata) error) error {
	c, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{subject}, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: max(1, from),
		InactiveThreshold: readerLife,
	})
	if err != nil {
		return readFailed("read stream", err)
	}
	info, err := c.Info(ctx)
	if err != nil {
		return readFailed("read stream", err)
	}
	want := int(min(info.NumPending, uint64(limit)))
	for want > 0 {
		batch, err := c.Fetch(min(want, 256), jetstream.FetchContext(ctx))
		if err != nil {
			return readFailed("read stream", err)
		}
		n := 0
		for m := range batch.Messages() {
			n++
			if err := handle(m, do); err != nil {
				return err
			}
		}
		if err := batch.Error(); err != nil {
			return readFailed("read stream", err)
		}
		if n == 0 {
			return fmt.Errorf("store: read stream: %d messages did not come: %w", want, context.Cause(ctx))
		}
		want -= n
	}
	return nil
}

func handle(m jetstream.Msg, do func(jetstream.Msg, *jetstream.MsgMetadata) error) error {
	meta, err := m.Metadata()
	if err != nil {
		return fmt.Errorf("store: read stream: %w", err)
	}
	sum := sha256.Sum256(m.Data())
	if hex.EncodeToString(sum[:]) != m.Headers().Get(hdrSum) {
		return fmt.Errorf("store: message %d of %s: %w", meta.Sequence.Stream, m.Subject(), ErrCorrupt)
	}
	return do(m, meta)
}
