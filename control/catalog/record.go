package catalog

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/edge/route"
	"github.com/selvage-edge/selvage/runtime/function"
)

// Position is a place in the catalog's order. Epochs compare first.
type Position struct {
	Epoch    uint64 `json:"epoch"`
	Revision uint64 `json:"revision"`
}

// Compare returns -1, 0 or +1.
func (p Position) Compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Epoch, q.Epoch), cmp.Compare(p.Revision, q.Revision))
}

// String returns "EPOCH/REVISION".
func (p Position) String() string { return fmt.Sprintf("%d/%d", p.Epoch, p.Revision) }

// Release makes one function version live, or says that the function is gone.
type Release struct {
	Project   string             `json:"project"`
	Function  string             `json:"function"`
	Number    uint64             `json:"number"` // counts the function's releases, removals too, from 1
	Bundle    function.Digest    `json:"bundle,omitempty"`
	Code      function.Digest    `json:"code,omitempty"`
	Image     function.Digest    `json:"image,omitempty"`
	Started   bool               `json:"started,omitempty"`
	Routes    []string           `json:"routes,omitempty"` // canonical patterns
	Limits    function.Limits    `json:"limits,omitzero"`
	Bindings  function.Bindings  `json:"bindings"`
	Placement function.Placement `json:"placement,omitzero"`
	Publisher identity.KeyID     `json:"publisher,omitempty"`
	CreatedAt time.Time          `json:"created_at"`
	Removed   bool               `json:"removed,omitempty"` // then only Project, Function, Number and CreatedAt are set
}

// ID returns the function's name.
func (r *Release) ID() function.ID { return function.ID{Project: r.Project, Name: r.Function} }

// Version returns what the runtime needs of the release, limits with defaults.
func (r *Release) Version() function.Version {
	return function.Version{
		ID: r.ID(), Digest: r.Bundle, Code: r.Code, Image: r.Image, Started: r.Started,
		Limits: r.Limits.WithDefaults(), Bindings: r.Bindings, Placement: r.Placement,
	}
}

// Mode is how nodes hold a namespace.
type Mode string

// The modes.
const (
	ModeCached     Mode = "cached"     // nodes keep what was read, made fresh by the namespace's change stream
	ModeReplicated Mode = "replicated" // nodes that use the namespace have all of it on disk
)

// Known reports whether this program knows the mode.
func (m Mode) Known() bool { return m == ModeCached || m == ModeReplicated }

// Namespace is a KV namespace of a project.
type Namespace struct {
	Project string `json:"project"`
	Name    string `json:"name"`
	Mode    Mode   `json:"mode"`
	// MaxStaleMS is how old an answer from a node's memory may be, in milliseconds; 0: any.
	MaxStaleMS int64     `json:"max_stale_ms,omitempty"`
	CreatedAt  time.Time `json:"created_at"`
	Removed    bool      `json:"removed,omitempty"`
}

// MaxStale is how old an answer from a node's memory may be; 0: any.
func (n *Namespace) MaxStale() time.Duration { return time.Duration(n.MaxStaleMS) * time.Millisecond }

// Bounds of MaxStale: below, what streams say of quiet namespaces would come too seldom.
const (
	MinMaxStale = 30 * time.Second
	MaxMaxStale = 365 * 24 * time.Hour
)

// Record is one entry of the catalog: exactly one of Release and Namespace is
// set. The position is the one it has in the log.
type Record struct {
	Position
	Release   *Release   `json:"release,omitempty"`
	Namespace *Namespace `json:"namespace,omitempty"`
}

// Key names what the record is about; a later record with the same key replaces
// it. "release/PROJECT/FUNCTION" or "namespace/PROJECT/NAME".
func (r *Record) Key() string {
	switch {
	case r.Release != nil:
		return releaseKey(r.Release.Project, r.Release.Function)
	case r.Namespace != nil:
		return namespaceKey(r.Namespace.Project, r.Namespace.Name)
	}
	return ""
}

func releaseKey(project, name string) string   { return "release/" + project + "/" + name }
func namespaceKey(project, name string) string { return "namespace/" + project + "/" + name }

// Validate reports every fault of the record's form.
func (r *Record) Validate() error {
	var errs []error
	if r.Epoch == 0 || r.Revision == 0 {
		errs = append(errs, fmt.Errorf("position %s: epoch and revision begin at 1", r.Position))
	}
	switch {
	case (r.Release == nil) == (r.Namespace == nil):
		errs = append(errs, errors.New("want a release or a namespace, and not both"))
	case r.Release != nil:
		errs = append(errs, r.Release.validate())
	default:
		errs = append(errs, r.Namespace.validate())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("catalog record: %w", err)
	}
	return nil
}

func (n *Namespace) validate() error {
	errs := []error{identity.CheckName("project", n.Project), identity.CheckName("namespace", n.Name), checkTime(n.CreatedAt)}
	if !n.Mode.Known() {
		errs = append(errs, fmt.Errorf("mode %q: want %q or %q", n.Mode, ModeCached, ModeReplicated))
	}
	if d := n.MaxStaleMS; d != 0 && (d < MinMaxStale.Milliseconds() || d > MaxMaxStale.Milliseconds()) {
		errs = append(errs, fmt.Errorf("max_stale_ms %d: want 0 for any, or %d to %d (%v to %v)", d, MinMaxStale.Milliseconds(), MaxMaxStale.Milliseconds(), MinMaxStale, MaxMaxStale))
	}
	return errors.Join(errs...)
}

