// Package client speaks the control API for the commands: pinned to the fleet's
// root key, with one error type that carries the fleet's own hint.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/selvage-edge/selvage/cmd/selvage/target"
	"github.com/selvage-edge/selvage/control/api"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/runtime/plain"
)

// maxAnswer bounds an answer that is read into memory.
const maxAnswer = 64 << 20

// answerTime is how long control may take for most answers, once it has the request.
const answerTime = 3 * time.Minute

// What a call may fail with, wrapped, when control refused nothing.
var (
	// ErrUnreachable: no control node took the request.
	ErrUnreachable = errors.New("the fleet's control node cannot be reached; is it running?")
	// ErrSilent: a control node took the request and did not answer; it may have done what was asked.
	ErrSilent = errors.New("the fleet's control node took the request and did not answer in time; 'selvage status' shows whether it was done")
)

// Client speaks to one fleet. Close it.
type Client struct {
	target  target.Target
	http    *http.Client
	patient *http.Client // waits for answers as long as the context lets it
}

// New returns a client for t; it connects when first used.
func New(t target.Target) (*Client, error) {
	root, err := identity.ParseKeyID(t.Root)
	if err != nil {
		return nil, fmt.Errorf("target %s: root: %w", t.Path, err)
	}
	tr := identity.ClientTransport(root, nil)
	tr.ResponseHeaderTimeout = answerTime
	return &Client{target: t, http: &http.Client{Transport: tr}, patient: &http.Client{Transport: identity.ClientTransport(root, nil)}}, nil
}

// Close drops the connections.
func (c *Client) Close() {
	c.http.CloseIdleConnections()
	c.patient.CloseIdleConnections()
}

// What is shown of a refusal: it comes from whoever answers at control's address.
const (
	maxWords  = 4 << 10 // bytes of each part
	maxFaults = 100     // of a manifest
)

// Refusal is the fleet's no.
type Refusal struct{ api.Problem }

func (r *Refusal) Error() string {
	s := plain.Text(r.Problem.Error(), maxWords)
	for _, f := range r.Faults[:min(len(r.Faults), maxFaults)] {
		s += "\n  " + plain.Line(fmt.Sprintf("line %d: %s: %s", f.Line, f.Key, f.Message), maxWords)
	}
	if r.Hint != "" {
		s += "\n" + plain.Text(r.Hint, maxWords)
	}
	if r.Status >= 500 && r.Instance != "" {
		s += " (request " + plain.Line(r.Instance, maxWords) + ")"
	}
	return s
}

// Refused reports whether it was the input or the right that was missing, not the fleet that failed.
func (r *Refusal) Refused() bool { return r.Status < 500 }

// call is one request.
type call struct {
	method, path string
	query        url.Values
	header       http.Header
	body         []byte
	reader       func() io.Reader // in place of body, for progress
	size         int64            // of what reader reads; below 0: not known
	spent        func() error     // what reader failed with, or errSpent once it cannot begin anew; nil: it always can
	patient      bool             // the answer comes when the work is done
}

// projectPath returns /v1/projects/PROJECT and the parts, each escaped.
func projectPath(project string, parts ...string) string {
	p := "/v1/projects/" + url.PathEscape(project)
	for _, part := range parts {
		p += "/" + escape(part)
	}
	return p
}

// escape is url.PathEscape, also for "." and "..", which a path would lose.
func escape(s string) string {
	if strings.Trim(s, ".") == "" {
		return strings.ReplaceAll(s, ".", "%2E")
	}
	return url.PathEscape(s)
}

