package changes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selvage-edge/selvage/control/identity"
)

// sink notes what it is told.
type sink struct {
	mu   sync.Mutex
	said []string
	fail error
}

func (s *sink) note(format string, args ...any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	s.said = append(s.said, fmt.Sprintf(format, args...))
	return nil
}

func (s *sink) setFail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

func (s *sink) all() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.said, " ")
}

func (s *sink) Reset(_ context.Context, log string, epoch uint64) error {
	return s.note("reset:%s@%d", log, epoch)
}

func (s *sink) Apply(_ context.Context, b *Batch) error {
	var keys []string
	for _, c := range b.Changes {
		keys = append(keys, fmt.Sprintf("%s@%d", c.Key, c.Seq))
	}
	return s.note("%s(%d,%d]%s", b.Log, b.From, b.To, strings.Join(keys, ","))
}

// script serves streams: for each, the frames it holds, then what end says.
type script struct {
	mu       sync.Mutex
	streams  []stretch
	requests []Request
	opened   []time.Time
}

type stretch struct {
	frames []byte
	open   error // Open fails
	hang   bool  // the stream stays open and silent after its frames
}

func (s *script) open(ctx context.Context, r Request) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.SortFunc(r.Logs, func(a, b Want) int { return strings.Compare(a.Log, b.Log) })
	s.requests = append(s.requests, r)
	s.opened = append(s.opened, time.Now())
	if len(s.streams) == 0 {
		return nil, errors.New("control is away")
	}
	next := s.streams[0]
	s.streams = s.streams[1:]
	if next.open != nil {
		return nil, next.open
	}
	if !next.hang {
		return io.NopCloser(bytes.NewReader(next.frames)), nil
	}
	r2, w := io.Pipe()
	context.AfterFunc(ctx, func() { w.CloseWithError(ctx.Err()) })
	go func() { w.Write(next.frames) }()
	return r2, nil
}

// frames are batches and notices as a stream holds them.
func frames(t testing.TB, parts ...any) []byte {
	t.Helper()
	var out bytes.Buffer
	for _, p := range parts {
		var err error
		switch p := p.(type) {
		case Batch:
			err = writeFrame(&out, frameBatch, encode(t, p))
		case string:
			err = writeFrame(&out, frameNotice, []byte(p))
		case nil:
			err = writeFrame(&out, frameHeartbeat, nil)
		case []byte:
			out.Write(p)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

// span is a batch of log l in epoch e over (from, to] with a change at each seq.
func span(l string, e, from, to uint64, seqs ...uint64) Batch {
	b := Batch{Log: l, Epoch: e, From: from, To: to}
	for _, s := range seqs {
		b.Changes = append(b.Changes, Change{Seq: s, Key: fmt.Sprint("k", s), Op: Delete})
	}
	return b
}

// unsealed takes a payload for its own seal; what begins with ! is forged.
func unsealed(sealed []byte) ([]byte, error) {
	if bytes.HasPrefix(sealed, []byte("!")) {
		return nil, identity.ErrUntrusted
	}
	return sealed, nil
}

type running struct {
	*Follower
	sink   *sink
	script *script
	events []Event
	mu     sync.Mutex
	stop   func()
}

func (f *running) kinds() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, e := range f.events {
		out = append(out, string(e.Kind))
	}
	return strings.Join(out, " ")
}

func (f *running) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.events {
		if e.Kind == Disconnected {
			return e.Err
		}
	}
	return nil
}

// follow runs a follower over scripted streams.
func follow(t *testing.T, wants []Want, streams ...stretch) *running {
	t.Helper()
	f := &running{sink: &sink{}, script: &script{streams: streams}}
	f.Follower = NewFollower(FollowerConfig{
		Open: f.script.open, Verify: unsealed, Sink: f.sink, Jitter: func() float64 { return 1 },
		OnEvent: func(e Event) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.events = append(f.events, e)
		},
	})
	f.Follow(wants...)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Run(ctx)
	}()
	f.stop = func() { cancel(); <-done }
	return f
}

