package main

import (
	"context"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selvage-edge/selvage/cmd/selvage/term"
	"github.com/selvage-edge/selvage/control/api"
	"github.com/selvage-edge/selvage/control/report"
)

// stuck is a fleet in which one node never gets there.
type stuck struct{}

func (stuck) Status(ctx context.Context, _, _ string, _ uint64, tag string, wait time.Duration) (api.Status, error) {
	if tag != "" {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return api.Status{}, ctx.Err()
		}
	}
	return api.Status{Pending: 1, Tag: "t", PoPs: []api.PoPStatus{{PoP: "lon", Nodes: []api.NodeStatus{
		{Node: "lon-1", State: report.Fetching, Why: "control answered 507"}}}}}, nil
}

// When time is up, what each node said so far is still told.
func TestAwaitTellsHowFarItCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &term.Out{JSON: true, Stdout: io.Discard, Stderr: io.Discard}
		s, err := await(t.Context(), out, stuck{}, "default", "hello", 1, time.Minute)
		if err == nil || !strings.Contains(err.Error(), "within 1m0s") {
			t.Errorf("error %v", err)
		}
		if n := nodesOf(s); len(n) != 1 || n[0].Why != "control answered 507" {
			t.Errorf("nodes %+v", n)
		}
	})
}
