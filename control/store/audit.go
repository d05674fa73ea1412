package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// hdrChain holds the digest of an audit entry and of all before it.
const hdrChain = "Selvage-Chain"

// ErrChain says that the audit trail is not what was written.
var ErrChain = errors.New("store: the audit trail was changed")

// audit is an append-only stream; each entry carries the digest of the chain up to it.
type audit struct {
	stream jetstream.Stream
	mu     struct {
		sync.Mutex
		seq   uint64
		chain [32]byte
	}
}

// AuditEntry is one entry of the trail.
type AuditEntry struct {
	Seq   uint64
	Time  time.Time
	Value []byte
}

func (s *Store) openAudit(ctx context.Context, cfg jetstream.StreamConfig) (*audit, error) {
	stream, err := s.js.CreateOrUpdateStream(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("store: open the audit trail: %w", err)
	}
	a := &audit{stream: stream}
	return a, a.reload(ctx)
}

// reload takes the chain's end from the stream.
func (a *audit) reload(ctx context.Context) error {
	info, err := a.stream.Info(ctx)
	if err != nil {
		return readFailed("open the audit trail", err)
	}
	a.mu.seq, a.mu.chain = info.State.LastSeq, [32]byte{}
	if info.State.LastSeq == 0 {
		return nil
	}
	msg, err := a.stream.GetMsg(ctx, info.State.LastSeq)
	if err != nil {
		return readFailed("open the audit trail", err)
	}
	chain, err := hex.DecodeString(msg.Header.Get(hdrChain))
	if err != nil || len(chain) != len(a.mu.chain) {
		return fmt.Errorf("%w: entry %d has no chain", ErrChain, info.State.LastSeq)
	}
	copy(a.mu.chain[:], chain)
	return nil
}

func link(chain [32]byte, value []byte) [32]byte {
	h := sha256.New()
	h.Write(chain[:])
	h.Write(value)
	return [32]byte(h.Sum(nil))
}

// fleetTrail is the subject of what belongs to no project; no project has that name.
const fleetTrail = "audit._"

func auditSubject(project string) (string, error) {
	if project == "" {
		return fleetTrail, nil
	}
	return "audit." + project, checkName(project)
}

// Audit appends an entry about project ("" for what belongs to the fleet) and
// returns once it is durable. It may use half of what is kept free: what other
// writes are refused for can still be recorded.
func (s *Store) Audit(ctx context.Context, project string, value []byte) error {
	subj, err := auditSubject(project)
	if err != nil {
		return err
	}
	if err := s.disk.roomForAudit(int64(len(value))); err != nil {
		return err
	}
	a := s.audit
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := s.appendAudit(ctx, subj, value); err == nil {
		return nil
	}
	// Another control node appended, or an earlier append's fate is unknown: look and try once more.
	if err := a.reload(ctx); err != nil {
		return err
	}
	return s.appendAudit(ctx, subj, value)
}

// appendAudit adds one entry; the audit's lock is held.
func (s *Store) appendAudit(ctx context.Context, subj string, value []byte) error {
	a := s.audit
	chain := link(a.mu.chain, value)
	msg := message(subj, value)
	msg.Header.Set(hdrChain, hex.EncodeToString(chain[:]))
	ack, err := s.js.PublishMsg(ctx, msg, jetstream.WithExpectLastSequence(a.mu.seq))
	if err != nil {
		return publishFailed("audit", err)
	}
	a.mu.seq, a.mu.chain = ack.Sequence, chain
	return nil
}

// AuditTrail returns up to limit entries after a sequence, of project or, if it is "", of all.
func (s *Store) AuditTrail(ctx context.Context, project string, after uint64, limit int) ([]AuditEntry, error) {
	subj, err := auditSubject(project)
	if err != nil {
		return nil, err
	}
	if project == "" {
		subj = "audit.>"
	}
	if limit <= 0 {
		return nil, fmt.Errorf("store: audit trail of %d entries: want 1 or more: %w", limit, hostcall.ErrInvalid)
	}
	var out []AuditEntry
	err = s.each(ctx, s.audit.stream, subj, after+1, limit, func(m jetstream.Msg, meta *jetstream.MsgMetadata) error {
		out = append(out, AuditEntry{Seq: meta.Sequence.Stream, Time: meta.Timestamp, Value: m.Data()})
		return nil
	})
	return out, err
}

// VerifyAudit walks the whole trail; ErrChain names the first entry that does not follow from those before it.
func (s *Store) VerifyAudit(ctx context.Context) (entries uint64, err error) {
	var chain [32]byte
	err = s.each(ctx, s.audit.stream, "audit.>", 1, int(^uint(0)>>1), func(m jetstream.Msg, meta *jetstream.MsgMetadata) error {
		chain = link(chain, m.Data())
		entries++
		if m.Headers().Get(hdrChain) != hex.EncodeToString(chain[:]) || meta.Sequence.Stream != entries {
			return fmt.Errorf("%w: entry %d", ErrChain, meta.Sequence.Stream)
		}
		return nil
	})
	return entries, err
}

func isNotFound(err error) bool { return errors.Is(err, hostcall.ErrNotFound) }
