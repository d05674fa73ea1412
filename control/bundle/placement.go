package bundle

import (
	"strings"

	"github.com/selvage-edge/selvage/runtime/function"
)

func readPlacement(t *table, p *function.Placement) {
	if t == nil {
		return
	}
	p.Residency = t.flag("residency")
	p.Include = t.labels("include", p.Residency)
	p.Exclude = t.labels("exclude", p.Residency)
	t.done()
	n := len(p.Include) + len(p.Exclude)
	switch {
	case n > function.MaxPlacement:
		t.r.fault(t.path, "%d labels; at most %d", n, function.MaxPlacement)
	case p.Residency && n == 0 && t.values["include"] == nil && t.values["exclude"] == nil:
		t.fault("residency", "pins the function nowhere: say where with include or exclude, such as include = [\"region=eu\"]")
	}
	for _, l := range p.Include {
		for _, not := range p.Exclude {
			if l == not {
				t.fault("exclude", "%q is in include too; leave one out", l)
			}
		}
	}
}

// labels reads a list of labels; pinned, only those that certificates prove.
func (t *table) labels(name string, pinned bool) (all []string) {
	list, keys := t.texts(name)
	for i, s := range list {
		label, err := function.ParseLabel(s)
		switch {
		case err != nil:
			t.r.fault(keys[i], "%s", strings.TrimPrefix(err.Error(), "label "))
		case pinned && !function.Proven(label):
			t.r.fault(keys[i], "%q: residency rests on what certificates prove: use pop, region or node, or leave residency out", label)
		default:
			all = append(all, label)
		}
	}
	return all
}
