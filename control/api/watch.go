package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/selvage-edge/selvage/control/store"
)

// Bounds of watches.
const (
	maxWatches      = 256 // of a control node
	maxTokenWatches = 16  // of one token
	// MaxWatchValue is the largest value that a WatchEvent holds; larger ones are to be read.
	MaxWatchValue = 256 << 10
)

// watchPage bounds what is held for one watcher.
var watchPage = store.ReadOptions{Changes: 256, Bytes: 1 << 20, Inline: MaxWatchValue}

// watches counts those under way.
type watches struct {
	mu struct {
		sync.Mutex
		all int
		of  map[string]int // by token
	}
}

// begin takes a place for token, or says why there is none. Give it back with end.
func (w *watches) begin(token string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.mu.of[token] >= maxTokenWatches:
		return problem(http.StatusTooManyRequests, "too-many-watchers", "end another watch of this token, or use another token", "this token has %d watches under way, the most there may be", maxTokenWatches)
	case w.mu.all >= maxWatches:
		return problem(http.StatusServiceUnavailable, "busy", "end another watch and try again", "%d watches are under way, the most there may be", maxWatches)
	}
	if w.mu.of == nil {
		w.mu.of = map[string]int{}
	}
	w.mu.all++
	w.mu.of[token]++
	return nil
}

func (w *watches) end(token string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.all--
	if w.mu.of[token]--; w.mu.of[token] == 0 {
		delete(w.mu.of, token)
	}
}

func (w *watches) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.all
}

var watchQuery = []param{
	{"prefix", "only keys that begin with these bytes"},
	{"since", "changes after this revision, 0 for all there is; default: those that come"},
	{"epoch", "the store's epoch that since is of; default: the present one"},
	{"follow", "true: go on with what comes, until the caller leaves; otherwise it ends, with an alive line, once all there is was told"},
}

// watchKeys answers with the namespace's changes, in order; with ?follow=true as they come, until the caller leaves.
func (a *API) watchKeys(c *call) {
	w, err := a.newWatch(c)
	if err != nil {
		c.fail(err)
		return
	}
	if err := a.watches.begin(c.token.ID); err != nil {
		c.fail(err)
		return
	}
	defer a.watches.end(c.token.ID)
	sub, err := a.cfg.Store.Subscribe([]string{w.log})
	if err != nil {
		c.fail(err)
		return
	}
	defer sub.Close()
	if err := w.run(c.r.Context(), sub); err != nil {
		a.cfg.Log.Debug("a watch ended", "request", c.id, "at", w.at, "error", err)
	}
}

// watch is one watcher. It holds no more than a page: who does not take it within cfg.watchWrite is cut off.
type watch struct {
	c      *call
	log    string
	prefix string
	at     uint64 // every change up to it was sent
	told   uint64 // changes up to it are not sent: the caller has them
	why    string // why it begins with a gap; "" if it does not
	follow bool
	out    *http.ResponseController
	buf    *bufio.Writer
	enc    *json.Encoder
}

func (a *API) newWatch(c *call) (*watch, error) {
	ns, err := c.namespace()
	if err != nil {
		return nil, err
	}
	q := c.r.URL.Query()
	w := &watch{c: c, log: store.KVLog(ns), prefix: q.Get("prefix"), follow: q.Get("follow") == "true", out: http.NewResponseController(c.w), buf: bufio.NewWriterSize(c.w, 32<<10)}
	w.enc = json.NewEncoder(w.buf)
	if w.at, err = a.cfg.Store.KV().Reached(c.r.Context()); err != nil { // what was acknowledged before is not to come
		return nil, err
	}
	epoch, err := queryUint(c.r, "epoch", a.cfg.Store.Epoch())
	if err != nil {
		return nil, err
	}
	if q.Get("since") == "" {
		return w, nil
	}
	since, err := queryUint(c.r, "since", 0)
	if err != nil {
		return nil, err
	}
	return w, w.from(c.r.Context(), epoch, since)
}

