package catalog

import "github.com/selvage-edge/selvage/runtime/function"

// holders say which nodes may hold what releases share: those that may hold one of
// them. The zero value is that no release has it.
type holders struct {
	read, write freedom
}

// freedom is any node, or those that one of the pins allows.
type freedom struct {
	any  bool
	pins []function.Placement
}

func (f freedom) and(p function.Placement) freedom {
	if f.any || !p.Residency {
		return freedom{any: true}
	}
	return freedom{pins: append(f.pins, p)}
}

func (f freedom) has(by function.Labels) bool {
	if f.any {
		return true
	}
	for _, p := range f.pins {
		if p.Allows(by) {
			return true
		}
	}
	return false
}

// and adds a release with that placement, which writes or only reads.
func (h holders) and(p function.Placement, writes bool) holders {
	h.read = h.read.and(p)
	if writes {
		h.write = h.write.and(p)
	}
	return h
}

func (h holders) has(by function.Labels, write bool) bool {
	if write {
		return h.write.has(by)
	}
	return h.read.has(by)
}
