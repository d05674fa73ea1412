package telemetry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

func says(fn, text string, level slog.Level) hostcall.Line {
	return hostcall.Line{Time: time.Now(), Function: function.ID{Project: "p", Name: fn}, RequestID: "r-" + fn, Level: int(level), Text: text}
}

// read returns the texts of what the tap has now: "access PATH", or a function's text.
func read(t *testing.T, b []byte) (all []string) {
	t.Helper()
	for line := range bytes.Lines(b) {
		l, err := ParseLine(line)
		if err != nil {
			t.Fatal(err)
		}
		switch l.Kind {
		case KindAccess:
			all = append(all, "access "+l.Path)
		case KindDropped:
			all = append(all, fmt.Sprintf("dropped %s %d", l.Function, l.Dropped))
		default:
			all = append(all, l.Text)
		}
	}
	return all
}

func follow(t *testing.T, l *Log, f Filter, since time.Time, tail int) *Tap {
	t.Helper()
	tap, err := l.Follow(f, since, tail)
	if err != nil {
		t.Fatal(err)
	}
	return tap
}

func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := NewLog(discard{}, LogConfig{})
		defer log.Close()
		begin := time.Now()
		log.Log(says("a", "long ago", slog.LevelInfo))
		time.Sleep(time.Hour)
		log.Log(says("a", "one", slog.LevelInfo))
		time.Sleep(time.Second)
		log.Log(says("b", "two", slog.LevelWarn))
		time.Sleep(time.Second)
		log.Record(&Record{Time: time.Now(), Path: "/x", Project: "p", Function: "a", RequestID: "r-a"})
		log.Record(&Record{Time: time.Now(), Path: "/nowhere"})
		recent := begin.Add(30 * time.Minute)
		for name, c := range map[string]struct {
			f     Filter
			since time.Time
			tail  int
			want  string
		}{
			"all":               {Filter{}, begin, 100, "long ago,one,two,access /x,access /nowhere"},
			"since":             {Filter{}, recent, 100, "one,two,access /x,access /nowhere"},
			"the newest":        {Filter{}, begin, 2, "access /x,access /nowhere"},
			"a project":         {Filter{Project: "p"}, recent, 100, "one,two,access /x"},
			"another project":   {Filter{Project: "q"}, recent, 100, ""},
			"a function":        {Filter{Project: "p", Function: "a"}, recent, 100, "one,access /x"},
			"what it says":      {Filter{Kind: KindFunction}, recent, 100, "one,two"},
			"its exchanges":     {Filter{Project: "p", Kind: KindAccess}, recent, 100, "access /x"},
			"warnings":          {Filter{Level: slog.LevelWarn}, recent, 100, "two"},
			"one request":       {Filter{Request: "r-a"}, recent, 100, "one,access /x"},
			"nobody's request":  {Filter{Request: "r"}, recent, 100, ""},
			"none of the past ": {Filter{}, begin, 0, ""},
		} {
			tap := follow(t, log, c.f, c.since, c.tail)
			got := read(t, tap.Past(nil))
			if name == "all" || name == "since" { // two of one moment
				if len(got) > 1 && got[len(got)-1] == "access /x" {
					got[len(got)-1], got[len(got)-2] = got[len(got)-2], got[len(got)-1]
				}
			}
			if name != "the newest" && strings.Join(got, ",") != c.want || len(got) > c.tail {
				t.Errorf("%s: %q, want %s", name, got, c.want)
			}
			tap.Close()
		}
		tap := follow(t, log, Filter{Project: "p", Function: "a"}, begin, 0)
		log.Log(says("a", "new", slog.LevelInfo))
		log.Log(says("b", "other", slog.LevelInfo))
		b, err := tap.Next(t.Context(), nil)
		if got := read(t, b); err != nil || strings.Join(got, ",") != "new" {
			t.Errorf("then %q, %v", got, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := tap.Next(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("nothing was told: %v", err)
		}
		tap.Close()
		if n := log.Stats().Follows; n != 0 {
			t.Errorf("%d still follow", n)
		}
	})
}

