package api

import (
	"context"
	"maps"
	"slices"

	"github.com/selvage-edge/selvage/control/catalog"
)

func (a *API) listNamespaces(_ context.Context, c *call) (*reply, error) {
	out := NamespaceList{Namespaces: []Namespace{}}
	for _, n := range a.Catalog().Namespaces() {
		if n.Project == c.project {
			out.Namespaces = append(out.Namespaces, namespaceOf(n))
		}
	}
	return &reply{json: out}, nil
}

func namespaceOf(n catalog.Namespace) Namespace {
	return Namespace{n.Project, n.Name, n.Mode, n.MaxStaleMS}
}

func (a *API) putNamespace(ctx context.Context, c *call) (*reply, error) {
	req := NamespaceRequest{}
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	if req.Mode != "" && !req.Mode.Known() {
		return nil, invalid("mode %.40q: want %q or %q", req.Mode, catalog.ModeCached, catalog.ModeReplicated)
	}
	if req.MaxStaleMS != nil && *req.MaxStaleMS != 0 && (*req.MaxStaleMS < catalog.MinMaxStale.Milliseconds() || *req.MaxStaleMS > catalog.MaxMaxStale.Milliseconds()) {
		return nil, invalid("max_stale_ms %d: want 0 for any, or %d (%v) to %d", *req.MaxStaleMS, catalog.MinMaxStale.Milliseconds(), catalog.MinMaxStale, catalog.MaxMaxStale.Milliseconds())
	}
	want := catalog.Namespace{Project: c.project, Name: c.param("namespace"), Mode: catalog.ModeCached, CreatedAt: a.cfg.Now().UTC()}
	err := a.change(ctx, func(snap *catalog.Snapshot) ([]*catalog.Record, error) {
		n, ok := snap.Namespace(want.Project, want.Name)
		if ok {
			want.Mode, want.CreatedAt, want.MaxStaleMS = n.Mode, n.CreatedAt, n.MaxStaleMS
		}
		if req.Mode != "" {
			want.Mode = req.Mode
		}
		if req.MaxStaleMS != nil {
			want.MaxStaleMS = *req.MaxStaleMS
		}
		if ok && n == want {
			return nil, nil
		}
		return []*catalog.Record{{Namespace: &want}}, nil
	})
	if err != nil {
		return nil, err
	}
	return &reply{json: namespaceOf(want)}, nil
}

func (a *API) listProjects(_ context.Context, _ *call) (*reply, error) {
	names := make(map[string]bool)
	snap := a.Catalog()
	for _, r := range snap.Releases() {
		names[r.Project] = true
	}
	for _, n := range snap.Namespaces() {
		names[n.Project] = true
	}
	for _, d := range a.cfg.Identity.Anchor.Trust().Delegations() {
		if d.Project != "" && !d.Revoked && !d.Expired {
			names[d.Project] = true
		}
	}
	return &reply{json: ProjectList{Projects: slices.AppendSeq([]string{}, slices.Values(slices.Sorted(maps.Keys(names))))}}, nil
}
