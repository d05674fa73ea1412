package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
)

// row is one figure; the JSON names are stable from release to release.
type row struct {
	Name    string  `json:"name"`
	Value   float64 `json:"value"`
	Unit    string  `json:"unit"`
	Against string  `json:"against,omitempty"`
	Ratio   float64 `json:"ratio,omitempty"` // value over the other side's
	N       int     `json:"n"`
	goal    string
	met     bool
}

// atMost gives the row a goal, unless it is 0: value is at most so much.
func (r row) atMost(value, most float64, unit string) row {
	if most > 0 {
		r.goal, r.met = fmt.Sprintf("<= %g%s", most, unit), value <= most
	}
	return r
}

// table writes the rows for people.
func table(w io.Writer, rows []row) {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "ROW\tVALUE\tAGAINST\tRATIO\tGOAL\tN")
	for _, r := range rows {
		against, ratio, goal := "", "", r.goal
		if r.Against != "" {
			against, ratio = r.Against, fmt.Sprintf("%.3f", r.Ratio)
		}
		if goal != "" && !r.met {
			goal += "  MISSED"
		}
		fmt.Fprintf(t, "%s\t%.2f %s\t%s\t%s\t%s\t%d\n", r.Name, r.Value, r.Unit, against, ratio, goal, r.N)
	}
	_ = t.Flush() // standard output
}

// writeJSON writes each row as one line of path.
func writeJSON(path string, rows []row) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(f)
	for _, r := range rows {
		if err := enc.Encode(r); err != nil {
			f.Close()
			return err
		}
	}
	return f.Close()
}

// median returns the middle value; it sorts v.
func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}
