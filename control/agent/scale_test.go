package agent

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/report"
	"github.com/selvage-edge/selvage/edge/serve"
	"github.com/selvage-edge/selvage/runtime/function"
)

// crowded is the loop of a node with n functions.
func crowded(t testing.TB, n int) *loop[*version] {
	a := &Agent[*version]{config: Config[*version]{Dir: t.TempDir()}.withDefaults(), catalog: catalog.NewState((*identity.Anchor)(nil))}
	a.stats.Store(&Stats{})
	a.reporter = newReporter(nil, report.Report{}, 0, nil)
	l := newLoop(t.Context(), a)
	l.snap = a.catalog.Snapshot()
	for i := range n {
		r := catalog.Release{Project: "p", Function: fmt.Sprintf("f%05d", i), Routes: []string{fmt.Sprintf("f%05d.example/*", i)}, Code: function.DigestOf(fmt.Append(nil, i%50)), Image: function.DigestOf(fmt.Append(nil, i)), Bundle: function.DigestOf(nil)}
		l.slots[r.ID()] = &slot[*version]{want: r, state: report.Live, live: &ready[*version]{release: r, held: true, target: &serve.Target{}}}
	}
	return l
}

// Where going through all functions takes long, reports and tables are made now
// and then, and what waits for the next is not forgotten.
func TestManyFunctionsBecomeReadyOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := crowded(t, 2)
		swaps := 0
		l.config.Swap = func(*serve.Routes) { swaps++ }
		l.serving, l.tellAt, l.swapAt = true, time.Now().Add(time.Second), time.Now().Add(2*time.Second)
		for _, s := range l.slots {
			s.next, s.live, s.state = s.live, nil, report.Compiling
			l.settle()
		}
		told := func() int { return len(l.reporter.mu.functions) }
		if swaps != 0 || told() != 0 {
			t.Errorf("at once: %d tables, %d functions told of", swaps, told())
		}
		began := time.Now()
		<-l.timer.C
		l.settle()
		if swaps != 0 || told() != 2 || time.Since(began) != time.Second {
			t.Errorf("after %v: %d tables, %d functions told of", time.Since(began), swaps, told())
		}
		<-l.timer.C
		l.settle()
		if swaps != 1 || time.Since(began) != 2*time.Second || l.stats.Load().Live != 2 {
			t.Errorf("after %v: %d tables, %+v", time.Since(began), swaps, *l.stats.Load())
		}
		<-l.timer.C
		if time.Since(began) != sweepEvery {
			t.Errorf("woken after %v for nothing", time.Since(began))
		}
	})
}

// However many functions fail, and however much is to be said of each, control takes the report.
func TestReportsOfManyFailuresFit(t *testing.T) {
	much := strings.Repeat("<", 64<<10)
	for _, n := range []int{1, 100, 5000} {
		l := crowded(t, n)
		for _, s := range l.slots {
			s.state, s.why = report.Failed, much
		}
		l.settle()
		b, err := json.Marshal(l.reporter.compose())
		if err != nil || len(b) > report.MaxBytes {
			t.Errorf("%d functions: %d bytes of at most %d, %v", n, len(b), report.MaxBytes, err)
		}
		if why := l.reporter.mu.functions[n-1].Why; len(why) < 64 {
			t.Errorf("%d functions: of each only %q is told", n, why)
		}
	}
}

func BenchmarkSettle(b *testing.B) {
	for _, n := range []int{500, 5000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			l := crowded(b, n)
			for b.Loop() {
				l.settle()
			}
		})
	}
}

func BenchmarkUsed(b *testing.B) {
	l := crowded(b, 5000)
	for b.Loop() {
		l.used()
	}
}

func BenchmarkTable(b *testing.B) {
	l := crowded(b, 5000)
	for b.Loop() {
		if _, err := l.table(); err != nil {
			b.Fatal(err)
		}
	}
}
