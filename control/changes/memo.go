package changes

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/control/store"
)

// memo keeps the batches made last: followers of one log stand at the same few
// positions, and each batch is read and signed once for all of them. A batch
// stays true: what was complete from one sequence to another is so for ever.
type memo struct {
	mu struct {
		sync.Mutex
		entries map[memoKey]*entry
		order   []memoKey // oldest first
		bytes   int
	}
}

type memoKey struct {
	log   string
	epoch uint64
	from  uint64
	mark  bool // wanted also if it is empty
	plain bool // for who reads no pages
}

// entry is one sealed batch; to == from for a watermark, or if there was nothing.
type entry struct {
	once   sync.Once
	made   time.Time
	to     uint64
	ends   bool // see Batch.Ends
	sealed []byte
	err    error
	weight int // what it counts in the memo's bytes; the memo's lock guards it
}

const (
	memoEntries = 4096
	memoBytes   = 32 << 20
)

func newMemo() *memo {
	m := &memo{}
	m.mu.entries = make(map[memoKey]*entry)
	return m
}

// entry returns the key's entry, new or as it is; one older than maxAge is made anew.
func (m *memo) entry(k memoKey, now time.Time, maxAge time.Duration) *entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.mu.entries[k]; e != nil && now.Sub(e.made) < maxAge {
		return e
	}
	m.dropLocked(k)
	e := &entry{made: now}
	m.mu.entries[k] = e
	m.mu.order = append(m.mu.order, k)
	for len(m.mu.order) > memoEntries || m.mu.bytes > memoBytes && len(m.mu.order) > 1 {
		oldest := m.mu.order[0]
		m.mu.order = m.mu.order[1:]
		m.dropLocked(oldest)
	}
	return e
}

// weigh counts a finished entry that is still held.
func (m *memo) weigh(k memoKey, e *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.entries[k] == e {
		e.weight = len(e.sealed)
		m.mu.bytes += e.weight
	}
}

// forget drops an entry that holds nothing.
func (m *memo) forget(k memoKey, e *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.entries[k] == e {
		delete(m.mu.entries, k)
	}
}

func (m *memo) dropLocked(k memoKey) {
	if e := m.mu.entries[k]; e != nil {
		m.mu.bytes -= e.weight
		delete(m.mu.entries, k)
	}
}

// next returns the batch that continues log from a sequence. Its to is from when
// there is none yet; with mark it is then the signed statement of that, made not long ago.
func (s *Server) next(ctx context.Context, k memoKey) (*entry, error) {
	maxAge := time.Duration(math.MaxInt64)
	if k.mark {
		maxAge = s.cfg.Watermark / 2
	}
	for {
		e := s.memo.entry(k, s.cfg.Now(), maxAge)
		mine := false
		e.once.Do(func() {
			mine = true
			s.make(ctx, k, e)
		})
		// Someone else's "nothing" may be older than the change that woke this caller.
		if mine || k.mark || e.err != nil || e.to != k.from {
			return e, e.err
		}
	}
}

// make reads, signs and remembers one batch.
func (s *Server) make(ctx context.Context, k memoKey, e *entry) {
	// Others wait for this: it must not end because one follower leaves.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.WriteLimit)
	defer cancel()
	if e.err = s.fill(ctx, k, e); e.err != nil || e.to == k.from && !k.mark {
		s.memo.forget(k, e)
		return
	}
	s.memo.weigh(k, e)
}

func (s *Server) fill(ctx context.Context, k memoKey, e *entry) error {
	// The time is taken before the read: what is written meanwhile may be missing.
	b := &Batch{Log: k.log, Epoch: k.epoch, From: k.from, At: s.cfg.Now()}
	p, err := s.read(ctx, k)
	if err != nil {
		return err
	}
	if e.to = p.To; e.to == k.from && !k.mark {
		return nil
	}
	if b.To = p.To; p.More > 0 {
		b.At, b.Head = time.Time{}, p.More
	}
	for _, c := range p.Changes {
		b.Changes = append(b.Changes, Change{Seq: c.Seq, Key: c.Key, Op: Op(c.Op), Expires: c.Expires, Size: c.Size, Sum: c.Sum, Metadata: c.Metadata, Value: c.Value})
	}
	e.ends = b.Ends()
	payload, err := b.Encode()
	if err != nil {
		return err
	}
	if e.sealed, err = s.cfg.Seal(payload); err != nil {
		return fmt.Errorf("changes: sign a batch of %s: %w", b.Log, err)
	}
	return nil
}

// errPage is that who reads no pages is too far behind: what it is sent it takes for everything up to then.
var errPage = errors.New("changes: it has more to catch up with than a node of this version can be sent: upgrade the node")

// read reads what continues a log. Of the catalog who reads no pages is sent them as if they were none, as it
// always was: nothing of it rests on when a batch was everything.
func (s *Server) read(ctx context.Context, k memoKey) (p store.Page, err error) {
	for range 3 { // a page also comes of what is replaced while it is read
		p, err = s.cfg.Source.Read(ctx, k.log, k.from, store.ReadOptions{
			Changes: s.cfg.Changes, Bytes: MaxBatchBytes / 2, Inline: MaxInline,
		})
		if err != nil || !k.plain || p.More == 0 {
			return p, err
		}
		if k.log == store.CatalogLog && len(p.Changes) > 0 {
			p.More = 0
			return p, nil
		}
	}
	return p, errPage
}
