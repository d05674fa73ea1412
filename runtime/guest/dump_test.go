package guest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// said keeps the lines of a log.
type said []string

func (s *said) Log(l hostcall.Line) { *s = append(*s, l.Text) }

// goDump is what Go's runtime writes of so many goroutines, three lines each.
func goDump(goroutines int) string {
	var b strings.Builder
	for i := range goroutines {
		fmt.Fprintf(&b, "goroutine %d gp=0x482e00 m=nil [chan receive]:\nmain.(*worker).run(0x4c4230, 0x1)\n\t/src/main.go:%d +0x4\ncreated by main.main in goroutine 1\n\t/src/main.go:7\n\n", i+1, i)
	}
	return b.String()
}

// A stack dump is cut, whatever pieces it comes in; what stands around it is not.
func TestStackDumpsAreBounded(t *testing.T) {
	long := goDump(50)
	for _, c := range []struct {
		name, text string
		lines      int
		last       string
	}{
		{"long", "fatal error: out of memory\n\n" + long, 2 + DumpLines + 1, "260 more lines of this stack dump are left out"},
		{"short", "panic: oh\n\n" + goDump(1) + "exit status 2\n", 9, "exit status 2"},
		{"goes on", long + "I go on\n" + long, 2*(DumpLines+1) + 1, "260 more lines of this stack dump are left out"},
		{"no dump", strings.Repeat("f(x)\n\tcalled\n", 100), 200, "\tcalled"},
	} {
		for _, piece := range []int{1, 7, 1 << 20} {
			var log said
			w := logWriter{sink: &log, version: &function.Version{}}
			for rest := c.text; rest != ""; {
				n := min(piece, len(rest))
				w.record(&engine.LogRecord{Stream: engine.Stderr, Text: []byte(rest[:n])})
				rest = rest[n:]
			}
			w.close(nil, nil)
			if len(log) != c.lines || log[len(log)-1] != c.last {
				t.Errorf("%s in pieces of %d: %d lines, want %d; the last is %q", c.name, piece, len(log), c.lines, log[len(log)-1])
			}
		}
	}
}

// Another stream's lines, and log calls, are nobody's dump.
func TestOnlyStandardErrorHasDumps(t *testing.T) {
	var log said
	w := logWriter{sink: &log, version: &function.Version{}}
	for _, s := range []engine.Stream{engine.Stdout, engine.LogCall} {
		w.record(&engine.LogRecord{Stream: s, Text: []byte(goDump(50))})
	}
	w.close(nil, nil)
	if len(log) != 600 {
		t.Errorf("%d lines of 600", len(log))
	}
}
