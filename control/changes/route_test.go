package changes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// nextDoor is one neighbour, "nan", by a script, that is everyone's parent until it is blamed.
type nextDoor struct {
	script
	bad struct {
		sync.Mutex
		err error
	}
}

func (n *nextDoor) Parent(string) string {
	if n.blamed() != nil {
		return ""
	}
	return "nan"
}

func (n *nextDoor) Blame(_ string, err error) {
	n.bad.Lock()
	defer n.bad.Unlock()
	n.bad.err = err
}

func (n *nextDoor) blamed() error {
	n.bad.Lock()
	defer n.bad.Unlock()
	return n.bad.err
}

func (n *nextDoor) Open(ctx context.Context, _ string, r Request) (io.ReadCloser, error) {
	return n.open(ctx, r)
}

// followNextDoor follows wants behind a neighbour whose first stream is given, with control's after it.
func followNextDoor(t *testing.T, want Want, door, control stretch) (*running, *nextDoor) {
	t.Helper()
	n := &nextDoor{script: script{streams: []stretch{door}}}
	f := &running{sink: &sink{}, script: &script{streams: []stretch{control}}}
	f.Follower = NewFollower(FollowerConfig{
		Open: f.script.open, Neighbours: n, Verify: unsealed, Sink: f.sink, Jitter: func() float64 { return 0.5 },
		OnEvent: func(e Event) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.events = append(f.events, e)
		},
	})
	f.Follow(want)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Run(ctx)
	}()
	f.stop = func() { cancel(); <-done }
	return f, n
}

// Whatever a neighbour does, the follower ends up with what control signed, in
// order and once; it asks control within the time given, from the right place;
// and it knows who lied from who merely failed.
func TestWhatANeighbourMayDo(t *testing.T) {
	forged := func() []byte {
		var b bytes.Buffer
		writeFrame(&b, frameBatch, append([]byte("!"), encode(t, span("l", 1, 5, 9, 9))...))
		return b.Bytes()
	}()
	good := frames(t, span("l", 1, 5, 7, 6))
	signed := func(b Batch, at time.Time) Batch { b.At = at; return b }
	old := signed(span("l", 1, 7, 7), time.UnixMilli(1000))
	beats := bytes.Repeat(frames(t, nil), 1)
	for name, c := range map[string]struct {
		door    stretch
		control []any
		said    string
		asked   uint64        // control is asked to continue from there
		within  time.Duration // of the start
		lied    bool
		blamed  bool
	}{
		"is not there":          {stretch{open: io.ErrClosedPipe}, []any{span("l", 1, 5, 9, 9)}, "l(5,9]k9@9", 5, 0, false, true},
		"hangs up":              {stretch{frames: good}, []any{span("l", 1, 7, 9, 9)}, "l(5,7]k6@6 l(7,9]k9@9", 7, 0, false, true},
		"falls silent":          {stretch{frames: good, hang: true}, []any{span("l", 1, 7, 9, 9)}, "l(5,7]k6@6 l(7,9]k9@9", 7, 6 * time.Second, false, true},
		"forges":                {stretch{frames: forged, hang: true}, []any{span("l", 1, 5, 9, 9)}, "l(5,9]k9@9", 5, 0, true, true},
		"cuts a batch short":    {stretch{frames: good[:len(good)-2]}, []any{span("l", 1, 5, 9, 9)}, "l(5,9]k9@9", 5, 0, false, true},
		"breaks a batch":        {stretch{frames: frames(t, []byte{4, 0, 0, 0, byte(frameBatch), 1, 2, 3}), hang: true}, []any{span("l", 1, 5, 9, 9)}, "l(5,9]k9@9", 5, 0, true, true},
		"leaves one out":        {stretch{frames: frames(t, span("l", 1, 7, 9, 9)), hang: true}, []any{span("l", 1, 5, 9, 9)}, "l(5,9]k9@9", 5, 0, true, true},
		"turns two round":       {stretch{frames: frames(t, span("l", 1, 7, 9, 9), span("l", 1, 5, 7, 6)), hang: true}, []any{span("l", 1, 5, 9, 9)}, "l(5,9]k9@9", 5, 0, true, true},
		"is of another epoch":   {stretch{frames: frames(t, span("l", 2, 5, 9, 9)), hang: true}, []any{span("l", 1, 5, 9, 9)}, "l(5,9]k9@9", 5, 0, true, true},
		"sends what is old":     {stretch{frames: frames(t, span("l", 1, 0, 5, 3), span("l", 1, 5, 7, 6)), hang: true}, []any{span("l", 1, 7, 9, 9)}, "l(5,5] l(5,7]k6@6 l(7,9]k9@9", 7, 6 * time.Second, false, true},
		"says start again":      {stretch{frames: frames(t, `{"log":"l","code":"resync","epoch":9}`), hang: true}, []any{span("l", 1, 5, 9, 9)}, "l(5,9]k9@9", 5, 0, false, false},
		"does not serve it":     {stretch{frames: frames(t, `{"log":"l","code":"refused"}`)}, []any{span("l", 1, 5, 9, 9)}, "l(5,9]k9@9", 5, 0, false, false},
		"no longer has it":      {stretch{frames: frames(t, `{"log":"l","code":"below"}`), hang: true}, []any{span("l", 1, 5, 9, 9)}, "l(5,9]k9@9", 5, 0, false, false},
		"orders about":          {stretch{frames: frames(t, `{"log":"l","code":"obey"}`), hang: true}, []any{span("l", 1, 5, 9, 9)}, "l(5,9]k9@9", 5, 0, true, true},
		"stays behind the head": {stretch{frames: append(good, beats...), hang: true}, []any{span("l", 1, 7, 9, 9)}, "l(5,7]k6@6 l(7,9]k9@9", 7, 4 * time.Second, false, false},
		"says old things again": {stretch{frames: frames(t, span("l", 1, 5, 7, 6), old, old, old), hang: true}, []any{span("l", 1, 7, 9, 9)}, "l(5,7]k6@6 l(7,7] l(7,7] l(7,7] l(7,9]k9@9", 7, 6 * time.Second, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, door := followNextDoor(t, Want{Log: "l", Position: Position{1, 5}}, c.door, stretch{frames: frames(t, c.control...), hang: true})
				synctest.Wait()
				if strings.Contains(name, "head") {
					if !f.Heard("l", Position{1, 9}) {
						t.Error("it is not short of a head above it")
					}
				}
				time.Sleep(c.within)
				synctest.Wait()
				if got := f.sink.all(); got != c.said {
					t.Errorf("sink: %s\nwant: %s", got, c.said)
				}
				f.script.mu.Lock()
				if len(f.script.requests) != 1 || f.script.requests[0].Logs[0].Position != (Position{1, c.asked}) {
					t.Errorf("control was asked %+v", f.script.requests)
				}
				f.script.mu.Unlock()
				if err := door.blamed(); (err != nil) != c.blamed || Lied(err) != c.lied {
					t.Errorf("blamed for %v", err)
				}
				f.stop()
			})
		})
	}
}

