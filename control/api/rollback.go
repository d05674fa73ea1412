package api

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/runtime/function"
)

// rollback makes an earlier release live again, as a new one with its bundle, code,
// image, limits and bindings. Nothing is prepared anew where its parts are kept.
func (a *API) rollback(ctx context.Context, c *call) (*reply, error) {
	var req RollbackRequest
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	id := function.ID{Project: c.project, Name: c.param("function")}
	c.note("function", id.String())
	was, from, err := a.earlier(ctx, id, req.To)
	if err != nil {
		return nil, err
	}
	c.note("to", strconv.FormatUint(was.Number, 10))
	c.note("digest", string(was.Bundle))
	if r, ok := a.liveAs(id, was.Bundle); ok {
		return unchanged(r).back(was.Number, 0), nil
	}
	rel := was.Release
	placed, err := a.checkPlacement(rel.Placement)
	if err != nil {
		return nil, err
	}
	notes, err := a.again(ctx, &rel)
	if err != nil {
		return nil, err
	}
	out, err := a.publish(ctx, c, &rel, append(notes, placed...))
	if err != nil {
		return nil, err
	}
	return out.back(was.Number, from), nil
}

// back says in a reply to a rollback where it went, and from where; 0: nothing was live.
func (r *reply) back(to, from uint64) *reply {
	d := r.json.(Deployed)
	d.To, d.From = to, from
	r.json = d
	return r
}

// earlier finds the release that is meant: number, or with 0 the one before what
// serves. It also returns the number of the one that serves; 0: none does.
func (a *API) earlier(ctx context.Context, id function.ID, number uint64) (was Release, from uint64, err error) {
	list := "'selvage versions " + id.Name + "' lists them (GET /v1/projects/" + id.Project + "/functions/" + id.Name + "/releases)"
	kept, err := a.history(ctx, id)
	if err != nil {
		return Release{}, 0, err
	}
	if len(kept) == 0 {
		return Release{}, 0, notFound("deploy it first", "there never was a function %s", id)
	}
	live := kept[len(kept)-1]
	if !live.Removed {
		from = live.Number
	}
	line := lineOf(kept)
	switch {
	case number != 0:
		was, err = numbered(kept, id, number, list)
	case live.Removed && len(line) > 0:
		was = line[len(line)-1]
	case len(line) > 1:
		was = line[len(line)-2]
	default:
		return Release{}, 0, problem(409, "nothing-before", list+"; --to goes to any of them", "%s has no release before the one that serves (%s)", id, serves(live, line))
	}
	return was, from, err
}

// serves names a release, and which it is again.
func serves(live Release, line []Release) string {
	if len(line) == 1 && line[0].Number != live.Number {
		return fmt.Sprintf("%d, which is release %d again", live.Number, line[0].Number)
	}
	return strconv.FormatUint(live.Number, 10)
}

// numbered finds a release by its number: the newest, for numbers may come again after a restore.
func numbered(kept []Release, id function.ID, number uint64, list string) (Release, error) {
	for _, r := range slices.Backward(kept) {
		switch {
		case r.Number != number:
		case r.Removed:
			return Release{}, problem(422, "removal", list, "release %d of %s is its removal: there is nothing to go back to", number, id)
		default:
			return r, nil
		}
	}
	return Release{}, notFound(list, "%s has no release %d among the last %d", id, number, len(kept))
}

// lineOf is the way to what serves, oldest first, each bundle once, where it came
// first: going back to a bundle forgets what came after it, so that who goes back
// twice does not come forward again.
func lineOf(kept []Release) (line []Release) {
	for _, r := range kept {
		if r.Removed {
			continue
		}
		at := slices.IndexFunc(line, func(l Release) bool { return l.Bundle == r.Bundle })
		if at < 0 {
			line = append(line, r)
		} else {
			line = line[:at+1]
		}
	}
	return line
}

// again checks what was checked when the release was first made and may have changed
// since: who vouched for it, and that its parts are there. Parts that are gone are made again.
func (a *API) again(ctx context.Context, rel *catalog.Release) (notes []string, err error) {
	b, publisher, err := a.uploaded(ctx, rel.ID(), rel.Bundle)
	if err != nil {
		return nil, err
	}
	rel.Publisher = publisher
	if _, err := a.decide(a.Catalog(), rel); err != nil {
		return nil, err
	}
	for _, d := range []function.Digest{rel.Code, rel.Image} {
		has, err := a.cfg.Store.HasBlob(ctx, d)
		if err != nil {
			return nil, err
		}
		if !has {
			return a.prepareModule(ctx, b, rel)
		}
	}
	return nil, nil
}
