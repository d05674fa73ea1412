package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/selvage-edge/selvage/control/api"
)

// WatchQuery says what of a namespace is watched.
type WatchQuery struct {
	Prefix string
	Since  int64  // changes after this revision; below 0: those that come
	Epoch  uint64 // of Since; 0: the present one
	Once   bool   // end once all there is was told
}

// watchSilence is how long a watch may say nothing, signs of life included.
const watchSilence = 45 * time.Second

// ErrWatchSilent ends a watch that shows no sign of life any more.
var ErrWatchSilent = fmt.Errorf("%w: the watch said nothing for %v", ErrUnreachable, watchSilence)

// maxEvent bounds a line of a watch: a value in base64, and the rest.
const maxEvent = api.MaxWatchValue/3*4 + 64<<10

// Watch tells do of each line of a watch, until ctx ends, do fails, or the control node ends it, which is an error
// too unless q is for once. The event is do's until it returns.
func (c *Client) Watch(ctx context.Context, project, ns string, q WatchQuery, do func(e api.WatchEvent) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := time.AfterFunc(watchSilence, func() { cancel(ErrWatchSilent) })
	defer quiet.Stop()
	resp, err := c.do(ctx, call{method: http.MethodGet, path: projectPath(project, "kv", ns, "watch"), query: q.values()})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	in := bufio.NewScanner(resp.Body)
	in.Buffer(make([]byte, 0, 64<<10), maxEvent)
	for in.Scan() {
		quiet.Reset(watchSilence)
		if len(bytes.TrimSpace(in.Bytes())) == 0 {
			continue
		}
		var e api.WatchEvent
		if err := json.Unmarshal(in.Bytes(), &e); err != nil {
			return fmt.Errorf("the watch said what was not expected: %w", err)
		}
		if err := do(e); err != nil {
			return err
		}
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case in.Err() != nil:
		return fmt.Errorf("%w: %w", ErrUnreachable, in.Err())
	case q.Once:
		return nil
	}
	return errors.New("the control node ended the watch: it stops, the token is no longer good, or what was told was not read in time")
}

func (q WatchQuery) values() url.Values {
	v := url.Values{"prefix": {q.Prefix}, "follow": {strconv.FormatBool(!q.Once)}}
	if q.Since >= 0 {
		v.Set("since", strconv.FormatInt(q.Since, 10))
	}
	if q.Epoch > 0 {
		v.Set("epoch", strconv.FormatUint(q.Epoch, 10))
	}
	return v
}
