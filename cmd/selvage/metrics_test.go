package main

import (
	"bufio"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/selvage-edge/selvage/cmd/selvage/controlnode"
	"github.com/selvage-edge/selvage/cmd/selvage/node"
	"github.com/selvage-edge/selvage/cmd/selvage/request"
	"github.com/selvage-edge/selvage/edge/telemetry"
)

// scraped is one metric as a node serves it.
type scraped struct {
	kind, help string
	labels     map[string]bool
}

var sampleForm = regexp.MustCompile(`^([a-z_0-9]+)(?:\{(.*)\})? \S+$`)
var labelForm = regexp.MustCompile(`([a-z_]+)="`)

// scrape reads what an admin port serves of our own.
func scrape(t *testing.T, admin string) map[string]*scraped {
	t.Helper()
	resp, err := http.Get("http://" + admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	all := map[string]*scraped{}
	of := func(name string) *scraped {
		if all[name] == nil {
			all[name] = &scraped{labels: map[string]bool{}}
		}
		return all[name]
	}
	for in := bufio.NewScanner(resp.Body); in.Scan(); {
		line := in.Text()
		if f := strings.SplitN(line, " ", 4); len(f) == 4 && f[0] == "#" && strings.HasPrefix(f[2], "selvage_") {
			switch f[1] {
			case "TYPE":
				of(f[2]).kind = f[3]
			case "HELP":
				of(f[2]).help = f[3]
			}
		}
		if m := sampleForm.FindStringSubmatch(line); m != nil && strings.HasPrefix(m[1], "selvage_") {
			name := m[1]
			if all[name] == nil {
				name = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count")
			}
			for _, l := range labelForm.FindAllStringSubmatch(m[2], -1) {
				if l[1] != "le" {
					of(name).labels[l[1]] = true
				}
			}
		}
	}
	return all
}

// metricTables holds the tables of the reference against what nodes serve: nothing is
// served that is not in it, and nothing is in it that is not served.
func (w *world) metricTables(t *testing.T) {
	w.get(t, request.HTTP2, "good", "/")
	w.get(t, request.HTTP2, "nothing-here", "/") // refused
	for admin, table := range map[string][]telemetry.Metric{w.Layout.Edges[0].Admin: node.Metrics(), w.Layout.Control.Admin: controlnode.Metrics()} {
		served := scrape(t, admin)
		for _, m := range table {
			s := served[m.Name]
			delete(served, m.Name)
			if s == nil {
				if m.Name != "selvage_faults_total" && m.Name != "selvage_refused_calls_total" { // have their first series with the first failure
					t.Errorf("%s is in the table and not served", m.Name)
				}
				continue
			}
			want := slices.Sorted(slices.Values(m.Labels))
			if got := slices.Sorted(maps.Keys(s.labels)); s.kind != m.Type || s.help != m.Help || !slices.Equal(got, want) {
				t.Errorf("%s: served as %+v, in the table as %+v", m.Name, s, m)
			}
		}
		for name := range served {
			t.Errorf("%s is served and not in the table", name)
		}
	}
}

// What README says to watch is there to be watched.
func TestReadmeNamesMetricsThatExist(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, m := range append(node.Metrics(), controlnode.Metrics()...) {
		known[m.Name] = true
	}
	names := regexp.MustCompile(`selvage_[a-z_]+`).FindAllString(string(text), -1)
	if len(names) < 8 {
		t.Errorf("README names %d metrics: %q", len(names), names)
	}
	for _, n := range names {
		base := strings.TrimSuffix(strings.TrimSuffix(n, "_bucket"), "_count")
		if !known[n] && !known[base] {
			t.Errorf("README names %s, which is not served", n)
		}
	}
}