// What a stream may hold, and what the follower makes of it. A batch that must
// not be applied ends the stream: everything after it is not looked at either.
func TestFollowerAppliesOnlyWhatContinues(t *testing.T) {
	at := func(e, s uint64) []Want { return []Want{{Log: "l", Position: Position{e, s}}} }
	tail := []Want{{Log: "l", Tail: true}}
	forged := func() []byte {
		var b bytes.Buffer
		writeFrame(&b, frameBatch, append([]byte("!"), encode(t, span("l", 1, 0, 9, 9))...))
		return b.Bytes()
	}()
	cut := frames(t, span("l", 1, 0, 9, 9))
	for name, c := range map[string]struct {
		wants  []Want
		stream []byte
		said   string
		at     Position
		err    error
	}{
		"from the beginning":     {at(0, 0), frames(t, span("l", 1, 0, 5, 2, 5), span("l", 1, 5, 6, 6)), "l(0,5]k2@2,k5@5 l(5,6]k6@6", Position{1, 6}, nil},
		"not from the beginning": {at(0, 0), frames(t, span("l", 1, 3, 5, 5)), "", Position{}, ErrOrder},
		"continues":              {at(1, 5), frames(t, span("l", 1, 5, 9, 7)), "l(5,9]k7@7", Position{1, 9}, nil},
		"overlaps":               {at(1, 5), frames(t, span("l", 1, 2, 9, 3, 5, 7)), "l(5,9]k7@7", Position{1, 9}, nil},
		"comes twice":            {at(1, 5), frames(t, span("l", 1, 5, 9, 7), span("l", 1, 5, 9, 7), span("l", 1, 9, 10, 10)), "l(5,9]k7@7 l(9,9] l(9,10]k10@10", Position{1, 10}, nil},
		"an old one":             {at(1, 5), frames(t, span("l", 1, 0, 4, 4)), "", Position{1, 5}, nil},
		"a watermark":            {at(1, 5), frames(t, span("l", 1, 5, 5)), "l(5,5]", Position{1, 5}, nil},
		"a gap":                  {at(1, 5), frames(t, span("l", 1, 6, 9, 7), span("l", 1, 5, 9, 7)), "", Position{1, 5}, ErrOrder},
		"reordered":              {at(1, 5), frames(t, span("l", 1, 7, 9, 9), span("l", 1, 5, 7, 6)), "", Position{1, 5}, ErrOrder},
		"another epoch":          {at(2, 5), frames(t, span("l", 3, 5, 9, 7)), "", Position{2, 5}, ErrOrder},
		"an epoch before":        {at(2, 5), frames(t, span("l", 1, 5, 9, 7)), "", Position{2, 5}, ErrOrder},
		"another log":            {at(1, 5), frames(t, span("m", 1, 5, 9, 7)), "", Position{1, 5}, nil},
		"forged":                 {at(0, 0), forged, "", Position{}, identity.ErrUntrusted},
		"not a batch":            {at(0, 0), frames(t, []byte{4, 0, 0, 0, byte(frameBatch), 1, 2, 3}), "", Position{}, ErrBatch},
		"cut short":              {at(0, 0), cut[:len(cut)-1], "", Position{}, io.ErrUnexpectedEOF},
		"an unknown frame":       {at(0, 0), []byte{1, 0, 0, 0, 99}, "", Position{}, errFrame},
		"an endless frame":       {at(0, 0), []byte{0xff, 0xff, 0xff, 0xff, 1}, "", Position{}, errFrame},
		"an empty frame":         {at(0, 0), []byte{0, 0, 0, 0}, "", Position{}, errFrame},
		"resync":                 {at(1, 5), frames(t, `{"log":"l","code":"resync","epoch":2}`, span("l", 2, 0, 3, 3)), "reset:l@2 l(0,3]k3@3", Position{2, 3}, nil},
		"resync, then a gap":     {at(1, 5), frames(t, `{"log":"l","code":"resync","epoch":2}`, span("l", 2, 2, 3, 3)), "reset:l@2", Position{}, ErrOrder},
		"resync, then the past":  {at(2, 5), frames(t, `{"log":"l","code":"resync","epoch":1}`, span("l", 1, 0, 3, 3)), "reset:l@1", Position{}, ErrOrder},
		"resync of nothing":      {at(0, 0), frames(t, `{"log":"l","code":"resync","epoch":2}`), "", Position{}, nil},
		"resync of another":      {at(1, 5), frames(t, `{"log":"m","code":"resync","epoch":2}`), "", Position{1, 5}, nil},
		"an unknown notice":      {at(1, 5), frames(t, `{"log":"l","code":"obey"}`), "", Position{1, 5}, errFrame},
		"a broken notice":        {at(1, 5), frames(t, `{"log`), "", Position{1, 5}, errFrame},
		"tail begins anywhere":   {tail, frames(t, span("l", 1, 40, 40), span("l", 1, 40, 41, 41)), "l(40,40] l(40,41]k41@41", Position{1, 41}, nil},
		"tail, then a gap":       {tail, frames(t, span("l", 1, 40, 40), span("l", 1, 41, 42, 42)), "l(40,40]", Position{1, 40}, ErrOrder},
		"a tail with a position": {[]Want{{Log: "l", Position: Position{1, 5}, Tail: true}}, frames(t, span("l", 1, 8, 9, 9)), "", Position{1, 5}, ErrOrder},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := follow(t, c.wants, stretch{frames: c.stream})
				synctest.Wait()
				if got := f.sink.all(); got != c.said {
					t.Errorf("sink: %s\nwant: %s", got, c.said)
				}
				if p, _ := f.Position("l"); p != c.at {
					t.Errorf("position %v, want %v", p, c.at)
				}
				want := c.err
				if want == nil {
					want = io.EOF
				}
				if err := f.err(); !errors.Is(err, want) {
					t.Errorf("the stream ended with %v, want %v", err, want)
				}
				f.stop()
			})
		})
	}
}

