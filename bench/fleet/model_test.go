package fleet

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
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
	p.Seed, p.Log = seed(t), t.Logf
	t.Logf("SELVAGE_SEED=%d: %d nodes in %d PoPs, loss %.0f %%, cuts of %v, %d killed", p.Seed, p.Nodes, p.PoPs, 100*p.Loss, p.Cuts, p.Kill)
	defer debug.SetGCPercent(debug.SetGCPercent(300)) // a large fleet lives long: to look through it often is half of the work
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

var losses = []float64{0, 0.1, 0.3}

// A few PoPs, cut and healed, with nodes killed that others follow.
func TestSmallFleet(t *testing.T) {
	for _, loss := range losses {
		t.Run(fmt.Sprint("loss=", loss), func(t *testing.T) {
			model(t, Plan{Nodes: 30, PoPs: 10, Loss: loss, Writes: 20, Measure: 5 * time.Second, Cuts: []time.Duration{30 * time.Second}, Kill: 4})
		})
	}
}

// large is the fleet that the goals are of.
func large(loss float64) Plan {
	return Plan{Nodes: 300, PoPs: 30, Loss: loss, Writes: 100, Measure: 10 * time.Second}
}

// The whole of it takes minutes: SELVAGE_MODEL=full, as make soak has it.
func TestLargeFleet(t *testing.T) {
	if os.Getenv("SELVAGE_MODEL") != "full" {
		t.Skip("300 nodes, cut and killed: set SELVAGE_MODEL=full, as make soak does")
	}
	for _, loss := range losses {
		t.Run(fmt.Sprint("loss=", loss), func(t *testing.T) {
			p := large(loss)
			p.Cuts, p.Kill = []time.Duration{20 * time.Second, 2 * time.Minute, 10 * time.Minute}, 10
			model(t, p)
		})
	}
}

// The figures of make bench.
func TestFigures(t *testing.T) {
	file := os.Getenv(FiguresFile)
	if file == "" {
		t.Skip("300 nodes, to be measured: set " + FiguresFile + ", as make bench does")
	}
	p := large(0)
	if testing.Short() {
		p.Nodes, p.PoPs = 30, 10
	}
	text, err := json.Marshal(model(t, p))
	if err == nil {
		err = os.WriteFile(file, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
