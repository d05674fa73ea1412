package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/control/logs"
	"github.com/selvage-edge/selvage/edge/telemetry"
)

// Times of a log stream.
const (
	logWrite = 15 * time.Second // for the caller to take what was written
	logAlive = 10 * time.Second // between signs of life; the token is looked at again with each
)

func (a *API) openLogs() (err error) {
	if a.member, err = a.cfg.Identity.Member(); err != nil {
		return err
	}
	a.logs, err = logs.New(logs.Config{Member: a.member, Nodes: a.logNodes})
	return err
}

// logNodes are the nodes whose log can be asked for: those membership knows.
func (a *API) logNodes() []logs.Node {
	if a.cfg.Members == nil {
		return nil
	}
	var all []logs.Node
	for _, m := range a.cfg.Members() {
		all = append(all, logs.Node{Name: m.Name, PoP: m.PoP, Peer: m.Peer, Alive: m.Alive})
	}
	return all
}

// streamLogs answers with lines of all nodes, as they come with ?follow=true.
func (a *API) streamLogs(c *call) {
	v := c.r.URL.Query()
	v.Del("project") // the path says it
	q, err := logs.ParseQuery(v)
	if err != nil {
		c.fail(invalid("%v", err))
		return
	}
	q.Project = c.project
	ctx, cancel := context.WithCancel(c.r.Context())
	var ended sync.WaitGroup
	defer ended.Wait()
	defer cancel()
	ended.Go(func() {
		select {
		case <-a.cfg.Closing:
			cancel()
		case <-ctx.Done():
		}
	})
	out := &logStream{c: c, out: http.NewResponseController(c.w), buf: bufio.NewWriterSize(c.w, 32<<10)}
	out.enc = json.NewEncoder(out.buf)
	out.enc.SetEscapeHTML(false) // a line must not grow on its way
	err = a.logs.Follow(ctx, c.token.ID, q, out.lines)
	switch {
	case errors.Is(err, logs.ErrToken):
		c.fail(problem(http.StatusTooManyRequests, "too-many-followers", "end another 'selvage logs' of this token, or use another token", "%v", err))
	case errors.Is(err, logs.ErrBusy):
		c.fail(problem(http.StatusServiceUnavailable, "busy", "end another 'selvage logs -f' and try again", "%v", err))
	}
}

// logStream writes lines to the caller.
type logStream struct {
	c    *call
	out  *http.ResponseController
	buf  *bufio.Writer
	enc  *json.Encoder
	last time.Time // when the caller was last written to; zero before the head
	seen time.Time // when the token was last looked at
}

func (s *logStream) lines(all []telemetry.Line) error {
	now := time.Now()
	if len(all) == 0 && !s.last.IsZero() && now.Sub(s.last) < logAlive {
		return nil
	}
	if s.last.IsZero() {
		h := s.c.w.Header()
		h.Set("Content-Type", "application/x-ndjson")
		h.Set("Cache-Control", "no-store")
		s.seen = now
	}
	s.last = now
	_ = s.out.SetWriteDeadline(now.Add(logWrite)) // a writer without deadlines does not block
	for i := range all {
		if err := s.enc.Encode(&all[i]); err != nil {
			return err
		}
	}
	if len(all) == 0 {
		_ = s.buf.WriteByte('\n') // Flush tells
	}
	if err := s.buf.Flush(); err != nil {
		return err
	}
	if err := s.out.Flush(); err != nil {
		return err
	}
	return s.stillAllowed(now)
}

// stillAllowed ends the stream of a token that was revoked or has expired.
func (s *logStream) stillAllowed(now time.Time) error {
	if now.Sub(s.seen) < logAlive {
		return nil
	}
	s.seen = now
	return s.c.authenticate()
}
