package logs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/peer"
	"github.com/selvage-edge/selvage/edge/telemetry"
)

// reader reads one node's log for one following.
type reader struct {
	node Node
	q    Query
	last time.Time // of the newest line, when the reader before it ended
	done chan struct{}

	told, ended bool      // the following's own: the past was told; it has ended
	silent      bool      // as well: it was said that it is not heard
	newest      time.Time // the following reads it when the reader has ended
}

// startReader begins to read n's log. After one that ended it asks for what came since.
func startReader(ctx context.Context, f *following, n Node, had *reader) *reader {
	r := &reader{node: n, q: f.q, done: make(chan struct{})}
	r.q.PoP = ""
	if had != nil {
		r.told, r.silent = true, had.silent
		r.q.Tail = MaxTail
		if r.last = had.newest; !r.last.IsZero() {
			r.q.Since = max(time.Millisecond, time.Since(r.last)+time.Second)
		}
	}
	r.newest = r.last
	go func() {
		defer close(r.done)
		err := r.read(ctx, f)
		select {
		case f.news <- arrival{from: r, end: true, err: err}:
		case <-ctx.Done():
		}
	}()
	return r
}

func (r *reader) read(ctx context.Context, f *following) error {
	c, err := peer.NewClient(peer.ClientConfig{Member: f.hub.cfg.Member, Addresses: []string{r.node.Peer},
		Expect: identity.Expect{Kind: identity.KindNode, Name: r.node.Name}, HeaderTimeout: 5 * time.Second})
	if err != nil {
		return err
	}
	defer c.Close()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, Path+"?"+r.q.Values().Encode(), nil)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return errors.New("it cannot be reached") // the why is the transport's, and long
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %d", resp.StatusCode)
	}
	return r.lines(ctx, f, resp.Body)
}

// lines hands on what a node sends. Its word is its own: whose lines they are, and
// where they come from, is not for it to say about others.
func (r *reader) lines(ctx context.Context, f *following, body io.Reader) error {
	in := bufio.NewScanner(body)
	in.Buffer(make([]byte, 0, 4<<10), telemetry.MaxLineBytes) // small: each follower has one for each node
	for in.Scan() {
		if len(bytes.TrimSpace(in.Bytes())) == 0 {
			continue
		}
		l, err := telemetry.ParseLine(in.Bytes())
		if err != nil {
			return err
		}
		if !r.allowed(&l) {
			continue
		}
		select {
		case f.news <- arrival{from: r, line: l}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := in.Err(); errors.Is(err, bufio.ErrTooLong) {
		return fmt.Errorf("it sent a line of more than %d bytes", telemetry.MaxLineBytes)
	} else if err != nil && ctx.Err() == nil {
		return errors.New("its stream broke off")
	}
	return nil
}

// allowed marks the line as this node's, and refuses what was not asked for.
func (r *reader) allowed(l *telemetry.Line) bool {
	l.Node, l.PoP = r.node.Name, r.node.PoP
	if l.Kind == telemetry.KindLive {
		return true
	}
	if r.q.Project != "" && l.Project != r.q.Project || r.q.Function != "" && l.Function != r.q.Function {
		return false
	}
	if l.Kind == telemetry.KindDropped {
		return true
	}
	if l.Kind != telemetry.KindAccess && l.Kind != telemetry.KindFunction || !l.Time.After(r.last) {
		return false
	}
	if l.Time.After(r.newest) {
		r.newest = l.Time
	}
	return true
}