// beating is a neighbour's stream that lives and brings nothing but what old holds, again and again.
type beating struct {
	nextDoor
	old []byte
}

func (b *beating) Open(ctx context.Context, _ string, _ Request) (io.ReadCloser, error) {
	b.mu.Lock()
	b.opened = append(b.opened, time.Now())
	b.mu.Unlock()
	r, w := io.Pipe()
	go func() {
		for ctx.Err() == nil {
			select {
			case <-time.After(time.Second):
				writeFrame(w, frameHeartbeat, nil)
				w.Write(b.old)
			case <-ctx.Done():
			}
		}
		w.CloseWithError(ctx.Err())
	}()
	return r, nil
}

// A neighbour that beats and brings nothing newly signed is left for control, for
// longer each time, and is tried again.
func TestAStaleNeighbourIsSetAside(t *testing.T) { staleNeighbourIsSetAside(t, nil) }

// A page has no time of its own; one that comes again and again is nothing new either.
func TestANeighbourThatSendsAPageAgainIsSetAside(t *testing.T) {
	page := span("l", 1, 0, 5, 3)
	page.Head = 9
	staleNeighbourIsSetAside(t, frames(t, page))
}

func staleNeighbourIsSetAside(t *testing.T, old []byte) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		door := &beating{old: old}
		s := &script{streams: []stretch{{hang: true}, {hang: true}, {hang: true}, {hang: true}}}
		f := NewFollower(FollowerConfig{Open: s.open, Neighbours: door, Verify: unsealed, Sink: &sink{}, Idle: time.Hour, Jitter: func() float64 { return 0.5 }})
		f.Follow(Want{Log: "l", Position: Position{1, 5}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); f.Run(ctx) }()
		time.Sleep(100 * time.Second)
		synctest.Wait()
		s.mu.Lock()
		var asked []string
		for _, at := range s.opened {
			asked = append(asked, fmt.Sprint(at.Sub(begin)))
		}
		s.mu.Unlock()
		// 25 s next door, 3 s at control, 25 s next door, 6 s at control, and so on.
		if got := strings.Join(asked, " "); got != "25s 53s 1m24s" {
			t.Errorf("control was asked at %s", got)
		}
		if err := door.blamed(); err != nil {
			t.Errorf("blamed: %v", err)
		}
		cancel()
		<-done
	})
}

