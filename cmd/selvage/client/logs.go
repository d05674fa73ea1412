package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net/http"

	"github.com/selvage-edge/selvage/control/logs"
	"github.com/selvage-edge/selvage/edge/telemetry"
)

// Logs tells do of each line that q wants, until there are no more, ctx ends, or
// do fails. Without a project it asks for the whole fleet's.
func (c *Client) Logs(ctx context.Context, project string, q logs.Query, do func(l telemetry.Line, raw []byte) error) error {
	k := call{method: http.MethodGet, path: "/v1/logs", query: q.Values()}
	if project != "" {
		k.path = projectPath(project, "logs")
	}
	resp, err := c.do(ctx, k)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	in := bufio.NewScanner(resp.Body)
	in.Buffer(make([]byte, 0, 64<<10), 2*telemetry.MaxLineBytes)
	for in.Scan() {
		if len(bytes.TrimSpace(in.Bytes())) == 0 {
			continue
		}
		l, err := telemetry.ParseLine(in.Bytes())
		if err != nil {
			return err
		}
		if err := do(l, in.Bytes()); err != nil {
			return err
		}
	}
	if err := in.Err(); err != nil && ctx.Err() == nil {
		return err
	}
	if q.Follow && ctx.Err() == nil {
		return errors.New("the control node ended the stream: it stops, or the token is no longer good")
	}
	return nil
}