// do sends k to the control nodes in turn until one answers. The caller closes the body.
func (c *Client) do(ctx context.Context, k call) (*http.Response, error) {
	var errs []error
	for _, base := range c.target.Control {
		resp, err := c.try(ctx, base, k)
		if err == nil {
			return resp, nil
		}
		var refusal *Refusal
		if errors.As(err, &refusal) || ctx.Err() != nil {
			return nil, err
		}
		errs = append(errs, err)
		if k.spent != nil {
			if err := k.spent(); errors.Is(err, errSpent) {
				break
			} else if err != nil {
				return nil, err
			}
		}
		var late net.Error
		var dial *net.OpError
		if errors.As(err, &late) && late.Timeout() && !(errors.As(err, &dial) && dial.Op == "dial") {
			return nil, fmt.Errorf("%w: %w", ErrSilent, errors.Join(errs...)) // another node would do it twice
		}
	}
	return nil, &Unreached{Target: c.target.Path, Err: errors.Join(errs...)}
}

// Unreached is ErrUnreachable, with what was tried and where to look.
type Unreached struct {
	Target string // the file that names the control nodes
	Err    error  // each one's
}

// Unwrap returns ErrUnreachable and each control node's error.
func (u *Unreached) Unwrap() []error { return []error{ErrUnreachable, u.Err} }

func (u *Unreached) Error() string {
	if errors.Is(u.Err, identity.ErrUntrusted) {
		return fmt.Sprintf("the fleet's control node cannot be reached: %v\n%s", u.Err, u.Hint())
	}
	return fmt.Sprintf("%v %v\n%s", ErrUnreachable, u.Err, u.Hint())
}

// Hint says what to check: of an address where something else answers, that it is the API's.
func (u *Unreached) Hint() string {
	where := fmt.Sprintf("the addresses are those of `control` in %s (another file: --target or $SELVAGE_TARGET)", u.Target)
	const api = "the control node's listen.api, not its peer or admin port, nor a PoP's public port"
	var record tls.RecordHeaderError
	switch {
	case errors.As(u.Err, &record), errors.Is(u.Err, http.ErrSchemeMismatch):
		return "what answers there does not speak TLS: want " + api + "; " + where
	case errors.Is(u.Err, identity.ErrUntrusted), errors.As(u.Err, new(tls.AlertError)), errors.Is(u.Err, io.EOF):
		return "something else than this fleet's control API answers there, or `root` is another fleet's: want " + api + "; " + where
	}
	return "check that the control node runs and listens there (" + api + "); " + where
}

func (c *Client) try(ctx context.Context, base string, k call) (*http.Response, error) {
	var body io.Reader
	switch {
	case k.reader != nil:
		body = k.reader()
	case k.body != nil:
		body = bytes.NewReader(k.body)
	}
	r, err := http.NewRequestWithContext(ctx, k.method, strings.TrimSuffix(base, "/")+k.path, body)
	if err != nil {
		return nil, err
	}
	r.URL.RawQuery = k.query.Encode()
	if k.reader != nil {
		r.ContentLength = k.size
	}
	for name, v := range k.header {
		r.Header[name] = v
	}
	r.Header.Set("Authorization", "Bearer "+c.target.Token)
	client := c.http
	if k.patient {
		client = c.patient
	}
	resp, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, refusal(resp)
}

func refusal(resp *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	var p api.Problem
	if json.Unmarshal(text, &p) != nil || p.Title == "" {
		p = api.Problem{Title: http.StatusText(resp.StatusCode), Detail: strings.TrimSpace(string(text))}
	}
	p.Status = resp.StatusCode
	return &Refusal{p}
}

// json sends k and decodes the answer into out; nil drops it.
func (c *Client) json(ctx context.Context, k call, out any) error {
	resp, err := c.do(ctx, k)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer))
		return err
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(out); err != nil {
		return fmt.Errorf("%s %s: the answer is not what was expected: %w", k.method, k.path, err)
	}
	return nil
}

// jsonBody is k with v as its body.
func (k call) jsonBody(v any) call {
	k.body, _ = json.Marshal(v) // plain structs of this program: they marshal
	if k.header == nil {
		k.header = http.Header{}
	}
	k.header.Set("Content-Type", "application/json")
	return k
}
