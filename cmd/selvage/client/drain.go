package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/selvage-edge/selvage/control/api"
)

func drainPath(node string) string { return "/v1/nodes/" + url.PathEscape(node) + "/drain" }

// Drain has a node say that new traffic should go elsewhere.
func (c *Client) Drain(ctx context.Context, node, reason string) (api.Node, error) {
	var n api.Node
	return n, c.json(ctx, call{method: http.MethodPut, path: drainPath(node)}.jsonBody(api.DrainRequest{Reason: reason}), &n)
}

// Undrain takes a node back into service.
func (c *Client) Undrain(ctx context.Context, node string) (api.Node, error) {
	var n api.Node
	return n, c.json(ctx, call{method: http.MethodDelete, path: drainPath(node)}, &n)
}