func checkTime(t time.Time) error {
	if t.IsZero() || t.Location() != time.UTC {
		return errors.New("created_at: want a time in UTC")
	}
	return nil
}

func (r *Release) validate() error {
	errs := []error{identity.CheckName("project", r.Project), identity.CheckName("function", r.Function), checkTime(r.CreatedAt)}
	if r.Number == 0 {
		errs = append(errs, errors.New("number: releases count from 1"))
	}
	if r.Removed {
		return errors.Join(append(errs, r.checkRemoved())...)
	}
	for _, d := range []function.Digest{r.Bundle, r.Code, r.Image} {
		_, err := function.ParseDigest(string(d))
		errs = append(errs, err)
	}
	_, err := identity.ParseKeyID(string(r.Publisher))
	return errors.Join(append(errs, err, checkRoutes(r.Routes), checkLimits(r.Limits), checkBindings(r.Bindings), r.Placement.Validate())...)
}

func (r *Release) checkRemoved() error {
	b := r.Bindings
	if r.Bundle != "" || r.Code != "" || r.Image != "" || r.Started || r.Publisher != "" || len(r.Routes) > 0 ||
		r.Limits != (function.Limits{}) || len(b.KV)+len(b.Backends)+len(b.Variables) > 0 || !r.Placement.IsZero() {
		return errors.New("a removal says nothing but what is removed")
	}
	return nil
}

// maxRoutes of one release.
const maxRoutes = 100

func checkRoutes(routes []string) error {
	if len(routes) > maxRoutes {
		return fmt.Errorf("%d routes; at most %d", len(routes), maxRoutes)
	}
	for i, s := range routes {
		p, err := route.ParsePattern(s)
		switch {
		case err != nil:
			return err
		case p.String() != s:
			return fmt.Errorf("route %q: not canonical, want %q", s, p)
		case slices.Contains(routes[:i], s):
			return fmt.Errorf("route %q: twice", s)
		}
	}
	return nil
}

// checkLimits refuses what is below zero or over the platform's ceiling, so that
// no node has to decide what such a limit would mean.
func checkLimits(l function.Limits) error {
	c := function.Ceiling
	var errs []error
	for _, one := range []struct {
		name         string
		value, limit int64
	}{
		{"cpu", int64(l.CPU), int64(c.CPU)},
		{"wall", int64(l.Wall), int64(c.Wall)},
		{"memory", l.MemoryBytes, c.MemoryBytes},
		{"request_body", l.RequestBody, c.RequestBody},
		{"response_head", int64(l.ResponseHead), int64(c.ResponseHead)},
		{"log", int64(l.LogBytes), int64(c.LogBytes)},
		{"subrequests", int64(l.Subrequests), int64(c.Subrequests)},
		{"subrequests_now", int64(l.SubrequestsNow), int64(c.SubrequestsNow)},
		{"subrequest_body", l.SubrequestBody, c.SubrequestBody},
		{"host_calls", int64(l.HostCalls), int64(c.HostCalls)},
		{"kv_operations", int64(l.KVOperations), int64(c.KVOperations)},
		{"concurrency", int64(l.Concurrency), int64(c.Concurrency)},
		{"queue", int64(l.Queue), int64(c.Queue)},
		{"queue_wait", int64(l.QueueWait), int64(c.QueueWait)},
		{"weight", int64(l.Weight), int64(c.Weight)},
	} {
		if one.value < 0 || one.value > one.limit {
			errs = append(errs, fmt.Errorf("limits.%s: %d is outside 0 to %d", one.name, one.value, one.limit))
		}
	}
	return errors.Join(errs...)
}

func checkBindings(b function.Bindings) error {
	var errs []error
	names := map[string]bool{}
	for _, k := range b.KV {
		errs = append(errs, identity.CheckName("kv", k.Name), identity.CheckName("namespace", k.Namespace))
		if names["kv "+k.Name] {
			errs = append(errs, fmt.Errorf("kv %q: bound twice", k.Name))
		}
		names["kv "+k.Name] = true
	}
	for _, o := range b.Backends {
		errs = append(errs, identity.CheckName("backend", o.Name))
		if names["backend "+o.Name] || o.URL == "" {
			errs = append(errs, fmt.Errorf("backend %q: bound twice, or without a URL", o.Name))
		}
		names["backend "+o.Name] = true
		errs = append(errs, checkTimeouts(o))
	}
	return errors.Join(errs...)
}

func checkTimeouts(o function.Backend) error {
	t, most := o.Timeouts, function.CeilingTimeouts
	for _, one := range [][2]time.Duration{
		{t.Connect, most.Connect}, {t.TLS, most.TLS}, {t.FirstByte, most.FirstByte}, {t.Between, most.Between}, {t.Total, most.Total},
	} {
		if one[0] < 0 || one[0] > one[1] {
			return fmt.Errorf("backend %q: a timeout of %v is outside 0 to %v", o.Name, one[0], one[1])
		}
	}
	return nil
}