func TestFollowerBacksOffAndContinues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		f := follow(t, []Want{{Log: "l"}},
			stretch{open: io.ErrClosedPipe}, stretch{open: io.ErrClosedPipe}, stretch{open: io.ErrClosedPipe},
			stretch{frames: frames(t, span("l", 1, 0, 3, 3))},
			stretch{frames: frames(t, span("l", 1, 3, 4, 4)), hang: true})
		time.Sleep(3 * time.Second)
		synctest.Wait()
		f.script.mu.Lock()
		var waits []time.Duration
		for _, at := range f.script.opened {
			waits = append(waits, at.Sub(begin))
		}
		last := f.script.requests[len(f.script.requests)-1]
		f.script.mu.Unlock()
		// 50 ms and the whole of 100, 200, 400 ms; after a stream that spoke, 100 ms again.
		want := "[0s 150ms 400ms 850ms 1s]"
		if fmt.Sprint(waits) != want {
			t.Errorf("opened at %v, want %s", waits, want)
		}
		if last.Logs[0].Position != (Position{1, 3}) {
			t.Errorf("asked to continue at %v", last.Logs[0].Position)
		}
		if got := f.sink.all(); got != "l(0,3]k3@3 l(3,4]k4@4" {
			t.Errorf("sink: %s", got)
		}
		f.stop()
	})
}

func TestFollowerBackoffHasABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, []Want{{Log: "l"}}) // control stays away
		time.Sleep(10 * time.Minute)
		f.script.mu.Lock()
		n := len(f.script.opened)
		wait := f.script.opened[n-1].Sub(f.script.opened[n-2])
		f.script.mu.Unlock()
		if wait != 5*time.Second+50*time.Millisecond || n > 130 {
			t.Errorf("%d attempts, the last after %v", n, wait)
		}
		f.stop()
	})
}

func TestFollowerGivesUpASilentStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, []Want{{Log: "l"}}, stretch{frames: frames(t, nil), hang: true})
		time.Sleep(19 * time.Second)
		synctest.Wait()
		if got := f.kinds(); got != "connected" {
			t.Errorf("after 19 s: %s", got)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if err := f.err(); !errors.Is(err, errIdle) {
			t.Errorf("after 21 s: %v", err)
		}
		f.stop()
	})
}

func TestFollowerStaysWhereTheSinkFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := errors.New("no space left")
		one := stretch{frames: frames(t, span("l", 1, 0, 3, 3))}
		f := follow(t, nil, one, one)
		f.sink.setFail(full)
		f.Follow(Want{Log: "l"})
		synctest.Wait()
		if _, ok := f.Position("l"); ok || !errors.Is(f.err(), full) {
			t.Errorf("moved, or for another reason: %v", f.err())
		}
		f.sink.setFail(nil)
		time.Sleep(time.Second)
		synctest.Wait()
		if got := f.sink.all(); got != "l(0,3]k3@3" {
			t.Errorf("sink: %s", got)
		}
		f.stop()
	})
}

func TestFollowerOpensAnewForMoreLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, nil,
			stretch{frames: frames(t, span("a", 1, 0, 3, 3)), hang: true},
			stretch{frames: frames(t, span("b", 1, 7, 7)), hang: true},
			stretch{frames: nil, hang: true})
		time.Sleep(time.Hour)
		f.script.mu.Lock()
		if len(f.script.opened) != 0 {
			t.Error("a stream for no logs")
		}
		f.script.mu.Unlock()
		f.Follow(Want{Log: "a"})
		synctest.Wait()
		f.Follow(Want{Log: "b", Tail: true}, Want{Log: "a", Position: Position{9, 9}})
		synctest.Wait()
		f.Unfollow("a")
		synctest.Wait()
		f.script.mu.Lock()
		got := fmt.Sprintf("%+v", f.script.requests)
		opened := f.script.opened[2].Sub(f.script.opened[0])
		f.script.mu.Unlock()
		want := "[{Logs:[{Log:a Position:{Epoch:0 Seq:0} Tail:false Proof:[]}] Reads:3} " +
			"{Logs:[{Log:a Position:{Epoch:1 Seq:3} Tail:false Proof:[]} {Log:b Position:{Epoch:0 Seq:0} Tail:true Proof:[]}] Reads:3} " +
			"{Logs:[{Log:b Position:{Epoch:1 Seq:7} Tail:true Proof:[]}] Reads:3}]"
		if got != want || opened != 0 {
			t.Errorf("asked %s over %v\nwant %s at once", got, opened, want)
		}
		if _, ok := f.Position("a"); ok {
			t.Error("a is followed still")
		}
		f.stop()
	})
}

func TestFollowerAsksAgainForWhatWasRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		no := `{"log":"l","code":"refused","detail":"not bound"}`
		f := follow(t, []Want{{Log: "l"}, {Log: "m"}},
			stretch{frames: frames(t, no, span("m", 1, 0, 3, 3)), hang: true},
			stretch{frames: frames(t, span("l", 1, 0, 5, 5)), hang: true})
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if got := f.sink.all(); got != "m(0,3]k3@3" || !strings.Contains(f.kinds(), "refused") {
			t.Errorf("at first: %s; %s", got, f.kinds())
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := f.sink.all(); got != "m(0,3]k3@3 l(0,5]k5@5" {
			t.Errorf("after a while: %s", got)
		}
		f.stop()
	})
}

// What is everything up to where the log is followed from says so; what had changes that were there before
// may be a page of a control node of before, which did not say that there is more.
func TestWhatWasThereBeforeIsNoEnd(t *testing.T) {
	page := span("l", 1, 0, 9)
	page.Head = 20
	for name, c := range map[string]struct {
		b    Batch
		want bool
	}{
		"a statement":           {span("l", 1, 0, 9), true},
		"a batch":               {span("l", 1, 0, 9, 9), false},
		"a batch that was had":  {span("l", 1, 0, 9, 3), false},
		"a page without change": {page, false},
	} {
		c.b.skip(5)
		if c.b.Ends() != c.want {
			t.Errorf("%s: %+v ends the log: %v", name, c.b, !c.want)
		}
	}
}
