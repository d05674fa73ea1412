package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/selvage-edge/selvage/control/api"
	"github.com/selvage-edge/selvage/control/bundle"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/runtime/function"
)

// Upload sends a bundle with its publisher's signature. Progress is told how many bytes went out; it may be nil.
func (c *Client) Upload(ctx context.Context, project string, packed []byte, sig identity.Envelope, progress io.Writer) (api.BundleInfo, error) {
	var info api.BundleInfo
	text, err := sig.MarshalText()
	if err != nil {
		return info, err
	}
	k := call{method: http.MethodPut, path: projectPath(project, "bundles"), header: http.Header{}, size: int64(len(packed))}
	k.header.Set(bundle.SignatureHeader, string(text))
	k.header.Set("Content-Type", "application/zstd")
	k.reader = func() io.Reader {
		if progress == nil {
			return bytes.NewReader(packed)
		}
		return io.TeeReader(bytes.NewReader(packed), progress)
	}
	return info, c.json(ctx, k, &info)
}

// Deploy makes an uploaded bundle live. It answers once the module was prepared: ctx bounds that.
func (c *Client) Deploy(ctx context.Context, project, name string, digest function.Digest) (api.Deployed, error) {
	var d api.Deployed
	k := call{method: http.MethodPost, path: projectPath(project, "functions", name, "releases"), header: http.Header{api.HeaderIdempotency: {rand.Text()}}, patient: true}
	return d, c.json(ctx, k.jsonBody(api.DeployRequest{Bundle: digest}), &d)
}

// Rollback makes an earlier release live again; to 0 is the one before what serves.
func (c *Client) Rollback(ctx context.Context, project, name string, to uint64) (api.Deployed, error) {
	var d api.Deployed
	k := call{method: http.MethodPost, path: projectPath(project, "functions", name, "rollback"), header: http.Header{api.HeaderIdempotency: {rand.Text()}}}
	return d, c.json(ctx, k.jsonBody(api.RollbackRequest{To: to}), &d)
}

// Releases lists a function's releases that are kept, newest first.
func (c *Client) Releases(ctx context.Context, project, name string) ([]api.Release, error) {
	var l api.ReleaseList
	err := c.json(ctx, call{method: http.MethodGet, path: projectPath(project, "functions", name, "releases")}, &l)
	return l.Releases, err
}

// Remove takes a function away from every node.
func (c *Client) Remove(ctx context.Context, project, name string) (api.Release, error) {
	var r api.Release
	return r, c.json(ctx, call{method: http.MethodDelete, path: projectPath(project, "functions", name)}, &r)
}

// Status returns where a release stands. With a tag it waits, up to wait, until there is something newer.
func (c *Client) Status(ctx context.Context, project, name string, release uint64, tag string, wait time.Duration) (api.Status, error) {
	var s api.Status
	k := call{method: http.MethodGet, path: projectPath(project, "functions", name, "releases", strconv.FormatUint(release, 10), "status"), query: url.Values{}}
	if tag != "" {
		k.query.Set("after", tag)
		k.query.Set("wait", wait.String())
	}
	return s, c.json(ctx, k, &s)
}

// Functions lists the project's functions as they are live.
func (c *Client) Functions(ctx context.Context, project string) ([]api.Function, error) {
	var l api.FunctionList
	err := c.json(ctx, call{method: http.MethodGet, path: projectPath(project, "functions")}, &l)
	return l.Functions, err
}

// Fleet lists the nodes.
func (c *Client) Fleet(ctx context.Context) (api.Fleet, error) {
	var f api.Fleet
	return f, c.json(ctx, call{method: http.MethodGet, path: "/v1/fleet"}, &f)
}

// JoinToken makes a token that lets one node join once.
func (c *Client) JoinToken(ctx context.Context, r api.JoinTokenRequest) (api.JoinTokenCreated, error) {
	var t api.JoinTokenCreated
	k := call{method: http.MethodPost, path: "/v1/join-tokens", header: http.Header{api.HeaderIdempotency: {rand.Text()}}}
	return t, c.json(ctx, k.jsonBody(r), &t)
}

// Trust returns the fleet's public trust material.
func (c *Client) Trust(ctx context.Context) (identity.Bundle, error) {
	var b identity.Bundle
	return b, c.json(ctx, call{method: http.MethodGet, path: identity.TrustPath}, &b)
}

// PutTrust adds what the root key signed.
func (c *Client) PutTrust(ctx context.Context, b identity.Bundle) error {
	return c.json(ctx, call{method: http.MethodPut, path: identity.TrustPath}.jsonBody(b), nil)
}
