package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/selvage-edge/selvage/control/api"
)

const tokensPath = "/v1/tokens"

// CreateToken makes an API token; its secret is in this answer only.
func (c *Client) CreateToken(ctx context.Context, r api.TokenRequest) (api.TokenCreated, error) {
	var t api.TokenCreated
	return t, c.json(ctx, call{method: http.MethodPost, path: tokensPath}.jsonBody(r), &t)
}

// Tokens lists the API tokens, without their secrets.
func (c *Client) Tokens(ctx context.Context) ([]api.TokenInfo, error) {
	var l api.TokenList
	err := c.json(ctx, call{method: http.MethodGet, path: tokensPath}, &l)
	return l.Tokens, err
}

// RevokeToken ends an API token at once.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	return c.json(ctx, call{method: http.MethodDelete, path: tokensPath + "/" + url.PathEscape(id)}, nil)
}
