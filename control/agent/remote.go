package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/selvage-edge/selvage/control/changes"
	"github.com/selvage-edge/selvage/runtime/plain"
)

// statusError is control's no.
type statusError struct {
	status int
	detail string
}

func (e *statusError) Error() string {
	if e.detail == "" {
		return fmt.Sprintf("control answered %d", e.status)
	}
	return fmt.Sprintf("control answered %d: %s", e.status, e.detail)
}

// maxDetail is the most that is kept of why control or a neighbour refuses, in bytes.
const maxDetail = 1 << 10

// refusal reads why control refused: a problem (RFC 9457), or a line of text.
func refusal(resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10)) // what did not come is not needed
	var problem struct {
		Title  string `json:"title"`
		Detail string `json:"detail"`
	}
	e := &statusError{status: resp.StatusCode}
	switch {
	case json.Unmarshal(b, &problem) != nil:
		e.detail = string(bytes.TrimSpace(b))
	case problem.Detail != "":
		e.detail = problem.Detail
	default:
		e.detail = problem.Title
	}
	e.detail = plain.Line(e.detail, maxDetail)
	return e
}

// openStream opens change streams on control or a neighbour.
func openStream(whom Doer) func(context.Context, changes.Request) (io.ReadCloser, error) {
	return func(ctx context.Context, want changes.Request) (io.ReadCloser, error) {
		b, err := json.Marshal(want)
		if err != nil {
			return nil, err
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, changes.Path, bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		r.Header.Set("Content-Type", "application/json")
		resp, err := whom.Do(r)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusOK {
			defer resp.Body.Close()
			return nil, refusal(resp)
		}
		return resp.Body, nil
	}
}
