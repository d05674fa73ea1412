package catalog

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/selvage-edge/selvage/edge/route"
	"github.com/selvage-edge/selvage/runtime/function"
)

// Snapshot is the catalog at one position: immutable. Do not change what its
// methods return.
type Snapshot struct {
	pos     Position
	signed  uint64 // the epoch of the newest record
	entries map[string]entry
	*view
}

type entry struct {
	record *Record
	raw    []byte // as signed
}

// view is what is worked out from the entries once.
type view struct {
	releases   []Release
	namespaces []Namespace
	routes     map[string]owner
	bound      map[string]holders // by namespaceKey
	blobs      func() map[function.Digest]holders
}

type owner struct {
	pattern route.Pattern
	id      function.ID
}

func empty() *Snapshot {
	return &Snapshot{entries: map[string]entry{}, view: newView(nil)}
}

func (s *Snapshot) cloneEntries(more int) map[string]entry {
	c := make(map[string]entry, len(s.entries)+more)
	maps.Copy(c, s.entries)
	return c
}

func newView(entries map[string]entry) *view {
	v := &view{routes: map[string]owner{}, bound: map[string]holders{}}
	for _, e := range byRevision(entries) {
		switch r := e.record; {
		case r.Release != nil && !r.Release.Removed:
			v.takeRelease(r.Release)
		case r.Namespace != nil && !r.Namespace.Removed:
			v.namespaces = append(v.namespaces, *r.Namespace)
		}
	}
	v.blobs = sync.OnceValue(v.named)
	slices.SortFunc(v.releases, func(a, b Release) int {
		return cmp.Or(strings.Compare(a.Project, b.Project), strings.Compare(a.Function, b.Function))
	})
	slices.SortFunc(v.namespaces, func(a, b Namespace) int {
		return cmp.Or(strings.Compare(a.Project, b.Project), strings.Compare(a.Name, b.Name))
	})
	return v
}

func (v *view) named() map[function.Digest]holders {
	blobs := make(map[function.Digest]holders, 2*len(v.releases))
	for i := range v.releases {
		r := &v.releases[i]
		for _, d := range []function.Digest{r.Code, r.Image} {
			blobs[d] = blobs[d].and(r.Placement, false)
		}
	}
	return blobs
}

func byRevision(entries map[string]entry) []entry {
	return slices.SortedFunc(maps.Values(entries), func(a, b entry) int {
		return cmp.Compare(a.record.Revision, b.record.Revision)
	})
}

// takeRelease is called in order of revision: the newest has a route (see the package's text).
func (v *view) takeRelease(r *Release) {
	v.releases = append(v.releases, *r)
	for _, s := range r.Routes {
		if p, err := route.ParsePattern(s); err == nil { // was checked by Validate
			v.routes[s] = owner{p, r.ID()}
		}
	}
	for _, k := range r.Bindings.KV {
		key := namespaceKey(r.Project, k.Namespace)
		v.bound[key] = v.bound[key].and(r.Placement, k.Write)
	}
}

// Position returns where in the order the snapshot stands.
func (s *Snapshot) Position() Position { return s.pos }

// Release returns the function's newest record, also a removed one.
func (s *Snapshot) Release(id function.ID) (Release, bool) {
	e, ok := s.entries[releaseKey(id.Project, id.Name)]
	if !ok {
		return Release{}, false
	}
	return *e.record.Release, true
}

// ReleasePosition returns the position of the function's newest record; zero if there is none.
func (s *Snapshot) ReleasePosition(id function.ID) Position {
	if e, ok := s.entries[releaseKey(id.Project, id.Name)]; ok {
		return e.record.Position
	}
	return Position{}
}

// Releases returns all live releases, by project and function.
func (s *Snapshot) Releases() []Release { return s.releases }

// Names reports whether a live release that a node with these labels may hold
// has d as its code or image.
func (s *Snapshot) Names(d function.Digest, by function.Labels) bool {
	return s.blobs()[d].has(by, false)
}

// Namespace returns a live namespace.
func (s *Snapshot) Namespace(project, name string) (Namespace, bool) {
	e, ok := s.entries[namespaceKey(project, name)]
	if !ok || e.record.Namespace.Removed {
		return Namespace{}, false
	}
	return *e.record.Namespace, true
}

// Namespaces returns all live namespaces, by project and name.
func (s *Snapshot) Namespaces() []Namespace { return s.namespaces }

// Binds reports whether some live release that a node with these labels may hold
// binds the namespace (with write access, if write).
func (s *Snapshot) Binds(project, namespace string, write bool, by function.Labels) bool {
	return s.bound[namespaceKey(project, namespace)].has(by, write)
}

