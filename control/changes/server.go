package changes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/selvage-edge/selvage/control/store"
)

// Source is the store behind a Server.
type Source interface {
	Epoch() uint64
	Read(ctx context.Context, log string, after uint64, o store.ReadOptions) (store.Page, error)
	Head(log string) (uint64, error)
	Subscribe(logs []string) (*store.Subscription, error)
	Reaches(ctx context.Context, log string, epoch, seq uint64) (bool, error)
	Contradicts(ctx context.Context, log string, c store.Change) (bool, error)
}

var _ Source = (*store.Store)(nil)

// ServerConfig says what a Server serves and to whom.
type ServerConfig struct {
	Source Source                                      // required
	Seal   func(payload []byte) ([]byte, error)        // signs a batch; see SealWith; required
	Allow  func(ctx context.Context, log string) error // may the request's peer follow log; nil allows all
	// Verify opens a batch that a follower shows, and Ahead is told of one that ends above
	// the log's head, or holds a change that this store cannot have made: its disk went
	// back in time. See VerifyWith; may both be nil.
	Verify func(sealed []byte) (payload []byte, err error)
	Ahead  func(ctx context.Context, log string, p Position)

	Changes    int              // of one batch at most; default MaxBatchChanges
	Heartbeat  time.Duration    // between signs of life on a quiet stream; default 5 s
	Watermark  time.Duration    // between signed statements for a log that does not change; default 10 s
	WriteLimit time.Duration    // a follower that takes longer to take one frame is cut off; default 10 s
	Now        func() time.Time // default time.Now
}

// Server serves change streams at Path. It keeps nothing per follower but the
// positions: a slow one costs no memory and is cut off.
type Server struct {
	cfg     ServerConfig
	memo    *memo
	streams atomic.Int64
	cut     atomic.Int64
}

// Stats are a Server's counters.
type Stats struct {
	Streams int64 // open now
	CutOff  int64 // ended because the follower did not keep up
}

// NewServer returns a Server; it is an http.Handler for Path.
func NewServer(cfg ServerConfig) *Server {
	if cfg.Changes <= 0 || cfg.Changes > MaxBatchChanges {
		cfg.Changes = MaxBatchChanges
	}
	setDefault(&cfg.Heartbeat, 5*time.Second)
	setDefault(&cfg.Watermark, 10*time.Second)
	setDefault(&cfg.WriteLimit, 10*time.Second)
	if cfg.Allow == nil {
		cfg.Allow = func(context.Context, string) error { return nil }
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Server{cfg: cfg, memo: newMemo()}
}

// Stats returns the counters.
func (s *Server) Stats() Stats { return Stats{s.streams.Load(), s.cut.Load()} }

const maxRequestBytes = MaxLogs * 512

// ServeHTTP answers one follower until it leaves, falls behind, or the epoch changes.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var req Request
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequestBytes)).Decode(&req)
	if err == nil {
		err = req.Validate()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", "no-store")
	s.streams.Add(1)
	defer s.streams.Add(-1)
	st := &stream{s: s, framer: newFramer(w, s.cfg.WriteLimit), epoch: s.cfg.Source.Epoch(), plain: req.plain(), at: map[string]*cursor{}, late: map[string]*cursor{}}
	if err := st.run(r.Context(), req); errors.Is(err, errSlow) {
		s.cut.Add(1)
	}
}

// stream is one follower's.
type stream struct {
	*framer
	s     *Server
	epoch uint64
	plain bool // the follower reads no pages
	at    map[string]*cursor
	late  map[string]*cursor // those of at of which there may be more to send
}

// cursor is how far a log was sent.
type cursor struct {
	seq   uint64
	tail  bool
	none  bool // there is no position to continue
	opens bool // the follower has not been told yet that there is no more
}

var (
	errSlow  = errors.New("changes: the follower does not keep up")
	errEpoch = errors.New("changes: the store has a new epoch")
	errEmpty = errors.New("changes: nothing to follow")
)

func (st *stream) run(ctx context.Context, req Request) error {
	logs, err := st.admit(ctx, req)
	if err != nil {
		return err
	}
	// Watch before reading, so that no change falls between.
	sub, err := st.s.cfg.Source.Subscribe(logs)
	if err != nil {
		return err
	}
	defer sub.Close()
	for _, log := range logs {
		if err := st.begin(ctx, log); err != nil {
			return err
		}
	}
	return st.follow(ctx, sub)
}

// ready is always so.
var ready = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// follow sends what changes until the stream ends: of each log that is behind a batch in
// turn, so that none waits for another that has far to go.
func (st *stream) follow(ctx context.Context, sub *store.Subscription) error {
	beat := time.NewTicker(st.s.cfg.Heartbeat)
	defer beat.Stop()
	mark := time.NewTicker(st.s.cfg.Watermark)
	defer mark.Stop()
	for {
		if err := st.flush(); err != nil {
			return err
		}
		var err error
		var more <-chan struct{}
		if len(st.late) > 0 {
			more = ready
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-sub.C:
			for _, log := range sub.Take() {
				if c := st.at[log]; c != nil { // else it was refused
					st.late[log] = c
				}
			}
		case <-more:
			err = st.catchUp(ctx)
		case <-beat.C:
			err = st.write(frameHeartbeat, nil)
		case <-mark.C:
			err = st.watermarks(ctx)
		}
		if err != nil {
			return err
		}
		if st.s.cfg.Source.Epoch() != st.epoch {
			return errEpoch
		}
	}
}

