package peer

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// fakeLine is a peer that answers after a while, or is cut off.
type fakeLine struct {
	mu    sync.Mutex
	heard time.Time
	cut   bool
	takes time.Duration // for an answer

	sent, signs, drops atomic.Int64
}

func (l *fakeLine) set(cut bool, takes time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut, l.takes = cut, takes
}

func (l *fakeLine) wait(ctx context.Context, least time.Duration) error {
	l.mu.Lock()
	takes := max(l.takes, least)
	l.mu.Unlock()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(takes):
	}
	l.mu.Lock()
	cut := l.cut
	if !cut {
		l.heard = time.Now()
	}
	l.mu.Unlock()
	if cut {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return nil
}

func (l *fakeLine) Do(r *http.Request) (*http.Response, error) {
	l.sent.Add(1)
	if err := l.wait(r.Context(), 0); err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader("ok"))}, nil
}

func (l *fakeLine) Sign(ctx context.Context) error {
	l.signs.Add(1)
	l.mu.Lock()
	takes := l.takes
	l.takes = 0 // a sign of life is quick, however slow other answers are
	l.mu.Unlock()
	err := l.wait(ctx, time.Millisecond)
	l.mu.Lock()
	l.takes = takes
	l.mu.Unlock()
	return err
}

func (l *fakeLine) Heard() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.heard
}

func (l *fakeLine) Drop(time.Time) { l.drops.Add(1) }

func ask(ctx context.Context, r *Reach) error {
	q, err := http.NewRequestWithContext(ctx, http.MethodPut, "/x", strings.NewReader("v"))
	if err != nil {
		return err
	}
	resp, err := r.Do(q)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// A request that is under way when the peer is cut off fails in seconds, as one that may
// have been sent; what comes then fails at once and is not sent; and the peer that is back is
// found to be so by itself.
func TestReachFailsFastWhileThePeerIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLine{}
		var told []bool
		r := NewReach(ReachConfig{Line: l, OnChange: func(away bool) { told = append(told, away) }})
		defer r.Close()
		if err := ask(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		l.set(true, 0)
		begin := time.Now()
		err := ask(t.Context(), r)
		if !errors.Is(err, ErrAway) || Unsent(err) {
			t.Errorf("the request at the cut: %v; unsent: %v", err, Unsent(err))
		}
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("it failed after %v", took)
		}
		begin = time.Now()
		sent := l.sent.Load()
		for range 1000 {
			if err := ask(t.Context(), r); !errors.Is(err, ErrAway) || !Unsent(err) {
				t.Fatalf("a request meanwhile: %v; unsent: %v", err, Unsent(err))
			}
		}
		if took := time.Since(begin); took != 0 || l.sent.Load() != sent {
			t.Errorf("a thousand requests took %v, and %d were sent", took, l.sent.Load()-sent)
		}
		signs := l.signs.Load()
		time.Sleep(time.Minute) // in virtual time
		if n := l.signs.Load() - signs; n < 30 || n > 120 {
			t.Errorf("%d signs were asked for in a minute", n)
		}
		if s := r.Stats(); !s.Away || s.Refused != 1000 || l.drops.Load() == 0 {
			t.Errorf("%+v; connections were dropped %d times", s, l.drops.Load())
		}
		l.set(false, 0)
		time.Sleep(2 * time.Second)
		if err := ask(t.Context(), r); err != nil {
			t.Errorf("after the healing: %v", err)
		}
		if len(told) != 2 || !told[0] || told[1] {
			t.Errorf("told %v", told)
		}
	})
}

// A peer that is slow and lives is waited for.
func TestReachWaitsForASlowPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLine{takes: 9 * time.Second}
		r := NewReach(ReachConfig{Line: l})
		defer r.Close()
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if err := ask(t.Context(), r); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if n := l.signs.Load(); n == 0 || n > 9 {
			t.Errorf("%d signs of life were asked for in 9 s", n)
		}
		if r.Stats().Away {
			t.Error("it is taken to be away")
		}
	})
}

// After a long silence nothing is sent before a sign of life came: what fails then was not sent.
func TestReachAsksBeforeItSendsAfterSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLine{}
		r := NewReach(ReachConfig{Line: l})
		defer r.Close()
		for i, cut := range []bool{false, true} {
			l.set(false, 0)
			if err := ask(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			l.set(cut, 0)
			sent, signs := l.sent.Load(), l.signs.Load()
			var all sync.WaitGroup
			var failed atomic.Int64
			for range 50 {
				all.Go(func() {
					if err := ask(t.Context(), r); err != nil {
						failed.Add(1)
						if !errors.Is(err, ErrAway) || !Unsent(err) {
							t.Errorf("%v; unsent: %v", err, Unsent(err))
						}
					}
				})
			}
			all.Wait()
			want, wantSent := []int64{0, 50}[i], []int64{50, 0}[i]
			if failed.Load() != want || l.sent.Load()-sent != wantSent {
				t.Errorf("cut: %v: %d failed, %d were sent", cut, failed.Load(), l.sent.Load()-sent)
			}
			if n := l.signs.Load() - signs; n < 1 || n > 2 { // the second is asked for over a new connection
				t.Errorf("cut: %v: %d signs were asked for, by fifty", cut, n)
			}
		}
	})
}

