// Package route maps a host and a path to a target by an immutable table that
// is built whole and swapped whole.
package route

import (
	"errors"
	"fmt"
	"strings"
)

// Entry gives a target the requests of one pattern.
type Entry[T any] struct {
	Pattern string // see Pattern
	Owner   string // who wants it, for the message of a conflict: "project/function"
	Target  *T
}

// Table finds the target of a request. It never changes; it may be read by any
// number of goroutines.
type Table[T any] struct {
	exact map[string]*node[T] // by host
	wild  map[string]*node[T] // by ".example.com"
	any   *node[T]            // nil if no pattern has the host "*"
	size  int
}

// node is one place in a host's tree of path segments.
type node[T any] struct {
	children map[string]*node[T] // by segment, without slashes
	exact    *leaf[T]            // the path ends here
	subtree  *leaf[T]            // the path ends here or goes on
}

type leaf[T any] struct {
	target *T
	owner  string
}

// Build makes a table. Of several faults (a malformed pattern, the same pattern
// twice, no target) it reports every one, with the owners.
func Build[T any](entries []Entry[T]) (*Table[T], error) {
	t := &Table[T]{exact: map[string]*node[T]{}, wild: map[string]*node[T]{}}
	var faults []error
	for _, e := range entries {
		if err := t.add(e); err != nil {
			faults = append(faults, err)
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return t, nil
}

func (t *Table[T]) add(e Entry[T]) error {
	p, err := ParsePattern(e.Pattern)
	if err != nil {
		return fmt.Errorf("%s: %w", e.Owner, err)
	}
	if e.Target == nil {
		return fmt.Errorf("%s: route %q: no target", e.Owner, p)
	}
	n := t.root(p).descend(p.path)
	place := &n.exact
	if p.subtree {
		place = &n.subtree
	}
	if *place != nil {
		return fmt.Errorf("route %q: wanted by %s and by %s; change one of them", p, (*place).owner, e.Owner)
	}
	*place = &leaf[T]{e.Target, e.Owner}
	t.size++
	return nil
}

func (t *Table[T]) root(p Pattern) *node[T] {
	var m map[string]*node[T]
	switch p.any {
	case anyHost:
		if t.any == nil {
			t.any = &node[T]{}
		}
		return t.any
	case wildHost:
		m = t.wild
	default:
		m = t.exact
	}
	if m[p.host] == nil {
		m[p.host] = &node[T]{}
	}
	return m[p.host]
}

// descend returns the node of path, making those that are missing.
func (n *node[T]) descend(path string) *node[T] {
	for path != "" {
		var segment string
		segment, path = cutSegment(path)
		next := n.children[segment]
		if next == nil {
			if n.children == nil {
				n.children = map[string]*node[T]{}
			}
			next = &node[T]{}
			n.children[segment] = next
		}
		n = next
	}
	return n
}

// cutSegment cuts "/a/b" into "a" and "/b". The path begins with a slash.
func cutSegment(path string) (segment, rest string) {
	if i := strings.IndexByte(path[1:], '/'); i >= 0 {
		return path[1 : i+1], path[i+1:]
	}
	return path[1:], ""
}

// Lookup returns the target of the most specific pattern that wants a request
// with this canonical host and path (see package guard). The host decides first:
// exact, then the longest wildcard, then "*"; then the path: exact, then the
// longest that ends in "/*". A host whose paths do not match leaves the request
// to less specific hosts. It does not allocate.
func (t *Table[T]) Lookup(host, path string) (*T, bool) {
	if path == "" || path[0] != '/' {
		return nil, false
	}
	if n := t.exact[host]; n != nil {
		if target := n.find(path); target != nil {
			return target, true
		}
	}
	if len(t.wild) > 0 {
		if target := t.findWild(host, path); target != nil {
			return target, true
		}
	}
	if t.any != nil {
		if target := t.any.find(path); target != nil {
			return target, true
		}
	}
	return nil, false
}

// findWild tries the names above host, the longest first.
func (t *Table[T]) findWild(host, path string) *T {
	for i := 1; i < len(host); i++ {
		if host[i] != '.' {
			continue
		}
		if n := t.wild[host[i:]]; n != nil {
			if target := n.find(path); target != nil {
				return target
			}
		}
	}
	return nil
}

// find walks down as long as segments match, so that its cost is bounded by the
// table's depth and not by what a client sends.
func (n *node[T]) find(path string) *T {
	var best *leaf[T]
	for {
		if n.subtree != nil {
			best = n.subtree
		}
		if path == "" {
			if n.exact != nil {
				best = n.exact
			}
			break
		}
		var segment string
		segment, path = cutSegment(path)
		if n = n.children[segment]; n == nil {
			break
		}
	}
	if best == nil {
		return nil
	}
	return best.target
}

// Len is the number of patterns.
func (t *Table[T]) Len() int { return t.size }
