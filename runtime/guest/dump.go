package guest

import (
	"fmt"
	"strings"
)

// DumpLines is how many lines of a stack dump on standard error are kept. Go's
// runtime ends a fatal error, such as a lack of memory, with the stacks of all
// goroutines, its own among them, and nothing that a guest can set makes it
// fewer. The goroutine that failed comes first.
const DumpLines = 40

// dump follows a stream and finds stack dumps in it.
type dump struct {
	lines int // of the dump so far; 0: outside of one
}

// takes reports whether the log takes the line. At the end of a dump, left is
// how many of its lines were not taken.
func (d *dump) takes(text string) (ok bool, left int) {
	switch {
	case d.lines > 0 && !isStack(text):
		return true, d.end()
	case d.lines > 0 || isGoroutine(text):
		d.lines++
	}
	return d.lines <= DumpLines, 0
}

// end ends the dump, if there is one.
func (d *dump) end() (left int) {
	left = max(0, d.lines-DumpLines)
	d.lines = 0
	return left
}

func leftOut(lines int) string {
	return fmt.Sprintf("%d more lines of this stack dump are left out", lines)
}

// isGoroutine knows the head of a goroutine's stack: "goroutine 7 [running]:".
func isGoroutine(text string) bool {
	return strings.HasPrefix(text, "goroutine ") && strings.HasSuffix(text, ":")
}

// isStack knows the lines that Go's stacks are made of.
func isStack(text string) bool {
	return text == "" || text[0] == '\t' || isGoroutine(text) ||
		strings.HasPrefix(text, "created by ") || strings.HasPrefix(text, "...") || // "...23 frames elided..."
		strings.HasSuffix(text, ")") && strings.Contains(text, "(")
}
