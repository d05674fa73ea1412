package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/selvage-edge/selvage/control/changes"
	"github.com/selvage-edge/selvage/edge/replica"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// A namespace that is to have a copy here, and has none, gets it from a neighbour that has one, so that
// control need not send the whole log to each node of a PoP. Nothing of that neighbour is believed: control says, signed, how
// many keys the namespace had at the copy's position, and their digest, and only a copy that is that is kept. The log is
// then followed from there. Meanwhile, the namespace is followed and read as a cached one. Where no neighbour has a copy, or
// none is true, or control does not say, the log is followed from its beginning.

// asking is how far a namespace is with that.
type asking uint8

const (
	unasked asking = iota
	asked          // of neighbours, now
	answered
)

const (
	maxLenders   = 3                // neighbours, of one namespace
	maxBorrowed  = 2                // copies that come at once
	copyQuiet    = 10 * time.Second // without a page, until a neighbour is given up
	slowest      = 1 << 20          // bytes a second of a copy: whoever sends it more slowly has copyQuiet in all
	hearsay      = 3 * time.Second  // from the start, until others are heard of; and for one of them to hear of a namespace
	leaderFor    = 2 * time.Minute  // how long it is waited for who follows the log for the PoP, and is at its beginning
	askAgain     = time.Second
	timesUnheld  = 3 // how often control may not know of a position that is too old by then
	maxHeldBytes = 4 << 10
)

// errCopy is that a neighbour's copy is not what control says that the namespace held.
var errCopy = errors.New("agent: its copy is not what control says the namespace held")

var errUnheld = errors.New("control does not know what the namespace held at that position")

// lender is from whom copies may be had, and what they are checked against.
type lender struct {
	pop     *pop // nil: nobody
	control Doer
	trust   changes.Verifier
	born    time.Time
	wake    chan struct{} // holds a token when there is somebody in the queue
	places  chan struct{}
	had     atomic.Int64 // copies that were kept
	given   atomic.Int64 // and that neighbours were sent
	untrue  atomic.Int64 // that were not what control says
}

func newLender(p *pop, control Doer, trust changes.Verifier) lender {
	return lender{pop: p, control: control, trust: trust, born: time.Now(), wake: make(chan struct{}, 1), places: make(chan struct{}, maxBorrowed)}
}

// asks reports whether neighbours are asked for the namespace's copy: then it is not to begin. s.mu is held.
func (s *spaces) asks(b *bound) bool {
	switch {
	case b.asking == asked:
		return true
	case b.asking == answered || s.pop == nil || !b.replicated || b.copy != nil || b.lacks > 0 || s.mu.db == nil:
		return false
	case s.mu.db.Copy(b.ns).Position() != replica.Position{}:
		return false
	}
	b.asking = asked
	s.mu.queue = append(s.mu.queue, b)
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return true
}

// borrow asks for what asks queued, until ctx ends.
func (s *spaces) borrow(ctx context.Context) {
	var under sync.WaitGroup
	defer under.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		s.mu.Lock()
		queue := s.mu.queue
		s.mu.queue = nil
		s.mu.Unlock()
		for _, b := range queue {
			under.Go(func() { s.settle(b, s.seek(ctx, b.ns)) })
		}
	}
}

// sought is what became of asking.
type sought struct {
	load *replica.Load // nil: nothing
	from string
	err  error // nil also where nobody had anything
}

// settle gives the namespace the copy that came, or has it follow the log from its beginning.
func (s *spaces) settle(b *bound, got sought) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b.asking = answered
	wanted := s.mu.byLog[b.log] == b && b.replicated && b.copy == nil && s.mu.db != nil
	if !wanted {
		b.asking = unasked
	}
	if got.load != nil {
		if wanted {
			got.err = got.load.Keep()
		}
		if !wanted || got.err != nil {
			got.err = errors.Join(got.err, got.load.Drop())
		} else {
			keys, _ := got.load.Tally()
			s.had.Add(1)
			s.tell(b, fmt.Sprintf("has the %d keys of neighbour %s, which are what control says", keys, got.from), nil)
		}
	}
	if got.err != nil && wanted {
		s.tell(b, "was not to be had from a neighbour: its log is followed from the beginning", got.err)
	}
	if wanted && s.fit(b) {
		var anew follows
		anew.add(b)
		anew.apply(s.follower)
	}
}

