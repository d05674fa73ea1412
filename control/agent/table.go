package agent

import (
	"slices"

	"github.com/selvage-edge/selvage/edge/route"
	"github.com/selvage-edge/selvage/edge/serve"
	"github.com/selvage-edge/selvage/runtime/function"
)

// table builds the routes of all that can be served. While a function that
// gives up a route, or the one that takes it, is still being made ready, both
// may claim it: then it is the catalog's owner's if that one can serve, and
// otherwise stays with the other.
func (l *loop[F]) table() (*serve.Routes, error) {
	claims := map[string][]function.ID{}
	for id, s := range l.slots {
		if c := s.chosen(); c != nil {
			for _, p := range c.release.Routes {
				claims[p] = append(claims[p], id)
			}
		}
	}
	var entries []serve.Entry
	for p, ids := range claims {
		id := l.owner(p, ids)
		entries = append(entries, serve.Entry{Pattern: p, Owner: id.String(), Target: l.slots[id].chosen().target})
	}
	return route.Build(entries)
}

// owner chooses one of those who claim pattern.
func (l *loop[F]) owner(pattern string, ids []function.ID) function.ID {
	if id, ok := l.snap.RouteOwner(pattern); ok && slices.Contains(ids, id) {
		return id
	}
	return slices.MinFunc(ids, compareIDs)
}