// admit sorts out which logs the follower may have, and where each begins.
func (st *stream) admit(ctx context.Context, req Request) (logs []string, err error) {
	for _, w := range req.Logs {
		err := st.s.cfg.Allow(ctx, w.Log)
		if err == nil {
			_, err = st.s.cfg.Source.Head(w.Log)
		}
		if err != nil {
			if err := st.notify(notice{Log: w.Log, Code: noticeRefused, Detail: err.Error()}); err != nil {
				return nil, err
			}
			continue
		}
		st.examine(ctx, w)
		c := &cursor{seq: w.Seq, tail: w.Tail, none: w.Position == Position{}}
		if w.Epoch > st.epoch {
			if err := st.below(w.Log); err != nil {
				return nil, err
			}
			continue
		}
		if !c.none && w.Epoch != st.epoch {
			if err := st.restart(w.Log, c); err != nil {
				return nil, err
			}
		}
		st.at[w.Log] = c
		logs = append(logs, w.Log)
	}
	if len(logs) == 0 {
		return nil, errors.Join(st.flush(), errEmpty)
	}
	return logs, nil
}

// examine looks at what a follower shows to prove that the log was longer once. Only
// what a changes key of the fleet signed counts: nobody else may stop a control node.
func (st *stream) examine(ctx context.Context, w Want) {
	if len(w.Proof) == 0 || st.s.cfg.Verify == nil || st.s.cfg.Ahead == nil {
		return
	}
	payload, err := st.s.cfg.Verify(w.Proof)
	if err != nil {
		return
	}
	b, err := DecodeBatch(payload)
	if err != nil || b.Log != w.Log {
		return
	}
	reached, err := st.s.cfg.Source.Reaches(ctx, w.Log, b.Epoch, b.To)
	switch {
	case err != nil:
	case !reached:
		st.s.cfg.Ahead(ctx, w.Log, Position{b.Epoch, b.To})
	case b.Epoch == st.epoch:
		st.compare(ctx, b)
	}
}

// compared is how many changes of a batch that is shown are looked up.
const compared = 4

// compare looks whether the store made the changes of b: one that went back in time
// and was written to since has others under their numbers.
func (st *stream) compare(ctx context.Context, b *Batch) {
	for _, c := range b.Changes[max(0, len(b.Changes)-compared):] {
		other, err := st.s.cfg.Source.Contradicts(ctx, b.Log, store.Change{Seq: c.Seq, Key: c.Key, Op: store.Op(c.Op), Size: c.Size, Sum: c.Sum})
		if err == nil && other {
			st.s.cfg.Ahead(ctx, b.Log, Position{b.Epoch, c.Seq})
			return
		}
	}
}

// below tells the follower that it is ahead of the log, and by what.
func (st *stream) below(log string) error {
	head, err := st.s.cfg.Source.Head(log)
	if err != nil {
		return err
	}
	return st.notify(notice{Log: log, Code: noticeRefused, Epoch: st.epoch, Seq: head, Detail: store.ErrAhead.Error()})
}

// restart tells the follower to begin log again.
func (st *stream) restart(log string, c *cursor) error {
	c.seq, c.none = 0, true
	return st.notify(notice{Log: log, Code: noticeResync, Epoch: st.epoch})
}

// begin sends the first batch of a log, be it empty: the follower then knows
// that it has everything up to there.
func (st *stream) begin(ctx context.Context, log string) error {
	c := st.at[log]
	if c.tail && c.none {
		head, err := st.s.cfg.Source.Head(log)
		if err != nil {
			return err
		}
		c.seq = head
	}
	c.opens = true
	err := st.advance(ctx, log, true)
	st.late[log] = c
	switch {
	case errors.Is(err, errPage) && c.none:
		st.drop(log)
		return st.notify(notice{Log: log, Code: noticeRefused, Detail: err.Error()})
	case errors.Is(err, store.ErrGone), errors.Is(err, errPage):
		if err := st.restart(log, c); err != nil {
			return err
		}
		return st.begin(ctx, log)
	case errors.Is(err, store.ErrAhead):
		st.drop(log)
		return st.below(log)
	}
	return err
}

// drop sends no more of log.
func (st *stream) drop(log string) {
	delete(st.at, log)
	delete(st.late, log)
}

// catchUp sends the next batch of each log that is behind. Who opened a stream is told once that
// it has everything.
func (st *stream) catchUp(ctx context.Context) error {
	for log, c := range st.late {
		before := c.seq
		if err := st.advance(ctx, log, false); err != nil {
			return err
		}
		if c.seq != before {
			continue
		}
		delete(st.late, log)
		if !c.opens {
			continue
		}
		if err := st.advance(ctx, log, true); err != nil {
			return err
		}
		if c.opens { // it has changed meanwhile
			st.late[log] = c
		}
	}
	return nil
}

// advance sends the next batch of log; with mark, also an empty one.
func (st *stream) advance(ctx context.Context, log string, mark bool) error {
	c := st.at[log]
	e, err := st.s.next(ctx, memoKey{log, st.epoch, c.seq, mark, st.plain})
	if err != nil || len(e.sealed) == 0 {
		return err
	}
	c.seq, c.opens = e.to, c.opens && !e.ends
	return st.write(frameBatch, e.sealed)
}

// watermarks says of every log how far it is complete, and ends those that the
// follower may no longer have.
func (st *stream) watermarks(ctx context.Context) error {
	for log := range st.at {
		err := st.s.cfg.Allow(ctx, log)
		if err != nil {
			st.drop(log)
			err = st.notify(notice{Log: log, Code: noticeRefused, Detail: err.Error()})
		} else {
			err = st.advance(ctx, log, true)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (st *stream) notify(n notice) error {
	b, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("changes: notice: %w", err)
	}
	return st.write(frameNotice, b)
}
