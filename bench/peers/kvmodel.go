package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/selvage-edge/selvage/bench/fleet"
)

// The kv rows of the model: 300 nodes in virtual time, so that the machine's speed is not in them.
const (
	modelP50   = 150 // ms, at most
	modelP99   = 1000
	modelBytes = 60_000 // a second and node, at most
	modelMost  = 10 * time.Minute
)

// modelRows has a test of bench/fleet do the work, for only a test has virtual time.
func modelRows(ctx context.Context, s size) ([]row, error) {
	dir, err := os.MkdirTemp("", "selvage-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "figures.json")
	ctx, cancel := context.WithTimeout(ctx, modelMost)
	defer cancel()
	args := []string{"test", "-count", "1", "-timeout", modelMost.String(), "-v", "-run", "TestFigures", "./bench/fleet"}
	if s.rounds < full.rounds {
		args = append(args, "-short")
	}
	c := exec.CommandContext(ctx, "go", args...)
	c.Env = append(os.Environ(), fleet.FiguresFile+"="+file)
	if out, err := c.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go test ./bench/fleet: %w\n%s", err, out)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var f fleet.Figures
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, err
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return []row{
		row{Name: "kv/model-p50", Value: ms(f.P50), Unit: "ms", N: f.Samples}.atMost(ms(f.P50), modelP50, " ms"),
		row{Name: "kv/model-p99", Value: ms(f.P99), Unit: "ms", N: f.Samples}.atMost(ms(f.P99), modelP99, " ms"),
		row{Name: "kv/model-bytes", Value: f.Bytes, Unit: "bytes/s", N: f.Samples}.atMost(f.Bytes, modelBytes, ""),
	}, nil
}
