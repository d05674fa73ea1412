package api

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/report"
)

// Control's clock is set an hour forward and back: tokens end while it says so, and count
// again; nodes that report are there again at their next report; who guesses is still slowed down.
func TestControlClockIsSet(t *testing.T) {
	var ahead atomic.Int64
	set := func(d time.Duration) { ahead.Store(int64(d)) }
	f := start(t, func(c *Config) { c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) } })
	var made TokenCreated
	f.want(http.StatusCreated, f.admin(http.MethodPost, "/v1/tokens", TokenRequest{Scopes: []identity.Scope{identity.ScopeRead}, Project: "default", Expires: time.Now().Add(30 * time.Minute)}), &made)
	n := f.node("n1", "lon")
	r := f.deploy("f", "", "code").Release
	away := func() bool {
		var all Fleet
		f.want(http.StatusOK, f.admin(http.MethodGet, "/v1/fleet", nil), &all)
		return len(all.Nodes) != 1 || all.Nodes[0].Away
	}
	for _, step := range []struct {
		off    time.Duration
		status int
	}{{0, 200}, {time.Hour, 401}, {0, 200}, {-time.Hour, 200}, {0, 200}} {
		set(step.off)
		if a := f.as(made.Token, http.MethodGet, "/v1/projects/default/functions", nil); a.StatusCode != step.status {
			t.Errorf("at %v the token gets %d", step.off, a.StatusCode)
		}
		f.report(n, "n1", "lon", r, report.Live)
		if away() {
			t.Errorf("at %v a node that reports is away", step.off)
		}
	}
	set(-time.Hour)
	refused := 0
	for range 3 * failuresBurst {
		if !f.api.limiter.mayFail("192.0.2.1") {
			refused++
		}
	}
	set(0)
	if refused < failuresBurst {
		t.Errorf("of %d guesses %d are refused with the clock set back", 3*failuresBurst, refused)
	}
}
