package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"github.com/selvage-edge/selvage/control/store"
)

// audit records the change, or the attempt, before it is answered.
func (c *call) audit(ctx context.Context, out *reply, err error) error {
	e := AuditEntry{
		Time: c.a.cfg.Now().UTC(), Request: c.id, Actor: c.actor, Remote: c.remote(), Method: c.r.Method,
		Path: c.r.URL.EscapedPath(), Project: c.project, Action: c.route.name, Detail: c.detail,
	}
	if err != nil {
		p, _ := c.problemOf(err)
		e.Status = p.Status
		c.note("problem", p.Name())
		e.Detail = c.detail
	} else {
		e.Status = c.statusOf(out)
	}
	b, jsonErr := json.Marshal(e)
	if jsonErr != nil {
		return fmt.Errorf("api: audit: %w", jsonErr)
	}
	// The entry is owed also to a caller who has left.
	if auditErr := c.a.cfg.Store.Audit(context.WithoutCancel(ctx), c.project, b); auditErr != nil {
		if err != nil {
			return err // nothing changed
		}
		c.a.cfg.Log.Error("api: a change could not be recorded", "request", c.id, "action", e.Action, "error", auditErr)
		return problem(http.StatusInsufficientStorage, "not-audited", "free space on the control node's volume, then ask again: the change itself was made",
			"the change was made, but could not be recorded in the audit trail")
	}
	return nil
}

// auditPage is how many entries one answer holds.
const auditPage = 500

func (a *API) listAudit(ctx context.Context, c *call) (*reply, error) {
	after, err := queryUint(c.r, "after", 0)
	if err != nil {
		return nil, err
	}
	limit, err := queryUint(c.r, "limit", 100)
	if err != nil {
		return nil, err
	}
	if limit == 0 || limit > auditPage {
		return nil, invalid("limit=%d: want 1 to %d", limit, auditPage)
	}
	entries, err := a.cfg.Store.AuditTrail(ctx, c.project, after, int(limit))
	if err != nil {
		return nil, err
	}
	out := AuditList{Entries: make([]AuditEntry, 0, len(entries))}
	for _, e := range entries {
		out.Entries = append(out.Entries, auditEntry(e))
	}
	if len(entries) == int(limit) {
		out.Next = entries[len(entries)-1].Seq
	}
	return &reply{json: out}, nil
}

func auditEntry(e store.AuditEntry) AuditEntry {
	var out AuditEntry
	if err := json.Unmarshal(e.Value, &out); err != nil {
		out.Action = "unreadable"
	}
	out.Seq = e.Seq
	return out
}

// queryUint reads a number from the query.
func queryUint(r *http.Request, name string, def uint64) (uint64, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return def, nil
	}
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0, invalid("%s=%.40q: want a number", name, s)
	}
	return n, nil
}
