package telemetry

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Metric describes one metric, for the reference.
type Metric struct {
	Name   string
	Type   string // counter, gauge or histogram
	Labels []string
	Help   string
}

// metricList are those that were registered.
type metricList struct{ all []Metric }

func (m *metricList) add(one Metric) { m.all = append(m.all, one) }

// Metrics lists the metrics that are served, besides those of the Go runtime (go_)
// and the process (process_), by name.
func (t *Telemetry) Metrics() []Metric {
	all := slices.Clone(t.said.all)
	slices.SortFunc(all, func(a, b Metric) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// WriteMetrics writes a table of metrics.
func WriteMetrics(w io.Writer, all []Metric) {
	fmt.Fprint(w, "| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, m := range all {
		fmt.Fprintf(w, "| `%s` | %s | %s | %s |\n", m.Name, m.Type, strings.Join(m.Labels, ", "), m.Help)
	}
}