// A body that is being read when the peer is cut off ends, and says why.
func TestReachEndsABody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLine{}
		r := NewReach(ReachConfig{Line: &endless{l}})
		defer r.Close()
		q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := r.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		l.set(true, 0)
		if _, err := io.ReadAll(resp.Body); !errors.Is(err, ErrAway) {
			t.Errorf("the body ended with %v", err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
	})
}

// endless answers with a body that brings nothing.
type endless struct{ *fakeLine }

func (e *endless) Do(r *http.Request) (*http.Response, error) {
	resp, err := e.fakeLine.Do(r)
	if err == nil {
		resp.Body = &silent{r.Context()}
	}
	return resp, err
}

type silent struct{ ctx context.Context }

func (s *silent) Read([]byte) (int, error) { <-s.ctx.Done(); return 0, s.ctx.Err() }
func (s *silent) Close() error             { return nil }

func TestClosedReachSendsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLine{cut: true}
		r := NewReach(ReachConfig{Line: l})
		var all sync.WaitGroup
		all.Go(func() {
			if err := ask(t.Context(), r); !errors.Is(err, ErrClosed) {
				t.Errorf("under way: %v", err)
			}
		})
		synctest.Wait()
		r.Close()
		all.Wait()
		if err := ask(t.Context(), r); !errors.Is(err, ErrClosed) || l.sent.Load() != 1 {
			t.Errorf("after Close: %v; %d were sent", err, l.sent.Load())
		}
	})
}

// cable is the way to a server, which can be cut: then nothing comes through, and nothing is refused.
type cable struct {
	mu    sync.Mutex
	cut   chan struct{} // closed while it is cut
	dials atomic.Int64
}

func newCable() *cable { return &cable{cut: make(chan struct{})} }

func (c *cable) pull() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.cut)
}

func (c *cable) plug() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = make(chan struct{})
}

func (c *cable) now() chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cut
}

func (c *cable) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c.dials.Add(1)
	select {
	case <-c.now():
		<-ctx.Done()
		return nil, ctx.Err()
	default:
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &wire{Conn: conn, cut: c.now(), closed: make(chan struct{})}, nil
}

// wire is one connection over a cable; what was cut once brings nothing any more.
type wire struct {
	net.Conn
	cut    chan struct{}
	once   sync.Once
	closed chan struct{}
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	select {
	case <-w.cut:
		<-w.closed
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

func (w *wire) Write(p []byte) (int, error) {
	select {
	case <-w.cut:
		return len(p), nil
	default:
		return w.Conn.Write(p)
	}
}

func (w *wire) Close() error {
	w.once.Do(func() { close(w.closed) })
	return w.Conn.Close()
}

// With a real client and server: what was sent into a cut is told apart from what was not, the
// connections that the cut left are given up, and after it all goes on.
func TestReachOverARealLine(t *testing.T) {
	f := newFleet(t)
	addr, _ := serve(t, f.member, whoami)
	way := newCable()
	c, err := NewClient(ClientConfig{Member: f.join("edge-1").Member, Expect: toControl, Addresses: []string{addr}, Dial: way.dial})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	changed := make(chan bool, 8)
	r := NewReach(ReachConfig{Line: c, Patience: 200 * time.Millisecond, Sign: 2 * time.Second, Again: 100 * time.Millisecond, OnChange: func(away bool) { changed <- away }})
	defer r.Close()
	if err := ask(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if c.Heard().IsZero() {
		t.Error("nothing was heard of a peer that answered")
	}
	way.pull()
	if err := ask(t.Context(), r); !errors.Is(err, ErrAway) || Unsent(err) {
		t.Errorf("what was sent into the cut: %v; unsent: %v", err, Unsent(err))
	}
	if !<-changed {
		t.Error("told that it is back")
	}
	if err := ask(t.Context(), r); !errors.Is(err, ErrAway) || !Unsent(err) {
		t.Errorf("meanwhile: %v; unsent: %v", err, Unsent(err))
	}
	way.plug()
	if <-changed {
		t.Error("told twice that it is away")
	}
	if err := ask(t.Context(), r); err != nil {
		t.Errorf("after the cut: %v", err)
	}
}

// A request that ended while its connection was still being made was not sent; one that may have been
// sent to one address is not unsent because another could not be reached.
func TestUnsent(t *testing.T) {
	f := newFleet(t)
	way := newCable()
	way.pull()
	node := f.join("edge-1").Member
	c, err := NewClient(ClientConfig{Member: node, Expect: toControl, Addresses: []string{"192.0.2.1:1"}, Dial: way.dial})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for way.dials.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	q, _ := http.NewRequestWithContext(ctx, http.MethodPut, "/", strings.NewReader("v"))
	if _, err := c.Do(q); err == nil || !Unsent(err) {
		t.Errorf("ended while it was dialled: %v; unsent: %v", err, Unsent(err))
	}
	bad, _ := serve(t, f.member, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	dead := listen(t)
	dead.Close()
	q, _ = http.NewRequestWithContext(t.Context(), http.MethodPut, "/", strings.NewReader("v"))
	if _, err := client(t, node, toControl, dead.Addr().String(), bad).Do(q); err == nil || Unsent(err) {
		t.Errorf("sent to the second address: %v; unsent: %v", err, Unsent(err))
	}
}
