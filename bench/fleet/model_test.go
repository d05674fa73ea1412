package fleet

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

// seed is one of SELVAGE_SEED, or a new one.
func seed(t *testing.T) uint64 {
	t.Helper()
	s := os.Getenv("SELVAGE_SEED")
	if s == "" {
		return rand.Uint64()
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("SELVAGE_SEED: %v", err)
	}
	return n
}

func model(t *testing.T, p Plan) (f Figures) {
	t.Helper()
	p.Seed = seed(t)
	t.Logf("SELVAGE_SEED=%d: %d nodes in %d PoPs, loss %.0f %%, cut of %v, %d killed", p.Seed, p.Nodes, p.PoPs, 100*p.Loss, p.Cut, p.Kill)
	began := time.Now()
	synctest.Test(t, func(t *testing.T) {
		var err error
		if f, err = Run(p, t.TempDir()+"/identity"); err != nil {
			t.Error(err)
		}
	})
	t.Logf("in %.1f s: %+v", time.Since(began).Seconds(), f)
	return f
}

func TestSmallFleet(t *testing.T) {
	for _, loss := range []float64{0, 0.1, 0.3} {
		model(t, Plan{Nodes: 12, PoPs: 4, Loss: loss, Writes: 10, Measure: 10 * time.Second, Cut: 20 * time.Second, Kill: 1})
	}
}

// The whole of it takes a while: SELVAGE_MODEL=full, as make soak has it.
func TestLargeFleet(t *testing.T) {
	if os.Getenv("SELVAGE_MODEL") != "full" {
		t.Skip("300 nodes: set SELVAGE_MODEL=full")
	}
	for _, loss := range []float64{0, 0.1, 0.3} {
		for _, cut := range []time.Duration{20 * time.Second, 2 * time.Minute, 10 * time.Minute} {
			f := model(t, Plan{Nodes: 300, PoPs: 30, Loss: loss, Writes: 100, Measure: 20 * time.Second, Cut: cut, Kill: 10})
			if loss == 0 && (f.P50 > 150*time.Millisecond || f.P99 > time.Second || f.Bytes > 60_000) {
				t.Errorf("p50 %v, p99 %v, %.0f bytes a second and node: want at most 150 ms, 1 s, 60,000", f.P50, f.P99, f.Bytes)
			}
		}
	}
}
