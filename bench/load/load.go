// Package load drives a node over HTTP/1.1, HTTP/2 or HTTP/3, at a fixed
// arrival rate or in a closed loop, and measures latency without coordinated
// omission: from when a request was due, not from when a connection was free.
package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// Protocol is an HTTP version to drive.
type Protocol string

// The protocols.
const (
	H1 Protocol = "h1"
	H2 Protocol = "h2"
	H3 Protocol = "h3"
)

// Config says what to send, how often, and for how long. URL and one of
// Requests and Duration must be set.
type Config struct {
	URL      string // https only
	Protocol Protocol
	Method   string // default GET
	Header   http.Header
	Body     []byte
	// Address is the host:port to connect to; default: the URL's.
	Address string
	// TLS is the base of the connections' configuration: RootCAs, ServerName.
	TLS *tls.Config

	Connections int // default 8
	// Workers is how many requests may be under way at once, over all
	// connections; at least Connections, the default. HTTP/1 has one on each.
	Workers int
	// Rate is how many requests are due each second, whatever the server does;
	// requests for which no worker is free wait, and their waiting counts. 0 is a
	// closed loop: each worker sends its next request when the last is answered.
	Rate float64
	// Poisson makes the arrivals random with that mean Rate, as independent
	// clients are; otherwise they are evenly spaced. Seed makes them repeatable.
	Poisson bool
	Seed    uint64

	Requests int           // stop after so many; 0: no bound
	Duration time.Duration // stop after this; 0: no bound
	Warmup   time.Duration // at the start; what is due then is sent but not counted
	Timeout  time.Duration // of one request; default 30 s

	// Check judges a complete answer; an error makes the request a failed one.
	// It must not keep body. Default: any status below 500 is good. With a Check
	// bodies are kept in memory until it ran.
	Check func(status int, body []byte) error
}

// Validate reports every fault of the configuration.
func (c *Config) Validate() error {
	var faults []error
	if u, err := url.Parse(c.URL); err != nil || u.Scheme != "https" || u.Host == "" {
		faults = append(faults, fmt.Errorf("load: URL %q: want https://host/path", c.URL))
	}
	if c.Protocol != H1 && c.Protocol != H2 && c.Protocol != H3 {
		faults = append(faults, fmt.Errorf("load: Protocol %q: want h1, h2 or h3", c.Protocol))
	}
	if c.Requests <= 0 && c.Duration <= 0 {
		faults = append(faults, errors.New("load: neither Requests nor Duration is set: it would never end"))
	}
	if c.Rate < 0 {
		faults = append(faults, fmt.Errorf("load: Rate %g is below zero", c.Rate))
	}
	return errors.Join(faults...)
}

func (c Config) withDefaults() Config {
	or(&c.Method, http.MethodGet)
	or(&c.Connections, 8)
	c.Workers = max(c.Workers, c.Connections)
	if c.Protocol == H1 {
		c.Connections = c.Workers
	}
	or(&c.Timeout, 30*time.Second)
	if c.Address == "" {
		u, _ := url.Parse(c.URL) // Validate has parsed it
		c.Address = net.JoinHostPort(u.Hostname(), u.Port())
		if u.Port() == "" {
			c.Address = net.JoinHostPort(u.Hostname(), "443")
		}
	}
	return c
}

func or[T comparable](field *T, def T) {
	var zero T
	if *field == zero {
		*field = def
	}
}

// Run sends the load and returns what came of it. It ends when the bound is
// reached or ctx ends; what is under way then is waited for, or cancelled with
// ctx and not counted. The error is the configuration's or the client's own:
// requests that fail are in the Result.
func Run(ctx context.Context, cfg Config) (Result, error) {
	if err := cfg.Validate(); err != nil {
		return Result{}, err
	}
	cfg = cfg.withDefaults()
	clients, closeAll, err := dialers(&cfg)
	if err != nil {
		return Result{}, err
	}
	defer closeAll()
	s := newSchedule(&cfg, time.Now())
	tallies := make([]tally, cfg.Workers)
	var workers sync.WaitGroup
	for i := range tallies {
		w := worker{cfg: &cfg, client: clients[i%len(clients)], schedule: s, tally: &tallies[i]}
		workers.Go(func() { w.run(ctx) })
	}
	workers.Wait()
	return collect(tallies, s.counted()), nil
}

// worker sends one request after the other.
type worker struct {
	cfg      *Config
	client   client
	schedule *schedule
	tally    *tally
}

func (w *worker) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		due, ok := w.schedule.next(time.Now())
		if !ok || !waitUntil(ctx, timer, due) {
			return
		}
		w.one(ctx, due)
	}
}

// one sends a request that was due at a time, and counts what came of it.
func (w *worker) one(ctx context.Context, due time.Time) {
	sent := time.Now()
	req, cancel := context.WithDeadline(ctx, sent.Add(w.cfg.Timeout))
	a, err := w.client.do(req)
	cancel()
	if err != nil && ctx.Err() != nil || due.Before(w.schedule.from) {
		return
	}
	if err == nil {
		err = w.check(a)
	}
	now := time.Now()
	w.tally.add(a, err, now.Sub(due), now.Sub(sent))
}

func (w *worker) check(a answer) error {
	if w.cfg.Check != nil {
		return w.cfg.Check(a.status, a.body)
	}
	if a.status >= http.StatusInternalServerError {
		return fmt.Errorf("status %d", a.status)
	}
	return nil
}

func waitUntil(ctx context.Context, timer *time.Timer, due time.Time) bool {
	d := time.Until(due)
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer.Reset(d)
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// schedule says when each request is due. In a closed loop that is now.
type schedule struct {
	interval time.Duration // 0: closed loop
	random   *rand.Rand    // nil: even intervals
	from     time.Time     // what is due earlier is warm-up
	until    time.Time     // zero: no bound
	mu       struct {
		sync.Mutex
		due  time.Time
		left int // -1: no bound
	}
}

func newSchedule(cfg *Config, start time.Time) *schedule {
	s := &schedule{from: start.Add(cfg.Warmup)}
	if cfg.Rate > 0 {
		s.interval = time.Duration(float64(time.Second) / cfg.Rate)
	}
	if cfg.Poisson {
		s.random = rand.New(rand.NewPCG(cfg.Seed, 0))
	}
	if cfg.Duration > 0 {
		s.until = s.from.Add(cfg.Duration)
	}
	s.mu.due, s.mu.left = start, -1
	if cfg.Requests > 0 {
		s.mu.left = cfg.Requests
	}
	return s
}

// next takes the next request off the schedule; false when there is none.
func (s *schedule) next(now time.Time) (due time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	due = now
	if s.interval > 0 {
		due = s.mu.due
		s.mu.due = due.Add(s.step())
	}
	if s.mu.left == 0 || !s.until.IsZero() && !due.Before(s.until) {
		return due, false
	}
	if s.mu.left > 0 && !due.Before(s.from) {
		s.mu.left--
	}
	return due, true
}

func (s *schedule) step() time.Duration {
	if s.random == nil {
		return s.interval
	}
	return time.Duration(s.random.ExpFloat64() * float64(s.interval))
}

// counted is how long requests have been counted.
func (s *schedule) counted() time.Duration { return time.Since(s.from) }
