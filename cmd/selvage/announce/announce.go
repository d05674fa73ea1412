// Package announce tells a BGP speaker whether a node is to have the traffic of
// its anycast addresses: it watches the node's readiness and calls a hook on changes.
package announce

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/selvage-edge/selvage/runtime/plain"
)

// Hook announces or withdraws; why says what was found. An error is told, and the
// hook is called again with the next check.
type Hook func(ctx context.Context, up bool, why string) error

// Config says what is watched. All of it must be set.
type Config struct {
	Check    func(ctx context.Context) error // nil: ready; ErrDraining, wrapped: not any more, on purpose
	Tell     Hook
	Say      func(format string, args ...any) // remarks
	Interval time.Duration                    // between checks; a check may take as long
	Rise     int                              // checks in a row that find it ready before it is announced
	Fall     int                              // and that do not before it is withdrawn; a node that drains is at once
}

// ErrDraining is what a check finds of a node that was told to drain.
var ErrDraining = errors.New("draining")

// lastWord bounds the hook's call when the watch ends.
const lastWord = 10 * time.Second

// Run withdraws, so that nothing stays of a watch before, then watches until ctx
// ends, and withdraws.
func Run(ctx context.Context, c Config) error {
	w := watch{Config: c}
	w.turn(ctx, false, "it was not looked at yet")
	tick := time.NewTicker(c.Interval)
	defer tick.Stop()
	for {
		w.look(ctx)
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWord)
			defer cancel()
			w.wanted = false
			return c.Tell(last, false, "the watch ends")
		case <-tick.C:
		}
	}
}

// watch is a Run under way.
type watch struct {
	Config
	wanted bool
	owed   bool // the hook failed: it is called again
	run    int  // checks in a row that found the contrary of wanted
}

func (w *watch) look(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, w.Interval)
	err := w.Check(limited)
	cancel()
	if ctx.Err() != nil {
		return
	}
	up, why := err == nil, "it is ready"
	if err != nil {
		why = err.Error()
	}
	if up == w.wanted {
		w.run = 0
		if w.owed {
			w.turn(ctx, up, why)
		}
		return
	}
	w.run++
	if enough := map[bool]int{true: w.Rise, false: w.Fall}[up]; w.run >= enough || errors.Is(err, ErrDraining) {
		w.turn(ctx, up, why)
	}
}

// turn calls the hook.
func (w *watch) turn(ctx context.Context, up bool, why string) {
	w.wanted, w.run, w.owed = up, 0, false
	w.Say("%s: %s", word(up), why)
	if err := w.Tell(ctx, up, why); err != nil {
		w.owed = true
		w.Say("the hook failed, and is called again: %v", err)
	}
}

func word(up bool) string {
	if up {
		return "announce"
	}
	return "withdraw"
}

// Ready returns a check of the node with that admin address, host:port: /readyz.
func Ready(admin string) func(ctx context.Context) error {
	cl := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // an upgraded node answers on another connection
	return func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/readyz", nil)
		if err != nil {
			return err
		}
		resp, err := cl.Do(r)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(io.LimitReader(resp.Body, 200))
		if err != nil {
			return err
		}
		said := plain.Line(strings.TrimSpace(string(text)), len(text))
		switch {
		case resp.StatusCode == http.StatusOK:
			return nil
		case said == ErrDraining.Error():
			return ErrDraining
		}
		return fmt.Errorf("%s: %s", resp.Status, said)
	}
}