// from has the watch begin after a revision that the caller knows.
func (w *watch) from(ctx context.Context, epoch, since uint64) error {
	s := w.c.a.cfg.Store
	there, err := s.Reaches(ctx, w.log, epoch, since)
	switch {
	case err != nil:
		return err
	case epoch != s.Epoch():
		w.at, w.why = 0, fmt.Sprintf("revision %d is of epoch %d, and the store is in epoch %d since it was restored", since, epoch, s.Epoch())
	case !there:
		w.at, w.why = 0, fmt.Sprintf("no write has had revision %d yet", since)
	default:
		// This process's view may be a moment behind what the caller has seen.
		w.at, w.told = min(w.at, since), since
	}
	return nil
}

func (w *watch) run(ctx context.Context, sub *store.Subscription) error {
	h := w.c.w.Header()
	h.Set("Content-Type", "application/x-ndjson")
	h.Set("Cache-Control", "no-store")
	first := WatchEvent{Type: WatchOpen, Revision: max(w.at, w.told)}
	if w.why != "" {
		first = WatchEvent{Type: WatchGap, Why: w.why}
	}
	if err := w.send(first); err != nil {
		return err
	}
	alive := time.NewTicker(w.c.a.cfg.watchAlive)
	defer alive.Stop()
	for {
		if err := w.catchUp(ctx); err != nil {
			return err
		}
		if !w.follow {
			return w.send(WatchEvent{Type: WatchAlive, Revision: max(w.at, w.told)})
		}
		select {
		case <-sub.C:
		case <-alive.C:
			if err := w.c.authenticate(); err != nil { // a token that was revoked or has expired
				return err
			}
			if err := w.send(WatchEvent{Type: WatchAlive, Revision: max(w.at, w.told)}); err != nil {
				return err
			}
		case <-w.c.a.cfg.Closing:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// catchUp sends page after page until there is nothing newer.
func (w *watch) catchUp(ctx context.Context) error {
	for {
		p, err := w.c.a.cfg.Store.Read(ctx, w.log, w.at, watchPage)
		if errors.Is(err, store.ErrGone) || errors.Is(err, store.ErrAhead) {
			w.at, w.told = 0, 0
			if err := w.send(WatchEvent{Type: WatchGap, Why: "deletions since then are no longer remembered"}); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if err := w.page(p); err != nil {
			return err
		}
		if p.To == w.at {
			return nil
		}
		w.at = p.To
	}
}

func (w *watch) page(p store.Page) error {
	for i := range p.Changes {
		ch := &p.Changes[i]
		if ch.Seq <= w.told || !strings.HasPrefix(ch.Key, w.prefix) {
			continue
		}
		if err := w.encode(eventOf(ch)); err != nil {
			return err
		}
	}
	return w.flush()
}

// eventOf is a change as watchers are told of it.
func eventOf(c *store.Change) WatchEvent {
	e := WatchEvent{Revision: c.Seq, Key: []byte(c.Key)}
	if utf8.ValidString(c.Key) {
		e.Text = c.Key
	}
	switch c.Op {
	case store.OpDelete:
		e.Type = WatchDelete
	case store.OpExpire:
		e.Type = WatchExpire
	default:
		e.Type, e.Value, e.Size, e.Metadata = WatchPut, c.Value, c.Size, c.Metadata
		if !c.Expires.IsZero() {
			e.Expires = c.Expires.UTC()
		}
	}
	return e
}

func (w *watch) send(e WatchEvent) error {
	e.Epoch, e.Time = w.c.a.cfg.Store.Epoch(), w.c.a.cfg.Now().UTC()
	if err := w.encode(e); err != nil {
		return err
	}
	return w.flush()
}

func (w *watch) encode(e WatchEvent) error {
	_ = w.out.SetWriteDeadline(time.Now().Add(w.c.a.cfg.watchWrite)) // a writer without deadlines does not block
	return w.enc.Encode(e)
}

func (w *watch) flush() error {
	_ = w.out.SetWriteDeadline(time.Now().Add(w.c.a.cfg.watchWrite))
	if err := w.buf.Flush(); err != nil {
		return err
	}
	return w.out.Flush()
}