// Bound returns the live namespaces that a node with these labels may hold,
// because some live release that it may hold binds them.
func (s *Snapshot) Bound(by function.Labels) []Namespace {
	var list []Namespace
	for _, n := range s.namespaces {
		if s.Binds(n.Project, n.Name, false, by) {
			list = append(list, n)
		}
	}
	return list
}

// Route is one route and who holds it.
type Route struct {
	Pattern string
	Owner   function.ID
}

// Routes returns all routes, by pattern: each has one owner.
func (s *Snapshot) Routes() []Route {
	list := make([]Route, 0, len(s.routes))
	for _, pattern := range slices.Sorted(maps.Keys(s.routes)) {
		list = append(list, Route{pattern, s.routes[pattern].id})
	}
	return list
}

// RouteOwner returns the function that holds a canonical pattern.
func (s *Snapshot) RouteOwner(pattern string) (function.ID, bool) {
	o, ok := s.routes[pattern]
	return o.id, ok
}

// RouteTaken says who holds a route.
type RouteTaken struct {
	Route string      // what was asked for
	Held  string      // what is held: the same route, or another project's that overlaps
	Owner function.ID // by whom
}

func (e *RouteTaken) Error() string {
	if e.Route == e.Held {
		return fmt.Sprintf("route %q belongs to function %s; release that without it first", e.Route, e.Owner)
	}
	return fmt.Sprintf("route %q overlaps %q, which belongs to function %s of another project", e.Route, e.Held, e.Owner)
}

// Admit reports why control must not sign r now: each route another function
// holds (*RouteTaken), a binding to a namespace that is not there, a number that
// does not follow, a namespace removed while it is bound. All reasons are joined. The position is not looked at.
func (s *Snapshot) Admit(r *Record) error {
	switch {
	case r.Release != nil:
		return s.admitRelease(r.Release)
	case r.Namespace != nil && r.Namespace.Removed:
		return s.admitRemoval(r.Namespace)
	}
	return nil
}

func (s *Snapshot) admitRelease(r *Release) error {
	last, known := s.Release(r.ID())
	var errs []error
	if r.Number != last.Number+1 {
		errs = append(errs, fmt.Errorf("release %d of %s: the next is %d; someone else released meanwhile", r.Number, r.ID(), last.Number+1))
	}
	if r.Removed && (!known || last.Removed) {
		errs = append(errs, fmt.Errorf("function %s: there is none to remove", r.ID()))
	}
	for _, pattern := range r.Routes {
		if err := s.admitRoute(pattern, r.ID()); err != nil {
			errs = append(errs, err)
		}
	}
	for _, k := range r.Bindings.KV {
		if _, ok := s.Namespace(r.Project, k.Namespace); !ok {
			errs = append(errs, fmt.Errorf("kv %q: project %s has no namespace %q; create it first", k.Name, r.Project, k.Namespace))
		}
	}
	return errors.Join(errs...)
}

// admitRoute refuses a route that another function holds, and one that overlaps
// another project's: within a project the more specific of two wins, but nobody
// takes part of a host from a stranger. Routes of every host ("*/...") claim no host.
func (s *Snapshot) admitRoute(pattern string, id function.ID) error {
	if o, ok := s.routes[pattern]; ok {
		if o.id != id {
			return &RouteTaken{pattern, pattern, o.id}
		}
		return nil
	}
	p, err := route.ParsePattern(pattern)
	if err != nil {
		return err
	}
	if everyHost(pattern) {
		return nil
	}
	for _, held := range slices.Sorted(maps.Keys(s.routes)) {
		o := s.routes[held]
		if o.id.Project != id.Project && !everyHost(held) && p.Overlap(o.pattern) {
			return &RouteTaken{pattern, held, o.id}
		}
	}
	return nil
}

func everyHost(pattern string) bool { return strings.HasPrefix(pattern, "*/") }

func (s *Snapshot) admitRemoval(n *Namespace) error {
	if _, ok := s.Namespace(n.Project, n.Name); !ok {
		return fmt.Errorf("namespace %s/%s: there is none to remove", n.Project, n.Name)
	}
	var errs []error
	for _, r := range s.releases {
		binds := func(k function.KVBinding) bool { return k.Namespace == n.Name }
		if r.Project == n.Project && slices.ContainsFunc(r.Bindings.KV, binds) {
			errs = append(errs, fmt.Errorf("namespace %s/%s: function %s binds it; release that without the binding first", n.Project, n.Name, r.ID()))
		}
	}
	return errors.Join(errs...)
}