// marking says every second that nothing came after 5, newly signed.
type marking struct {
	nextDoor
	t      *testing.T
	opened atomic.Int64
}

func (m *marking) stream(ctx context.Context) io.ReadCloser {
	m.opened.Add(1)
	r, w := io.Pipe()
	go func() {
		for ctx.Err() == nil {
			mark := span("l", 1, 5, 5)
			mark.At = time.Now()
			w.Write(frames(m.t, mark))
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
		w.CloseWithError(ctx.Err())
	}()
	return r
}

func (m *marking) Open(ctx context.Context, _ string, _ Request) (io.ReadCloser, error) {
	return m.stream(ctx), nil
}

// Somebody who claims a head that never was sends the follower to control once:
// control knows better, and no such claim is believed again for a while.
func TestAFalseHeadIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		door, control := &marking{t: t}, &marking{t: t}
		f := NewFollower(FollowerConfig{Neighbours: door, Verify: unsealed, Sink: &sink{}, Idle: time.Hour, Jitter: func() float64 { return 0.5 },
			Open: func(ctx context.Context, _ Request) (io.ReadCloser, error) { return control.stream(ctx), nil }})
		f.Follow(Want{Log: "l", Position: Position{1, 5}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); f.Run(ctx) }()
		synctest.Wait()
		if !f.Heard("l", Position{1, 1 << 60}) {
			t.Error("a first claim is a hint")
		}
		for i := range uint64(300) {
			time.Sleep(time.Second)
			f.Heard("l", Position{1, 1<<60 + i})
		}
		synctest.Wait()
		if n := control.opened.Load(); n != 1 {
			t.Errorf("control was asked %d times", n)
		}
		if direct, next := f.Sources(); direct != 0 || next != 1 {
			t.Errorf("%d followed from control, %d next door", direct, next)
		}
		time.Sleep(disbelief)
		if f.Heard("l", Position{1, 5}) || !f.Heard("l", Position{1, 1 << 61}) {
			t.Error("no head is believed again")
		}
		cancel()
		<-done
	})
}

// A page whose changes were all replaced is not control's word that nothing follows: a head
// that was heard of meanwhile is believed on.
func TestAnEmptyPageMakesNoHeadFalse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := make(chan Batch)
		control := func(ctx context.Context, _ Request) (io.ReadCloser, error) {
			r, w := io.Pipe()
			go func() {
				for {
					select {
					case b := <-out:
						w.Write(frames(t, b))
					case <-ctx.Done():
						w.CloseWithError(ctx.Err())
						return
					}
				}
			}()
			return r, nil
		}
		f := NewFollower(FollowerConfig{Verify: unsealed, Sink: &sink{}, Idle: time.Hour, Open: control})
		f.Follow(Want{Log: "l", Position: Position{1, 5}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); f.Run(ctx) }()
		synctest.Wait()
		f.Heard("l", Position{1, 20})
		time.Sleep(2 * afterwards)
		page := span("l", 1, 5, 10)
		page.Head = 20
		out <- page
		synctest.Wait()
		if !f.Heard("l", Position{1, 20}) {
			t.Error("a head that the page itself names is not believed")
		}
		cancel()
		<-done
	})
}

// A node serves its neighbours only what it follows from control, and while it does.
func TestOnlyWhoFollowsControlServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		door := &nextDoor{}
		door.Blame("nan", errors.New("gone"))
		f := &running{sink: &sink{}, script: &script{streams: []stretch{{frames: frames(t, span("l", 1, 0, 3, 3)), hang: true}}}}
		f.Follower = NewFollower(FollowerConfig{Open: f.script.open, Neighbours: door, Verify: unsealed, Sink: f.sink, Idle: 10 * time.Second})
		f.Follow(Want{Log: "l"})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); f.Run(ctx) }()
		synctest.Wait()
		if err := f.Leads("l"); err != nil {
			t.Errorf("the leader: %v", err)
		}
		if err := f.Leads("m"); err == nil {
			t.Error("a log it does not follow")
		}
		time.Sleep(11 * time.Second) // control falls silent, and is away from then on
		synctest.Wait()
		if err := f.Leads("l"); err != nil {
			t.Errorf("just after control left: %v", err)
		}
		time.Sleep(3 * time.Second)
		if err := f.Leads("l"); err == nil {
			t.Error("it serves on without control")
		}
		door.Blame("nan", nil)
		if err := f.Leads("l"); err == nil || !strings.Contains(err.Error(), "nan") {
			t.Errorf("a neighbour leads: %v", err)
		}
		cancel()
		<-done
	})
}
