package client

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/selvage-edge/selvage/control/api"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// Entry is one value.
type Entry struct {
	Value    []byte
	Revision uint64
	Expires  time.Time // zero: never
}

func keyPath(project, ns, key string) string { return projectPath(project, "kv", ns, "keys", key) }

// Get reads a key from the truth.
func (c *Client) Get(ctx context.Context, project, ns, key string) (Entry, error) {
	resp, err := c.do(ctx, call{method: http.MethodGet, path: keyPath(project, ns, key)})
	if err != nil {
		return Entry{}, err
	}
	defer resp.Body.Close()
	var e Entry
	if e.Value, err = io.ReadAll(io.LimitReader(resp.Body, hostcall.MaxValueBytes+1)); err != nil {
		return e, fmt.Errorf("read the value: %w", err)
	}
	if e.Revision, err = strconv.ParseUint(resp.Header.Get(api.HeaderRevision), 10, 64); err != nil {
		return e, fmt.Errorf("the answer names no revision: %w", err)
	}
	if ms, err := strconv.ParseInt(resp.Header.Get(api.HeaderExpires), 10, 64); err == nil {
		e.Expires = time.UnixMilli(ms)
	}
	return e, nil
}

// condition is the expected revision as a query; none for any.
func condition(ifRevision int64) url.Values {
	q := url.Values{}
	if ifRevision != hostcall.AnyRevision {
		q.Set("if_revision", strconv.FormatInt(ifRevision, 10))
	}
	return q
}

// Put writes a key; it returns once the value is durable.
func (c *Client) Put(ctx context.Context, project, ns, key string, value []byte, o hostcall.PutOptions) (api.Written, error) {
	var w api.Written
	k := call{method: http.MethodPut, path: keyPath(project, ns, key), query: condition(o.IfRevision), body: value}
	if value == nil {
		k.body = []byte{}
	}
	if o.TTL > 0 {
		k.query.Set("ttl", o.TTL.String())
	}
	return w, c.json(ctx, k, &w)
}

// Delete removes a key.
func (c *Client) Delete(ctx context.Context, project, ns, key string, ifRevision int64) (api.Written, error) {
	var w api.Written
	return w, c.json(ctx, call{method: http.MethodDelete, path: keyPath(project, ns, key), query: condition(ifRevision)}, &w)
}

// List returns one page of keys.
func (c *Client) List(ctx context.Context, project, ns, prefix string, cursor []byte, limit int) (api.KeyList, error) {
	var l api.KeyList
	q := url.Values{"prefix": {prefix}, "limit": {strconv.Itoa(limit)}}
	if len(cursor) > 0 {
		q.Set("cursor", base64.RawURLEncoding.EncodeToString(cursor))
	}
	return l, c.json(ctx, call{method: http.MethodGet, path: projectPath(project, "kv", ns, "keys"), query: q}, &l)
}

// CreateNamespace makes a namespace; one that is there already is fine.
func (c *Client) CreateNamespace(ctx context.Context, project, ns string) (api.Namespace, error) {
	var n api.Namespace
	k := call{method: http.MethodPut, path: projectPath(project, "kv", ns)}
	return n, c.json(ctx, k.jsonBody(api.NamespaceRequest{}), &n)
}

// Namespaces lists the project's namespaces.
func (c *Client) Namespaces(ctx context.Context, project string) ([]api.Namespace, error) {
	var l api.NamespaceList
	err := c.json(ctx, call{method: http.MethodGet, path: projectPath(project, "kv")}, &l)
	return l.Namespaces, err
}
