package dump

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// kept is a namespace in memory.
type kept struct {
	sync.Mutex
	values map[string]string
	puts   int
	fails  string // the value that is not taken
}

var errNo = errors.New("no")

func (k *kept) put(_ context.Context, l Line) error {
	k.Lock()
	defer k.Unlock()
	k.puts++
	if string(l.Value) == k.fails && k.fails != "" {
		return errNo
	}
	if string(l.Value) == "over" {
		return ErrOver
	}
	if k.values == nil {
		k.values = map[string]string{}
	}
	k.values[l.Key] = string(l.Value)
	return nil
}

func lines(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"key":"k%d","value":"v%d"}`+"\n", i, i)
	}
	return b.String()
}

func TestImportWritesAll(t *testing.T) {
	var k kept
	var marks []Mark
	in := lines(3000) + `{"key":"old","value":"over"}` + "\n"
	sum, err := Import(t.Context(), Config{In: strings.NewReader(in), Put: k.put, Reached: func(m Mark) error { marks = append(marks, m); return nil }})
	if err != nil || sum.Written != 3000 || sum.Over != 1 || sum.Done.Line != 3001 || sum.Done.Bytes != int64(len(in)) || len(k.values) != 3000 {
		t.Errorf("%+v, %d keys: %v", sum, len(k.values), err)
	}
	for i := range 3000 {
		if k.values[fmt.Sprint("k", i)] != fmt.Sprint("v", i) {
			t.Fatalf("k%d is %q", i, k.values[fmt.Sprint("k", i)])
		}
	}
	for i, m := range marks[1:] {
		if m.Line <= marks[i].Line {
			t.Errorf("reached %+v", marks)
		}
	}
	if marks[len(marks)-1].Line != 3001 {
		t.Errorf("last reached %+v", marks[len(marks)-1])
	}
}

// Lines of one key are written in their order, however many are under way.
func TestImportKeepsAKeysOrder(t *testing.T) {
	var b strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&b, `{"key":"k%d","value":"%d"}`+"\n", i%7, i)
	}
	var k kept
	if _, err := Import(t.Context(), Config{In: strings.NewReader(b.String()), Put: k.put}); err != nil {
		t.Fatal(err)
	}
	for i := 1993; i < 2000; i++ {
		if got := k.values[fmt.Sprint("k", i%7)]; got != fmt.Sprint(i) {
			t.Errorf("k%d is %s, want %d", i%7, got, i)
		}
	}
}

func TestImportStopsAtABadLine(t *testing.T) {
	var k kept
	sum, err := Import(t.Context(), Config{In: strings.NewReader(lines(500) + "\n" + `{"key":"a","value":"b","ttl":1}` + "\n" + lines(9)), Put: k.put})
	var bad *LineError
	if !errors.As(err, &bad) || bad.Line != 502 || !strings.Contains(err.Error(), "line 502: field \"ttl\"") || k.puts != 500 || sum.Done.Line != 500 {
		t.Errorf("%+v, %d puts: %v", sum, k.puts, err)
	}
}

func TestImportGoesOn(t *testing.T) {
	k := kept{fails: "v1200"}
	var saved Mark
	c := func(in string) Config {
		return Config{In: strings.NewReader(in), Put: k.put, After: saved, Reached: func(m Mark) error { saved = m; return nil }}
	}
	sum, err := Import(t.Context(), c(lines(2000)))
	var bad *LineError
	if !errors.As(err, &bad) || bad.Line != 1201 || !errors.Is(err, errNo) || sum.Done.Line > 1200 || saved.Line != sum.Done.Line {
		t.Fatalf("%+v, saved %+v: %v", sum, saved, err)
	}
	if _, err := Import(t.Context(), c("{}\n"+lines(2000))); saved.Line > 0 && (err == nil || !strings.Contains(err.Error(), "another input")) {
		t.Errorf("another input: %v", err)
	}
	k.fails, k.puts = "", 0
	from := saved.Line
	sum, err = Import(t.Context(), c(lines(2000)))
	if err != nil || sum.Done.Line != 2000 || sum.Written != 2000-from || k.puts != int(sum.Written) || len(k.values) != 2000 {
		t.Errorf("from %d: %+v, %d puts, %d keys: %v", from, sum, k.puts, len(k.values), err)
	}
}

func TestImportFromALine(t *testing.T) {
	var k kept
	sum, err := Import(t.Context(), Config{In: strings.NewReader("nonsense\n" + lines(10)), Put: k.put, From: 4})
	if err != nil || sum.Written != 8 || k.values["k2"] != "v2" || k.values["k1"] != "" {
		t.Errorf("%+v, %v: %v", sum, k.values, err)
	}
}

// Who ends an import is told how far it came, and no line begins after.
func TestImportEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var k kept
	sum, err := Import(ctx, Config{In: strings.NewReader(lines(5000)), Put: func(ctx context.Context, l Line) error {
		if l.Key == "k700" {
			cancel()
		}
		return k.put(ctx, l)
	}})
	if !errors.Is(err, context.Canceled) || sum.Done.Line >= 5000 || int64(k.puts) < sum.Done.Line {
		t.Errorf("%+v, %d puts: %v", sum, k.puts, err)
	}
}

// A mark that cannot be kept ends it: nothing would be known of what was done.
func TestImportNeedsItsMark(t *testing.T) {
	var k kept
	_, err := Import(t.Context(), Config{In: strings.NewReader(lines(1000)), Put: k.put, Reached: func(Mark) error { return errNo }})
	if !errors.Is(err, errNo) {
		t.Error(err)
	}
}
