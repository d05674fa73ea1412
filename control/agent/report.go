package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/control/report"
	"github.com/selvage-edge/selvage/edge/kv"
)

// Times of reports.
const (
	reportTimeout = 10 * time.Second
	reportGather  = 50 * time.Millisecond // changes that come together go together
	reportRetry   = 500 * time.Millisecond
	reportBackoff = 30 * time.Second
)

// reporter tells control where this node is, with each change and now and
// then, until control has taken it. Only the newest state is ever sent.
type reporter struct {
	control Doer
	self    report.Report
	beat    time.Duration
	onEvent func(Event)
	orders  func(report.Orders)    // takes control's; nil: nobody does
	drains  func() bool            // whether this node drains; nil: it does not
	usage   func() []kv.SpaceUsage // nil: there is no KV
	copies  func() []report.Copy   // nil: there are none
	news    chan struct{}
	mu      struct {
		sync.Mutex
		at        catalog.Position
		functions []report.Function // not changed once set
	}
}

func newReporter(control Doer, self report.Report, beat time.Duration, onEvent func(Event)) *reporter {
	return &reporter{control: control, self: self, beat: beat, onEvent: onEvent, news: make(chan struct{}, 1)}
}

// set takes the state to report; it keeps functions.
func (r *reporter) set(at catalog.Position, functions []report.Function) {
	r.mu.Lock()
	r.mu.at, r.mu.functions = at, functions
	r.mu.Unlock()
	r.again()
}

// again has the state reported soon.
func (r *reporter) again() {
	select {
	case r.news <- struct{}{}:
	default:
	}
}

// run reports until ctx ends, or until it may not any more.
func (r *reporter) run(ctx context.Context, may func() bool) {
	wait := r.beat
	retry := reportRetry
	for ctx.Err() == nil {
		if !r.pause(ctx, wait, wait == r.beat) || !may() {
			return
		}
		if err := r.send(ctx); err != nil {
			if ctx.Err() == nil {
				r.onEvent(Event{Kind: Unreported, Err: err})
			}
			wait = retry/2 + rand.N(retry)
			retry = min(2*retry, reportBackoff)
			continue
		}
		wait, retry = r.beat, reportRetry
	}
}

// pause waits; news end it early, but not while control is being spared.
func (r *reporter) pause(ctx context.Context, d time.Duration, news bool) bool {
	wake := r.news
	if !news {
		wake = nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	case <-wake:
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(reportGather):
		return true
	}
}

func (r *reporter) send(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	b, err := json.Marshal(r.compose())
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, report.Path, bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := r.control.Do(req)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("report: %w", refusal(resp))
	}
	var o report.Orders
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&o); err != nil {
		return fmt.Errorf("report: the answer: %w", err)
	}
	if r.orders != nil {
		r.orders(o)
	}
	return nil
}

func (r *reporter) compose() report.Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.self
	out.At = time.Now()
	out.Epoch, out.Revision = r.mu.at.Epoch, r.mu.at.Revision
	out.Functions = r.mu.functions
	out.Draining = r.drains != nil && r.drains()
	if r.usage != nil {
		out.KV = report.SpacesOf(r.usage())
	}
	if r.copies != nil {
		out.Copies = r.copies()
	}
	return out
}
