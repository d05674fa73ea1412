package client

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// Time returns the control node's time, in whole seconds.
func (c *Client) Time(ctx context.Context) (time.Time, error) {
	resp, err := c.do(ctx, call{method: http.MethodGet, path: "/v1/openapi.json"})
	if err != nil {
		return time.Time{}, err
	}
	defer resp.Body.Close()
	t, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return t, fmt.Errorf("the control node's answer has no date: %w", err)
	}
	return t, nil
}