// seek asks the neighbours that may have a copy. The one that follows the log for the PoP is waited
// for while it is at that; two never wait for each other, since one of them is to follow it for the other.
func (s *spaces) seek(ctx context.Context, ns hostcall.Namespace) (got sought) {
	unheld, begin, tried := 0, time.Now(), false
	for {
		again := false
		list, leads := s.pop.ranked("log " + logOf(ns))
		if tried = tried || len(list) > 0; !tried && time.Since(s.born) < hearsay {
			again = true
		}
		got.err = nil
		for i, n := range list[:min(len(list), maxLenders)] {
			load, err := s.take(ctx, n, ns)
			switch {
			case err == nil:
				return sought{load: load, from: n.Name}
			case errors.Is(err, errMaking):
				again = again || i == 0 && !leads && time.Since(begin) < leaderFor
			case errors.Is(err, errUnheld):
				unheld++
				again = again || unheld < timesUnheld
				got.err = err
			case errors.Is(err, errNoCopy): // or it has not heard of the namespace yet
				again = again || i == 0 && !leads && time.Since(begin) < hearsay
			default:
				got.err = fmt.Errorf("%s: %w", n.Name, err)
			}
			if ctx.Err() != nil {
				return sought{}
			}
			if errors.Is(err, replica.ErrRoom) || errors.Is(err, errSilent) {
				return got
			}
		}
		if !again {
			return got
		}
		t := time.NewTimer(askAgain)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return got
		}
	}
}

// ranked lists the neighbours that are not left alone now, whoever looks after key first; leads says
// that this node comes before them all.
func (p *pop) ranked(key string) (list []Neighbour, leads bool) {
	list = p.trusted()
	slices.SortFunc(list, func(a, b Neighbour) int {
		x, y := score(a.Name, key), score(b.Name, key)
		switch {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return 0
	})
	_, other := p.first(key)
	return list, !other
}

// take gets one neighbour's copy, and checks it.
func (s *spaces) take(ctx context.Context, n Neighbour, ns hostcall.Namespace) (_ *replica.Load, err error) {
	select {
	case s.places <- struct{}{}:
		defer func() { <-s.places }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, lentFor)
	defer cancel()
	quiet := time.AfterFunc(copyQuiet, cancel)
	defer quiet.Stop()
	resp, err := s.askCopy(ctx, n, ns)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	at, err := positionOf(resp.Header)
	if err != nil {
		s.pop.Blame(n.Name, err)
		return nil, err
	}
	quiet.Stop() // to count a large namespace for the first time takes control a while
	began := time.Now()
	held, err := s.held(ctx, ns, at)
	if err != nil {
		return nil, err
	}
	if took := time.Since(began); took > copyQuiet {
		return nil, fmt.Errorf("%w: it took %v", errUnheld, took) // the neighbour has waited for too long
	}
	quiet.Reset(copyQuiet)
	s.mu.Lock()
	db := s.mu.db
	s.mu.Unlock()
	if db == nil {
		return nil, errNoCopy
	}
	load, err := db.Load(ns, at)
	if err != nil {
		return nil, err
	}
	began = time.Now()
	err = fill(load, resp.Body, held, func(sent int64) { quiet.Reset(patience(time.Since(began), sent)) })
	if err == nil {
		return load, nil
	}
	if lied := errors.Is(err, errCopy) || errors.Is(err, replica.ErrPage); lied {
		s.untrue.Add(1)
		s.pop.Blame(n.Name, err)
	} else if errors.Is(err, errBody) {
		s.pop.Blame(n.Name, err)
	}
	return nil, errors.Join(err, load.Drop())
}

// askCopy opens the way to a neighbour's copy.
func (s *spaces) askCopy(ctx context.Context, n Neighbour, ns hostcall.Namespace) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, copyPath+"/"+url.PathEscape(ns.Project)+"/"+url.PathEscape(ns.Name), nil)
	if err != nil {
		return nil, err
	}
	resp, err := n.Node.Do(r)
	if err != nil {
		if !errors.Is(ctx.Err(), context.Canceled) {
			s.pop.Blame(n.Name, err)
		}
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	switch err := refusal(resp); resp.StatusCode {
	case http.StatusServiceUnavailable:
		return nil, fmt.Errorf("%w: %w", errMaking, err)
	default: // also one of a version that has no such path
		return nil, fmt.Errorf("%w: %w", errNoCopy, err)
	}
}

