package telemetry

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// stuck takes nothing until it is let go.
type stuck struct {
	free chan struct{}
	out  bytes.Buffer
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.free
	return s.out.Write(p)
}

// TestLogThatIsNotRead: no exchange waits for whoever reads the log, and what
// is kept for them is bounded; how much was lost is told.
func TestLogThatIsNotRead(t *testing.T) {
	out := &stuck{free: make(chan struct{})}
	log := NewLog(out, LogConfig{})
	logged := make(chan struct{})
	go func() {
		defer close(logged)
		for range 3 * mostWaiting / (64 << 10) {
			log.Record(&Record{Path: strings.Repeat("x", 64<<10)})
		}
	}()
	select {
	case <-logged:
	case <-time.After(20 * time.Second):
		t.Error("it waits for the writer")
	}
	close(out.free)
	<-logged
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if n := out.out.Len(); n > 2*mostWaiting {
		t.Errorf("%d bytes were kept", n)
	}
	if !strings.Contains(out.out.String(), `"dropped":`) {
		t.Error("what was lost is not told")
	}
}