// A function that floods its log drops its own lines, is told how many, and
// takes nobody else's room: not in what is written, kept, or followed.
func TestFloodHarmsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out sink
		log := NewLog(&out, LogConfig{RecentBytes: 64 << 10, FunctionBytes: 1 << 20})
		slow := follow(t, log, Filter{}, time.Now(), 0) // reads nothing until the end
		defer slow.Close()
		log.Log(says("quiet", "before", slog.LevelInfo))
		const flood = 100_000
		for range flood {
			log.Log(says("loud", strings.Repeat("x", 100), slog.LevelInfo))
		}
		log.Log(says("quiet", "after", slog.LevelInfo))
		time.Sleep(2 * flushEvery)
		synctest.Wait()
		recent := follow(t, log, Filter{Function: "quiet"}, time.Time{}, 100)
		defer recent.Close()
		if got := read(t, recent.Past(nil)); strings.Join(got, ",") != "before,after" {
			t.Errorf("kept: %q", got)
		}
		b, err := slow.Next(t.Context(), nil)
		got := strings.Join(read(t, b), ",")
		if err != nil || !strings.HasPrefix(got, "before,xxx") || !strings.Contains(got, ",after,") || !strings.Contains(got, ",dropped loud ") {
			t.Errorf("followed: %v, %.100s ... %s", err, got, got[max(0, len(got)-100):])
		}
		if len(b) > tapBytes+1<<10 {
			t.Errorf("%d bytes were held for who is slow", len(b))
		}
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
		written, dropped := 0, 0
		for _, l := range strings.SplitAfter(out.String(), "\n") {
			if l == "" {
				continue
			}
			line, err := ParseLine([]byte(l))
			if err != nil {
				t.Fatal(err)
			}
			if line.Function == "loud" && line.Kind == KindFunction {
				written++
			}
			dropped += line.Dropped
		}
		if written+dropped != flood || written > 3<<20/lineOverhead || !strings.Contains(out.String(), `"after"`) {
			t.Errorf("%d of %d were written, and %d told to be dropped", written, flood, dropped)
		}
	})
}

