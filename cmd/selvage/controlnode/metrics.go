package controlnode

import (
	"io"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/selvage-edge/selvage/edge/telemetry"
)

// metric is one figure of a control node.
type metric struct {
	name, kind, help string
	value            func() float64
}

// Metrics lists the metrics of a control node.
func Metrics() []telemetry.Metric {
	var all []telemetry.Metric
	for _, m := range new(control).metrics() { // values are asked for by a scrape only
		all = append(all, telemetry.Metric{Name: "selvage_control_" + m.name, Type: m.kind, Help: m.help})
	}
	return all
}

func (c *control) metrics() []metric {
	return []metric{
		{"blobs_total", "counter", "Codes and images that nodes asked for.", func() float64 { return float64(c.blobs.Load()) }},
		{"catalog_revision", "gauge", "Revision of the catalog.", func() float64 { return float64(c.api.Head().Revision) }},
		{"failures", "gauge", "Functions that cannot run on a node, added up over the nodes that are there.", func() float64 { return float64(c.api.Counts().Failed) }},
		{"members_alive", "gauge", "Members of the fleet that are alive.", func() float64 { return float64(c.gossip.Stats().Alive) }},
		{"nodes", "gauge", "Nodes that are known.", func() float64 { return float64(c.api.Counts().Nodes) }},
		{"nodes_away", "gauge", "Nodes that are not heard of.", func() float64 { return float64(c.api.Counts().Away) }},
		{"nodes_behind", "gauge", "Nodes that are there and whose catalog is older than control's.", func() float64 { return float64(c.api.Counts().Behind) }},
		{"nodes_draining", "gauge", "Nodes that say that they drain.", func() float64 { return float64(c.api.Counts().Draining) }},
		{"streams", "gauge", "Change streams open.", func() float64 { return float64(c.api.Changes().Stats().Streams) }},
	}
}

func (c *control) adminHandler() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, m := range c.metrics() {
		o := prometheus.Opts{Namespace: "selvage", Subsystem: "control", Name: m.name, Help: m.help}
		if m.kind == "counter" {
			reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts(o), m.value))
		} else {
			reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts(o), m.value))
		}
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	return mux
}