func positionOf(h http.Header) (at replica.Position, err error) {
	var err2 error
	at.Epoch, err = strconv.ParseUint(h.Get(headerEpoch), 10, 64)
	at.Seq, err2 = strconv.ParseUint(h.Get(headerAsOf), 10, 64)
	if err := errors.Join(err, err2); err != nil {
		return at, fmt.Errorf("%w: its position: %w", errCopy, err)
	}
	return at, nil
}

// errSilent is that control did not say what to check a copy against: no neighbour is to blame.
var errSilent = errors.New("control does not say what it is to be checked against")

// held asks control what the namespace held.
func (s *spaces) held(ctx context.Context, ns hostcall.Namespace, at replica.Position) (*changes.Held, error) {
	q := url.Values{"epoch": {strconv.FormatUint(at.Epoch, 10)}, "seq": {strconv.FormatUint(at.Seq, 10)}}
	u := url.URL{Path: changes.HeldPath + "/" + ns.Project + "/" + ns.Name, RawQuery: q.Encode()}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.control.Do(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errSilent, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusConflict {
		return nil, fmt.Errorf("%w: %w", errUnheld, refusal(resp))
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%w: %w", errSilent, refusal(resp))
	}
	sealed, err := readBody(resp, maxHeldBytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errSilent, err)
	}
	h, err := changes.OpenHeld(s.trust, sealed)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errSilent, err)
	}
	if want := (changes.Position{Epoch: at.Epoch, Seq: at.Seq}); h.Log != logOf(ns) || h.Position != want {
		return nil, fmt.Errorf("%w: of %s at %d/%d, not %s at %d/%d", errSilent, h.Log, h.Epoch, h.Seq, logOf(ns), at.Epoch, at.Seq)
	}
	return h, nil
}

// errBody is that a copy was not sent to its end.
var errBody = errors.New("agent: its copy was cut short")

// patience is how long the next page is waited for, after so long a time in which so many bytes came: one small page
// after the other does not hold up what else is to come here.
func patience(took time.Duration, sent int64) time.Duration {
	return max(min(copyQuiet, copyQuiet+time.Duration(float64(sent)/slowest*float64(time.Second))-took), 0)
}

// fill takes the pages in, and checks what they are; more is called for each, with the bytes of all so far.
func fill(load *replica.Load, body io.Reader, held *changes.Held, more func(sent int64)) error {
	sent := int64(0)
	var head [4]byte
	page := make([]byte, replica.MaxPageBytes)
	for {
		if _, err := io.ReadFull(body, head[:]); err != nil {
			return fmt.Errorf("%w: %w", errBody, err)
		}
		n := binary.LittleEndian.Uint32(head[:])
		if n == 0 {
			break
		}
		if n > replica.MaxPageBytes {
			return fmt.Errorf("%w: %d bytes", replica.ErrPage, n)
		}
		if _, err := io.ReadFull(body, page[:n]); err != nil {
			return fmt.Errorf("%w: %w", errBody, err)
		}
		if err := load.Add(page[:n]); err != nil {
			return err
		}
		if load.Keys() > held.Keys || load.Bytes() > held.Bytes { // what other copies need is not for it
			return fmt.Errorf("%w: over %d keys, or %d bytes", errCopy, held.Keys, held.Bytes)
		}
		sent += int64(n)
		more(sent)
	}
	if keys, sum := load.Tally(); keys != held.Keys || sum != held.Sum {
		return fmt.Errorf("%w: %d keys with the digest %x, not %d with %x", errCopy, keys, sum[:8], held.Keys, held.Sum[:8])
	}
	return nil
}
