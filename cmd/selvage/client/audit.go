package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/selvage-edge/selvage/control/api"
)

// AuditPlacement asks where functions may run, are held and were answered.
func (c *Client) AuditPlacement(ctx context.Context) (a api.PlacementAudit, err error) {
	return a, c.json(ctx, call{method: http.MethodGet, path: "/v1/placement"}, &a)
}

// Audit returns the newest entries of the fleet's audit trail, most of them at most.
func (c *Client) Audit(ctx context.Context, most int) ([]api.AuditEntry, error) {
	var all []api.AuditEntry
	for after := uint64(0); ; {
		var page api.AuditList
		q := url.Values{"after": {strconv.FormatUint(after, 10)}, "limit": {"500"}}
		if err := c.json(ctx, call{method: http.MethodGet, path: "/v1/audit", query: q}, &page); err != nil {
			return all, err
		}
		all = append(all, page.Entries...)
		all = all[max(0, len(all)-most):]
		if after = page.Next; after == 0 {
			return all, nil
		}
	}
}
