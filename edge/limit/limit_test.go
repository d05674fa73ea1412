package limit

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
)

var (
	a = function.ID{Project: "p", Name: "a"}
	b = function.ID{Project: "p", Name: "b"}
)

func kindOf(err error) fault.Kind {
	var e *fault.Error
	if !errors.As(err, &e) {
		return 0
	}
	return e.Kind
}

func TestAdmit(t *testing.T) {
	l := New(Config{Node: 3})
	first, err := l.Admit(a, 2)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Admit(a, 2); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Admit(a, 2); kindOf(err) != fault.Busy {
		t.Fatalf("a third of two: %v, want busy", err)
	}
	if _, err := l.Admit(b, 2); err != nil {
		t.Fatalf("another function: %v", err)
	}
	if _, err := l.Admit(b, 2); kindOf(err) != fault.Capacity {
		t.Fatalf("a fourth on a node of three: %v, want capacity", err)
	}
	first.Release()
	if _, err := l.Admit(a, 2); err != nil {
		t.Fatalf("after a release: %v", err)
	}
	if got, want := l.Stats(), (Stats{Running: 3, Functions: 2, Refused: Refused{Busy: 1, Capacity: 1}}); got != want {
		t.Fatalf("stats %+v, want %+v", got, want)
	}
}

func TestIdleFunctionsAreForgotten(t *testing.T) {
	l := New(Config{})
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			ticket, err := l.Admit(a, 0)
			if err != nil {
				t.Error(err)
			}
			ticket.Release()
		})
	}
	all.Wait()
	Ticket{}.Release() // nothing was admitted, nothing is given back
	if got := l.Stats(); got != (Stats{}) {
		t.Fatalf("stats %+v, want none", got)
	}
}

func TestRetryAfterIsJittered(t *testing.T) {
	for n := range int64(5) {
		l := New(Config{Rand: func(limit int64) int64 {
			if limit != 5 {
				t.Fatalf("a number below %d, want 5", limit)
			}
			return n
		}})
		if got := l.RetryAfter(); got != time.Duration(1+n)*time.Second {
			t.Errorf("got %v for %d", got, n)
		}
	}
}

func BenchmarkAdmit(b *testing.B) {
	l := New(Config{})
	b.ReportAllocs()
	for b.Loop() {
		ticket, err := l.Admit(a, 0)
		if err != nil {
			b.Fatal(err)
		}
		ticket.Release()
	}
}
