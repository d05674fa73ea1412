package load_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/bench/load"
	"github.com/selvage-edge/selvage/edge/listen"
	"github.com/selvage-edge/selvage/edge/listen/listentest"
)

var protocols = []load.Protocol{load.H1, load.H2, load.H3}

// against returns a configuration for a server with that handler.
func against(t testing.TB, p load.Protocol, h http.HandlerFunc) load.Config {
	t.Helper()
	store, client := listentest.Certificates(t, "node.example")
	sockets := listentest.Open(t)
	listentest.Start(t, sockets, listen.Config{Certificate: store.Get, Handler: h, Linger: 50 * time.Millisecond})
	return load.Config{URL: "https://node.example/x?y=1", Address: sockets.Addr(), Protocol: p, TLS: client}
}

func TestClosedLoop(t *testing.T) {
	for _, p := range protocols {
		t.Run(string(p), func(t *testing.T) {
			var asked atomic.Int64
			var most, now atomic.Int64
			cfg := against(t, p, func(w http.ResponseWriter, r *http.Request) {
				if n := now.Add(1); n > most.Load() {
					most.Store(n)
				}
				defer now.Add(-1)
				asked.Add(1)
				body, _ := io.ReadAll(r.Body)
				fmt.Fprintf(w, "%s %s %s %s %s", r.Proto, r.Method, r.URL.RequestURI(), r.Header.Get("X-A"), body)
			})
			cfg.Method, cfg.Body, cfg.Header = "POST", []byte("body"), http.Header{"X-A": {"b"}}
			cfg.Requests, cfg.Connections, cfg.Workers = 200, 2, 6
			cfg.Check = func(_ int, body []byte) error {
				if !bytes.HasSuffix(body, []byte(" POST /x?y=1 b body")) {
					return fmt.Errorf("answered %q", body)
				}
				return nil
			}
			r, err := load.Run(listentest.Context(t), cfg)
			if err != nil || r.OK != 200 || r.Failed != 0 || r.Statuses[200] != 200 || asked.Load() != 200 {
				t.Fatalf("%v, %v, %d asked", &r, err, asked.Load())
			}
			if r.Latency.Count() != 200 || r.Service.Max() == 0 || r.Rate() <= 0 || most.Load() > 6 {
				t.Errorf("%v, at most %d at once", &r, most.Load())
			}
		})
	}
}

// TestNoCoordinatedOmission stops the server for a while. In a closed loop one
// request is slow; at a fixed rate all those that were due meanwhile are.
func TestNoCoordinatedOmission(t *testing.T) {
	const stall = 200 * time.Millisecond
	var n atomic.Int64
	var all sync.RWMutex
	cfg := against(t, load.H1, func(http.ResponseWriter, *http.Request) {
		if n.Add(1) == 20 {
			all.Lock()
			time.Sleep(stall) // what is measured
			all.Unlock()
		}
		all.RLock()
		defer all.RUnlock()
	})
	cfg.Rate, cfg.Requests, cfg.Connections = 500, 200, 1
	r, err := load.Run(listentest.Context(t), cfg)
	if err != nil || r.Failed > 0 {
		t.Fatal(&r, err)
	}
	if got := r.Latency.Quantile(.75); got < stall/10 {
		t.Errorf("latency p75 %v: requests that waited for the connection were forgotten", got)
	}
	if got := r.Service.Quantile(.75); got > stall/2 {
		t.Errorf("service p75 %v: it should not contain the waiting", got)
	}
}

func TestRateAndWarmup(t *testing.T) {
	var asked atomic.Int64
	cfg := against(t, load.H2, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	cfg.Rate, cfg.Poisson, cfg.Seed, cfg.Workers = 1000, true, 1, 32
	cfg.Warmup, cfg.Duration = 100*time.Millisecond, 300*time.Millisecond
	r, err := load.Run(listentest.Context(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if r.OK < 240 || r.OK > 360 || uint64(asked.Load()) <= r.OK {
		t.Errorf("%d counted of %d asked, want about 300 of 400", r.OK, asked.Load())
	}
}

func TestFailures(t *testing.T) {
	for _, p := range protocols {
		t.Run(string(p), func(t *testing.T) {
			var n atomic.Int64
			cfg := against(t, p, func(w http.ResponseWriter, _ *http.Request) {
				switch n.Add(1) % 3 {
				case 0:
					w.WriteHeader(http.StatusInternalServerError)
				case 1:
					w.Header().Set("Content-Length", "10")
					_, _ = io.WriteString(w, "half")
					_ = http.NewResponseController(w).Flush()
					panic(http.ErrAbortHandler)
				}
			})
			cfg.Requests, cfg.Connections = 30, 1
			r, err := load.Run(listentest.Context(t), cfg)
			if err != nil || r.OK != 10 || r.Failed != 20 || r.Errors["status 500"] != 10 {
				t.Fatalf("%v, %v", &r, err)
			}
			if !strings.Contains(r.String(), "10 times: status 500") {
				t.Errorf("%v", &r)
			}
		})
	}
}

func TestTimeout(t *testing.T) {
	for _, p := range protocols {
		cfg := against(t, p, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		cfg.Requests, cfg.Connections, cfg.Timeout = 2, 1, 50*time.Millisecond
		r, err := load.Run(listentest.Context(t), cfg)
		if err != nil || r.Failed != 2 {
			t.Errorf("%s: %v, %v", p, &r, err)
		}
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancelCause(listentest.Context(t))
	cfg := against(t, load.H3, func(_ http.ResponseWriter, r *http.Request) {
		cancel(errors.New("enough"))
		<-r.Context().Done()
	})
	cfg.Duration, cfg.Connections = time.Hour, 1
	r, err := load.Run(ctx, cfg)
	if err != nil || r.OK+r.Failed != 0 {
		t.Errorf("%v, %v: what ctx cut off is not counted", &r, err)
	}
}

func TestValidate(t *testing.T) {
	_, err := load.Run(t.Context(), load.Config{URL: "http://a", Protocol: "h4", Rate: -1})
	for _, want := range []string{"URL", "Protocol", "Requests nor Duration", "Rate"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %s", err, want)
		}
	}
}

// BenchmarkBare is what the driver and the listener can do by themselves.
func BenchmarkBare(b *testing.B) {
	for _, p := range protocols {
		b.Run(string(p), func(b *testing.B) {
			cfg := against(b, p, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
			cfg.Requests, cfg.Connections, cfg.Workers = b.N, 8, 64
			r, err := load.Run(b.Context(), cfg)
			if err != nil || r.Failed > 0 {
				b.Fatal(&r, err)
			}
			b.ReportMetric(r.Rate(), "rps")
		})
	}
}
