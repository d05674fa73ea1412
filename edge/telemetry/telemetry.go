// Package telemetry makes one record and one set of counters of each exchange.
package telemetry

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Config wires a Telemetry.
type Config struct {
	Place Place
	// Log gets a record of each exchange; nil: nobody does. A *Log is one.
	Log Recorder
	// Tracer makes spans of exchanges; nil: there are none.
	Tracer *Tracer
	// Functions bounds how many functions have series of their own; the others
	// share one, named "other". Default 2,000.
	Functions int
}

// Telemetry observes exchanges and serves the metrics. Use New.
type Telemetry struct {
	cfg      Config
	registry *prometheus.Registry
	handler  http.Handler
	exchange *series
	said     metricList
}

var _ http.Handler = (*Telemetry)(nil)

// New returns a Telemetry with a registry of its own, which also has the
// process's and the Go runtime's metrics.
func New(cfg Config) *Telemetry {
	if cfg.Functions <= 0 {
		cfg.Functions = 2000
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	t := &Telemetry{
		cfg:      cfg,
		registry: registry,
		handler:  promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
	}
	t.exchange = newSeries(registry, &t.said, cfg.Place.PoP, cfg.Functions)
	return t
}

// Begin starts the span of an exchange that began then; nil, and nothing is done,
// where nothing is traced. End it.
func (t *Telemetry) Begin(r *http.Request, at time.Time) *Span {
	if t.cfg.Tracer == nil {
		return nil
	}
	return t.cfg.Tracer.begin(r, at)
}

// End finishes an exchange: its span, its record, its counters.
func (t *Telemetry) End(s *Span, r *Record) {
	r.TraceID = s.TraceID()
	s.end(r)
	t.Observe(r)
}

// Observe counts and logs one exchange. It does not keep r.
func (t *Telemetry) Observe(r *Record) {
	t.exchange.observe(r)
	if t.cfg.Log != nil {
		t.cfg.Log.Record(r)
	}
}

// ServeHTTP serves the metrics in the Prometheus text format.
func (t *Telemetry) ServeHTTP(w http.ResponseWriter, r *http.Request) { t.handler.ServeHTTP(w, r) }

// Gauge shows a value that another room can tell at any time, under the name
// "selvage_" + name. It panics if the name is taken or malformed.
func (t *Telemetry) Gauge(name, help string, value func() float64) {
	t.registry.MustRegister(prometheus.NewGaugeFunc(t.opts(name, help), value))
	t.said.add(Metric{namespace + "_" + name, "gauge", []string{"pop"}, help})
}

// Counter is Gauge for a value that only grows.
func (t *Telemetry) Counter(name, help string, value func() float64) {
	o := t.opts(name, help)
	t.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts(o), value))
	t.said.add(Metric{namespace + "_" + name, "counter", []string{"pop"}, help})
}

func (t *Telemetry) opts(name, help string) prometheus.GaugeOpts {
	return prometheus.GaugeOpts{
		Namespace:   namespace,
		Name:        name,
		Help:        help,
		ConstLabels: prometheus.Labels{"pop": t.cfg.Place.PoP},
	}
}
