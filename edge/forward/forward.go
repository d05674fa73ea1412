// Package forward hands an exchange on to a node of another PoP, and its answer
// back: for a function that is placed there, or because this node has no room.
//
// It goes once from node to node, never on from there, over HTTP/2 with mTLS,
// and says where it went in CDN-Loop (RFC 8586). Another node is tried only while
// none has begun with the request; of its body 64 KiB are sent until one has.
package forward

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/selvage-edge/selvage/edge/geo"
	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
)

// Doer sends a request, whose URL has only path and query, to one node. It tells the
// request's httptrace when it has a connection, and of informational answers.
// *peer.Client is one.
type Doer interface {
	Do(r *http.Request) (*http.Response, error)
}

// Peer is a node that exchanges can go on to.
type Peer struct {
	Name string
	PoP  string
	Busy bool // it has little room: it is no place for what overflows
	Node Doer // reaches it and nobody else
}

// maxTries is how many nodes are asked to take one exchange.
const maxTries = 3

// headSlack is how much longer than the function may take another node's head is waited for.
const headSlack = 5 * time.Second

// Errors of Forward.
var (
	// ErrNowhere means that no node took the exchange: nothing of it was sent, or
	// who got it has not touched it, and nothing was answered. It can still be.
	ErrNowhere = errors.New("no node that may answer could be reached")
	// ErrBroken means that the node which had the exchange broke off.
	ErrBroken = errors.New("the node that answers broke off")
	// ErrLate means that its answer did not begin in time.
	ErrLate = errors.New("the node that answers did not begin in time")
)

// Config wires a Forwarder. Peers must be set.
type Config struct {
	PoP string // this node's, for CDN-Loop
	// Peers lists the nodes that may run what is placed so, by what is known of them,
	// the best first, without this one. It is asked often.
	Peers func(function.Placement) []Peer
	// Unsent reports whether a Doer's error means that nothing was sent. Nil: never.
	Unsent func(error) bool
	// Where says where clients are, which goes with them; nil: nobody knows.
	Where func(*Envelope) *geo.Place
	// Overflow is the share of exchanges that may go on for want of room, 0 to 1.
	Overflow float64
	Now      func() time.Time // default time.Now
}

// Forwarder hands exchanges on. Make it with New.
type Forwarder struct {
	config Config
	budget budget
	shy    shy
	stats  struct{ placed, overflowed, nowhere, broken, retried, denied atomic.Uint64 }
}

// New returns a Forwarder.
func New(c Config) (*Forwarder, error) {
	if c.Peers == nil {
		return nil, errors.New("forward: Config.Peers is not set")
	}
	if !(c.Overflow >= 0 && c.Overflow <= 1) {
		return nil, fmt.Errorf("forward: overflow %v: want 0 to 1", c.Overflow)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Unsent == nil {
		c.Unsent = func(error) bool { return false }
	}
	return &Forwarder{config: c, budget: budget{share: c.Overflow, now: c.Now}, shy: shy{now: c.Now}}, nil
}

// Stats counts since the start.
type Stats struct {
	Placed     uint64 // exchanges that another node answered because their function is placed there
	Overflowed uint64 // for want of room here
	Nowhere    uint64 // that no node took
	Broken     uint64 // whose node broke off, or was late
	Retried    uint64 // nodes that were passed over for the next
	Denied     uint64 // that could have gone on for want of room, but for the budget
}

// Stats returns them.
func (f *Forwarder) Stats() Stats {
	s := &f.stats
	return Stats{s.placed.Load(), s.overflowed.Load(), s.nowhere.Load(), s.broken.Load(), s.retried.Load(), s.denied.Load()}
}

// Seen counts an exchange, of which some may overflow.
func (f *Forwarder) Seen() { f.budget.seen.Add(1) }

// Exchange is one that goes on.
type Exchange struct {
	W http.ResponseWriter
	// R is the caller's own: after ErrNowhere its body is another, which has all of
	// what the client sends. Its body may know its trailers: interface{ Trailer() http.Header }.
	R        *http.Request
	Version  *function.Version
	Envelope Envelope
	// Trace puts the exchange's trace on what is sent, so that what the other node does is a part
	// of it; may be nil.
	Trace func(http.Header)
}

// Placed hands an exchange on to where its function is placed. It returns the name
// of the node that answered, or had begun to. An error other than ErrNowhere comes
// after the request was sent, and maybe after the answer began.
func (f *Forwarder) Placed(ctx context.Context, x Exchange) (node string, err error) {
	node, err = f.try(ctx, x, f.config.Peers(x.Version.Placement), reachPlaced)
	if err == nil {
		f.stats.placed.Add(1)
	}
	return node, err
}

// Overflow hands an exchange on for want of room, within the budget, to a node that has some.
func (f *Forwarder) Overflow(ctx context.Context, x Exchange) (node string, err error) {
	var free []Peer
	for _, p := range f.config.Peers(x.Version.Placement) {
		if !p.Busy {
			free = append(free, p)
		}
	}
	if len(free) == 0 {
		return "", ErrNowhere
	}
	if !f.budget.take() {
		f.stats.denied.Add(1)
		return "", ErrNowhere
	}
	node, err = f.try(ctx, x, free, reachOverflow)
	if err == nil {
		f.stats.overflowed.Add(1)
	}
	return node, err
}

// try offers the exchange to one node after the other. Connections may take the time
// reach in all: half of what is left for each but the last.
func (f *Forwarder) try(ctx context.Context, x Exchange, peers []Peer, reach time.Duration) (node string, err error) {
	if f.config.Where != nil {
		x.Envelope.Place = f.config.Where(&x.Envelope)
	}
	body := bodyOf(x.R)
	peers = f.shy.from(peers)
	for i, p := range peers {
		if i > 0 {
			f.stats.retried.Add(1)
		}
		if i < len(peers)-1 {
			reach /= 2
		}
		resp, err := f.send(ctx, x, p, body, reach)
		if err == nil {
			f.shy.reached(p.Name)
			if err = answer(ctx, x, resp); err != nil {
				f.stats.broken.Add(1)
			}
			return p.Name, err
		}
		if err = f.next(ctx, p, body, err); err != nil {
			return p.Name, err
		}
	}
	f.stats.nowhere.Add(1)
	if body.touched() {
		again, err := body.offer(nil)
		if err != nil {
			return "", fmt.Errorf("%w, and part of the request's body is gone: %w", ErrBroken, err)
		}
		body.take()
		x.R.Body = again
	}
	return "", ErrNowhere
}

// next returns why no other node may be offered what p did not take.
func (f *Forwarder) next(ctx context.Context, p Peer, b *body, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return fault.New(fault.Canceled, "", err)
	case errors.Is(err, errUnreached):
		f.shy.missed(p.Name)
	case !errors.Is(err, errRefused):
		f.stats.broken.Add(1)
		return err
	}
	if b.lost() {
		f.stats.nowhere.Add(1)
		return fmt.Errorf("%w, and part of the request's body is gone: %w", ErrBroken, err)
	}
	return nil
}
