package sdktest

import (
	"fmt"
	"strings"
	"sync"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// lines is a function's log, kept.
type lines struct {
	mu struct {
		sync.Mutex
		all []hostcall.Line
	}
}

var _ hostcall.LogSink = (*lines)(nil)

func (l *lines) Log(line hostcall.Line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.all = append(l.mu.all, line)
}

// String is a line "level text" for each.
func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	for _, line := range l.mu.all {
		fmt.Fprintln(&b, line.Level, line.Text)
	}
	return b.String()
}