// Of 5,000 functions and one that floods, each keeps its own rate and its own lines;
// a line too long for who follows hides no other.
func TestFloodAmongManyFunctions(t *testing.T) {
	log := NewLog(discard{}, LogConfig{RecentBytes: 16 << 20, FunctionBytes: 16 << 10})
	defer log.Close()
	const functions = 5000
	for i := range functions {
		log.Log(says(fmt.Sprint("f", i), "first", slog.LevelInfo))
	}
	for range 1000 {
		log.Log(says("flooder", strings.Repeat("x", 200), slog.LevelInfo))
	}
	if log.Stats().Lost == 0 {
		t.Fatal("the flooder was not held to its rate")
	}
	lost := log.Stats().Lost
	for i := range functions {
		log.Log(says(fmt.Sprint("f", i), "heard", slog.LevelInfo))
	}
	if n := log.Stats().Lost - lost; n != 0 {
		t.Errorf("%d lines of others were lost", n)
	}
	tap, err := log.Follow(Filter{AnyLevel: true}, time.Time{}, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	if n := bytes.Count(tap.Past(nil), []byte(`"heard"`)); n != functions {
		t.Errorf("lines of %d functions are kept, of %d", n, functions)
	}
}

// A line too long for those who follow is not told of the past, nor live.
func TestLongLineIsNotFollowed(t *testing.T) {
	log := NewLog(discard{}, LogConfig{})
	defer log.Close()
	log.Log(says("a", strings.Repeat("x", MaxLineBytes), slog.LevelInfo))
	log.Log(says("a", "short", slog.LevelInfo))
	tap, err := log.Follow(Filter{AnyLevel: true}, time.Time{}, 10)
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	if past := tap.Past(nil); len(past) > MaxLineBytes || !bytes.Contains(past, []byte("short")) {
		t.Errorf("the past has %d bytes", len(past))
	}
	log.Log(says("a", strings.Repeat("x", MaxLineBytes), slog.LevelInfo))
	if got := tap.take(nil); len(got) > MaxLineBytes || !bytes.Contains(got, []byte(`"dropped":1`)) {
		t.Errorf("told %d bytes: %.100q", len(got), got)
	}
}

// What is kept has a bound, however many functions there are and whatever they say.
func TestRecentLinesAreBounded(t *testing.T) {
	log := NewLog(discard{}, LogConfig{RecentBytes: 256 << 10, FunctionBytes: 1 << 30})
	defer log.Close()
	for i := range 3 * maxSources {
		for range 4 {
			log.Log(says(fmt.Sprint("f", i%(2*maxSources)), strings.Repeat("x", i%3000), slog.LevelInfo))
		}
	}
	held := 0
	for _, s := range log.sourcesNow() {
		held += cap(s.mu.ring.buf)
	}
	if held > 256<<10 {
		t.Errorf("%d bytes are held, over %d", held, 256<<10)
	}
	if n := len(log.sourcesNow()); n > maxSources+1 {
		t.Errorf("%d sources", n)
	}
}

// The ring holds exactly the newest lines that fit, whatever their lengths.
func TestRing(t *testing.T) {
	var r ring
	var all []string
	const share = 4096
	for i := range 5000 {
		line := fmt.Sprintf("%d %s", i, strings.Repeat("y", i*i%400))
		all = append(all, line)
		r.add(header{time.Unix(0, int64(i)), KindFunction, slog.LevelWarn}, []byte(line), share)
		if r.size() > share/2 || cap(r.buf) > share {
			t.Fatalf("%d bytes in a block of %d", r.size(), cap(r.buf))
		}
	}
	var got []string
	r.each(func(h header, line []byte) {
		if h.kind != KindFunction || h.level != slog.LevelWarn {
			t.Fatalf("%+v", h)
		}
		got = append(got, string(line))
	})
	if len(got) < 5 || strings.Join(got, "\n") != strings.Join(all[len(all)-len(got):], "\n") {
		t.Errorf("%d lines are kept: %q", len(got), got)
	}
}

// Many log and follow at once; lines come once each, in the order of their source.
func TestFollowWhileLogging(t *testing.T) {
	synctest.Test(t, followWhileLogging)
}

func followWhileLogging(t *testing.T) {
	log := NewLog(discard{}, LogConfig{FunctionBytes: 1 << 30})
	defer log.Close()
	const lines = 300
	var wait sync.WaitGroup
	for _, fn := range []string{"a", "b"} {
		wait.Go(func() {
			for i := range lines {
				log.Log(says(fn, fmt.Sprintf("%s %d", fn, i), slog.LevelInfo))
				if i%20 == 0 {
					time.Sleep(tapPause / 2) // no faster than it is read
				}
			}
		})
	}
	for range 4 {
		wait.Go(func() {
			tap := follow(t, log, Filter{}, time.Time{}, 10*lines)
			defer tap.Close()
			next := map[string]int{}
			see := func(b []byte) {
				for _, text := range read(t, b) {
					var i int
					var fn string
					if _, err := fmt.Sscan(text, &fn, &i); err != nil || i != next[fn] {
						t.Errorf("%q after %s %d: %v", text, fn, next[fn]-1, err)
					}
					next[fn] = i + 1
				}
			}
			see(tap.Past(nil))
			for !t.Failed() && (next["a"] < lines || next["b"] < lines) {
				b, err := tap.Next(t.Context(), nil)
				if err != nil {
					t.Error(err)
					return
				}
				see(b)
			}
		})
	}
	wait.Wait()
}

func TestFollowersAreBounded(t *testing.T) {
	log := NewLog(discard{}, LogConfig{})
	defer log.Close()
	for range maxTaps {
		follow(t, log, Filter{}, time.Now(), 0)
	}
	if _, err := log.Follow(Filter{}, time.Now(), 0); !errors.Is(err, ErrTaps) {
		t.Error(err)
	}
}
