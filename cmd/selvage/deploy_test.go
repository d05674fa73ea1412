package main

import (
	"bytes"
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
		var said bytes.Buffer
		out := &term.Out{Stdout: io.Discard, Stderr: &said}
		s, err := await(t.Context(), out, stuck{}, "default", "hello", 1, time.Minute)
		if err == nil || !strings.Contains(err.Error(), "within 1m0s") {
			t.Errorf("error %v", err)
		}
		if n := nodesOf(s); len(n) != 1 || n[0].Why != "control answered 507" {
			t.Errorf("nodes %+v", n)
		}
		if lines := strings.Count(said.String(), "live on 0 of 1 nodes; lon-1 fetching\n"); lines < 5 || lines > 7 {
			t.Errorf("in a minute it was said %d times how far it is:\n%s", lines, &said)
		}
	})
}

// What is printed of a route can be opened.
func TestURLOfRoute(t *testing.T) {
	for route, want := range map[string]string{
		"a.example.com/*": "https://a.example.com:8443/", "a.example.com/status": "https://a.example.com:8443/status",
		"a.example.com/api/*": "https://a.example.com:8443/api/", "*/*": "", "*.example.com/*": "",
	} {
		if got := urlOf(route, "8443"); got != want {
			t.Errorf("%s: %q, want %q", route, got, want)
		}
	}
	if got := urlOf("a.example.com/*", "443"); got != "https://a.example.com/" {
		t.Errorf("%q", got)
	}
}
