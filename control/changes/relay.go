package changes

import (
	"container/list"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// RelayConfig says what a Relay serves and to whom.
type RelayConfig struct {
	// Allow reports why the request's peer may not have log; it is asked again while
	// a stream lasts. Required: it holds who may have what, by what control signed.
	Allow func(ctx context.Context, log string) error
	// Serves reports why this node does not serve log now; see Follower.Leads. Required.
	Serves func(log string) error

	Streams       int           // at once; default 128: more get 503
	WindowBatches int           // kept of one log; default 512
	WindowBytes   int           // kept of one log, and one batch at least; default 1 MiB
	Bytes         int           // kept of all logs; default 32 MiB
	Beat          time.Duration // between signs of life, and looks at Allow and Serves; default 1 s
	WriteLimit    time.Duration // a follower that takes longer to take one frame is cut off; default 10 s
}

// Relay passes on, at Path, what this node followed: the very bytes that control
// signed, for neighbours to verify themselves. It holds a recent window of each log and
// says "below" where it does not reach: the follower then asks control. All methods may be
// called on a nil Relay, which keeps nothing.
type Relay struct {
	cfg     RelayConfig
	streams atomic.Int64
	cut     atomic.Int64
	sent    atomic.Int64
	mu      struct {
		sync.Mutex
		logs  map[string]*window
		order *list.List // of *held, of all logs; the oldest first
		bytes int
	}
}

// NewRelay returns a Relay; it is an http.Handler for Path.
func NewRelay(cfg RelayConfig) *Relay {
	def := func(n *int, d int) {
		if *n <= 0 {
			*n = d
		}
	}
	def(&cfg.Streams, 128)
	def(&cfg.WindowBatches, 512)
	def(&cfg.WindowBytes, 1<<20)
	def(&cfg.Bytes, 32<<20)
	setDefault(&cfg.Beat, time.Second)
	setDefault(&cfg.WriteLimit, 10*time.Second)
	r := &Relay{cfg: cfg}
	r.mu.logs, r.mu.order = map[string]*window{}, list.New()
	return r
}

// RelayStats are a Relay's counters.
type RelayStats struct {
	Streams int64 // open now
	CutOff  int64 // ended because the follower did not keep up
	Sent    int64 // batches
	Bytes   int   // held now
}

// Stats returns them.
func (r *Relay) Stats() RelayStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return RelayStats{r.streams.Load(), r.cut.Load(), r.sent.Load(), r.mu.bytes}
}

// ServeHTTP answers one neighbour until it leaves or falls behind.
func (r *Relay) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	var req Request
	err := json.NewDecoder(http.MaxBytesReader(w, q.Body, maxRequestBytes)).Decode(&req)
	if err == nil {
		err = req.Validate()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	defer r.streams.Add(-1)
	if r.streams.Add(1) > int64(r.cfg.Streams) {
		http.Error(w, "this node serves as many streams as it may: ask control", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", "no-store")
	st := &relayed{r: r, out: newFramer(w, r.cfg.WriteLimit), at: map[string]*place{}, c: make(chan struct{}, 1)}
	st.dirty.logs = map[string]bool{}
	if err := st.run(q.Context(), req); errors.Is(err, errSlow) {
		r.cut.Add(1)
	}
}

// relayed is one neighbour's stream.
type relayed struct {
	r     *Relay
	out   *framer
	at    map[string]*place
	c     chan struct{} // holds a token when dirty has something
	dirty struct {
		sync.Mutex
		logs map[string]bool
	}
}

// mark notes that there may be more of log; it never blocks.
func (st *relayed) mark(log string) {
	st.dirty.Lock()
	st.dirty.logs[log] = true
	st.dirty.Unlock()
	select {
	case st.c <- struct{}{}:
	default:
	}
}

func (st *relayed) take() (logs []string) {
	st.dirty.Lock()
	defer st.dirty.Unlock()
	for log := range st.dirty.logs {
		logs = append(logs, log)
	}
	clear(st.dirty.logs)
	return logs
}

func (st *relayed) run(ctx context.Context, req Request) error {
	defer st.leave()
	for _, w := range req.Logs {
		st.at[w.Log] = &place{Position: w.Position, none: w.Position == Position{}, tail: w.Tail, plain: req.plain()}
		st.join(w.Log)
		st.mark(w.Log)
	}
	if err := st.review(ctx); err != nil {
		return err
	}
	beat := time.NewTicker(st.r.cfg.Beat)
	defer beat.Stop()
	// The first beat says that the stream stands: there may be nothing to send for long.
	err := st.out.write(frameHeartbeat, nil)
	for err == nil && len(st.at) > 0 {
		if err = st.out.flush(); err != nil {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-st.c:
			for _, log := range st.take() {
				if err == nil {
					err = st.catchUp(log)
				}
			}
		case <-beat.C:
			if err = st.review(ctx); err == nil {
				err = st.out.write(frameHeartbeat, nil)
			}
		}
	}
	return errors.Join(err, st.out.flush())
}

func (st *relayed) join(log string) {
	st.r.mu.Lock()
	defer st.r.mu.Unlock()
	st.r.window(log).streams[st] = struct{}{}
}

func (st *relayed) leave() {
	st.r.mu.Lock()
	defer st.r.mu.Unlock()
	for log := range st.at {
		st.part(log)
	}
}

// part is called with the relay's lock.
func (st *relayed) part(log string) {
	if w := st.r.mu.logs[log]; w != nil {
		delete(w.streams, st)
		st.r.release(w)
	}
}

// review ends the logs that the neighbour may not have, or not from here.
func (st *relayed) review(ctx context.Context) error {
	for log := range st.at {
		err := st.r.cfg.Allow(ctx, log)
		if err == nil {
			err = st.r.cfg.Serves(log)
		}
		if err != nil {
			if err := st.end(log, noticeRefused, err.Error()); err != nil {
				return err
			}
		}
	}
	return nil
}

// end drops a log from the stream and says why.
func (st *relayed) end(log, code, why string) error {
	delete(st.at, log)
	st.r.mu.Lock()
	st.part(log)
	st.r.mu.Unlock()
	b, err := json.Marshal(notice{Log: log, Code: code, Detail: why})
	if err != nil {
		return fmt.Errorf("changes: notice: %w", err)
	}
	return st.out.write(frameNotice, b)
}

// relayStep bounds what is taken from a window at once, beside one batch.
const relayStep = 256 << 10

// catchUp sends what there is of log.
func (st *relayed) catchUp(log string) error {
	for {
		p := st.at[log]
		if p == nil {
			return nil
		}
		epoch, next, ok := st.next(log, p)
		if !ok {
			return st.end(log, noticeBelow, "it is not in the window that this node keeps")
		}
		if len(next) == 0 {
			return nil
		}
		for _, h := range next {
			if err := st.out.write(frameBatch, h.sealed); err != nil {
				return err
			}
			st.r.sent.Add(1)
			p.advance(epoch, h)
		}
	}
}

func (st *relayed) next(log string, p *place) (epoch uint64, next []*held, ok bool) {
	st.r.mu.Lock()
	defer st.r.mu.Unlock()
	w := st.r.mu.logs[log]
	if w == nil {
		return 0, nil, true
	}
	next, ok = w.after(p, relayStep)
	return w.epoch, next, ok
}
