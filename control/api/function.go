package api

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/runtime/function"
)

func (a *API) listFunctions(_ context.Context, c *call) (*reply, error) {
	out := FunctionList{Functions: []Function{}}
	snap := a.Catalog()
	for _, r := range snap.Releases() {
		if r.Project == c.project {
			out.Functions = append(out.Functions, a.function(snap, r))
		}
	}
	return &reply{json: out}, nil
}

func (a *API) function(snap *catalog.Snapshot, r catalog.Release) Function {
	at := snap.ReleasePosition(r.ID())
	return Function{Release: shown(at, r), Status: a.status(Release{at, r})}
}

func (a *API) getFunction(_ context.Context, c *call) (*reply, error) {
	snap := a.Catalog()
	r, ok := snap.Release(function.ID{Project: c.project, Name: c.param("function")})
	if !ok || r.Removed {
		return nil, notFound("list the functions: GET /v1/projects/"+c.project+"/functions", "no function %s is live in project %s", c.param("function"), c.project)
	}
	return &reply{json: a.function(snap, r)}, nil
}

func (a *API) listReleases(ctx context.Context, c *call) (*reply, error) {
	id := function.ID{Project: c.project, Name: c.param("function")}
	releases, err := a.history(ctx, id)
	if err != nil {
		return nil, err
	}
	if len(releases) == 0 {
		return nil, notFound("deploy it first", "there never was a function %s", id)
	}
	slices.Reverse(releases)
	for i, r := range releases {
		releases[i] = shown(r.Position, r.Release)
	}
	return &reply{json: ReleaseList{Releases: releases}}, nil
}

// history returns the function's releases that are kept, oldest first.
func (a *API) history(ctx context.Context, id function.ID) ([]Release, error) {
	rec := catalog.Record{Release: &catalog.Release{Project: id.Project, Function: id.Name}}
	raw, err := a.cfg.Store.CatalogHistory(ctx, rec.Key())
	if err != nil {
		return nil, err
	}
	var out []Release
	for _, b := range raw {
		r, err := catalog.Open(kept{a.cfg.Identity.Anchor}, b)
		if err != nil {
			return nil, err
		}
		out = append(out, Release{r.Position, *r.Release})
	}
	return out, nil
}

// findRelease returns one release by its number.
func (a *API) findRelease(ctx context.Context, c *call) (Release, error) {
	id := function.ID{Project: c.project, Name: c.param("function")}
	n, err := strconv.ParseUint(c.param("number"), 10, 63)
	if err != nil || n == 0 {
		return Release{}, invalid("release %.40q: want a number from 1", c.param("number"))
	}
	snap := a.Catalog()
	if r, ok := snap.Release(id); ok && r.Number == n {
		return Release{snap.ReleasePosition(id), r}, nil
	}
	releases, err := a.history(ctx, id)
	if err != nil {
		return Release{}, err
	}
	for _, r := range releases {
		if r.Number == n {
			return r, nil
		}
	}
	return Release{}, notFound("list the releases: GET /v1/projects/"+id.Project+"/functions/"+id.Name+"/releases", "%s has no release %d", id, n)
}

// maxWait bounds a long poll.
const maxWait = time.Minute

// getReleaseStatus answers at once, or with ?wait= when the status has changed
// since ?after=, is done, or time is up.
func (a *API) getReleaseStatus(ctx context.Context, c *call) (*reply, error) {
	rel, err := a.findRelease(ctx, c)
	if err != nil {
		return nil, err
	}
	var wait time.Duration
	if s := c.r.URL.Query().Get("wait"); s != "" {
		if wait, err = time.ParseDuration(s); err != nil || wait < 0 || wait > maxWait {
			return nil, invalid("wait=%.40q: want a duration of at most %v, such as 30s", s, maxWait)
		}
	}
	return &reply{json: a.waitStatus(ctx, rel, c.r.URL.Query().Get("after"), wait)}, nil
}

func (a *API) waitStatus(ctx context.Context, rel Release, after string, wait time.Duration) Status {
	end := time.NewTimer(wait)
	defer end.Stop()
	for {
		changed := a.board.changed()
		s := a.status(rel)
		if s.Done || after != "" && s.Tag != after {
			return s
		}
		// Nodes also fall silent without a word, so look again now and then.
		again := time.NewTimer(time.Second)
		select {
		case <-changed:
		case <-again.C:
		case <-end.C:
			again.Stop()
			return s
		case <-a.cfg.Closing:
			again.Stop()
			return s
		case <-ctx.Done():
			again.Stop()
			return s
		}
		again.Stop()
	}
}
