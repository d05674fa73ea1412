package client

import (
	"context"
	"crypto/rand"
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

// Entry is one value, as the truth had it when it answered.
type Entry struct {
	Value    []byte
	Metadata []byte // nil: none
	Revision uint64
	Expires  time.Time // zero: never; on the store's clock
	AsOf     uint64    // every change of the namespace up to this revision is in the answer
	Epoch    uint64
	Time     time.Time // the store's clock at the answer
}

func keyPath(project, ns, key string) string { return projectPath(project, "kv", ns, "keys", key) }

// Get reads a key from the truth.
func (c *Client) Get(ctx context.Context, project, ns, key string) (Entry, error) {
	e, value, err := c.Open(ctx, project, ns, key)
	if err != nil {
		return e, err
	}
	defer value.Close()
	if e.Value, err = io.ReadAll(io.LimitReader(value, hostcall.MaxValueBytes+1)); err != nil {
		return e, fmt.Errorf("read the value: %w", err)
	}
	return e, nil
}

// Open is Get with the value to be read as it comes. Close it.
func (c *Client) Open(ctx context.Context, project, ns, key string) (Entry, io.ReadCloser, error) {
	resp, err := c.do(ctx, call{method: http.MethodGet, path: keyPath(project, ns, key)})
	if err != nil {
		return Entry{}, nil, err
	}
	e, err := entryOf(resp.Header)
	if err != nil {
		resp.Body.Close()
		return e, nil, err
	}
	return e, resp.Body, nil
}

// entryOf reads what an answer's head says of the value.
func entryOf(h http.Header) (e Entry, err error) {
	if e.Revision, err = strconv.ParseUint(h.Get(api.HeaderRevision), 10, 64); err != nil {
		return e, fmt.Errorf("the answer names no revision: %w", err)
	}
	if e.Metadata, err = base64.StdEncoding.DecodeString(h.Get(api.HeaderMetadata)); err != nil {
		return e, fmt.Errorf("the answer's metadata: %w", err)
	}
	if ms, err := strconv.ParseInt(h.Get(api.HeaderExpires), 10, 64); err == nil {
		e.Expires = time.UnixMilli(ms).UTC()
	}
	if ms, err := strconv.ParseInt(h.Get(api.HeaderTime), 10, 64); err == nil {
		e.Time = time.UnixMilli(ms).UTC()
	}
	e.AsOf, _ = strconv.ParseUint(h.Get(api.HeaderAsOf), 10, 64) // 0: not said
	e.Epoch, _ = strconv.ParseUint(h.Get(api.HeaderEpoch), 10, 64)
	return e, nil
}

// Read reads 1 to hostcall.MaxReadKeys keys from the truth in one answer.
func (c *Client) Read(ctx context.Context, project, ns string, keys [][]byte) (api.ReadAnswer, error) {
	var a api.ReadAnswer
	k := call{method: http.MethodPost, path: projectPath(project, "kv", ns, "read")}
	if err := c.json(ctx, k.jsonBody(api.ReadRequest{Keys: keys}), &a); err != nil {
		return a, err
	}
	if len(a.Entries) != len(keys) {
		return a, fmt.Errorf("the answer has %d entries for %d keys", len(a.Entries), len(keys))
	}
	return a, nil
}

// Increment adds by to the number under key, once, whichever control node takes it.
func (c *Client) Increment(ctx context.Context, project, ns, key string, by int64) (api.Incremented, error) {
	var i api.Incremented
	k := call{method: http.MethodPost, path: projectPath(project, "kv", ns, "increment", key), query: url.Values{"by": {strconv.FormatInt(by, 10)}},
		header: http.Header{api.HeaderIdempotency: {rand.Text()}}}
	return i, c.json(ctx, k, &i)
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
func (c *Client) Put(ctx context.Context, project, ns, key string, value Value, o hostcall.PutOptions) (api.Written, error) {
	var w api.Written
	k := put(keyPath(project, ns, key), nil, o.Metadata, o.IfRevision)
	value.sentBy(&k)
	if o.TTL > 0 {
		k.query.Set("ttl", o.TTL.String())
	}
	return w, c.json(ctx, k, &w)
}

func put(path string, value, metadata []byte, ifRevision int64) call {
	k := call{method: http.MethodPut, path: path, query: condition(ifRevision), body: value}
	if value == nil {
		k.body = []byte{}
	}
	if len(metadata) > 0 {
		k.header = http.Header{api.HeaderMetadata: {base64.StdEncoding.EncodeToString(metadata)}}
	}
	return k
}

// PutUntil writes a key that ends at a time on the store's clock; the zero time is never. A *Refusal named
// "expired" says that it is over.
func (c *Client) PutUntil(ctx context.Context, project, ns, key string, value, metadata []byte, expires time.Time) (api.Written, error) {
	var w api.Written
	k := put(keyPath(project, ns, key), value, metadata, hostcall.AnyRevision)
	if !expires.IsZero() {
		k.query.Set("expires", strconv.FormatInt(expires.UnixMilli(), 10))
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

// CreateNamespace makes a namespace, or sets what r says of one that is there.
func (c *Client) CreateNamespace(ctx context.Context, project, ns string, r api.NamespaceRequest) (api.Namespace, error) {
	var n api.Namespace
	k := call{method: http.MethodPut, path: projectPath(project, "kv", ns)}
	return n, c.json(ctx, k.jsonBody(r), &n)
}

// Namespaces lists the project's namespaces.
func (c *Client) Namespaces(ctx context.Context, project string) ([]api.Namespace, error) {
	var l api.NamespaceList
	err := c.json(ctx, call{method: http.MethodGet, path: projectPath(project, "kv")}, &l)
	return l.Namespaces, err
}

// NamespaceStats tells what a namespace holds and what nodes were asked of it.
func (c *Client) NamespaceStats(ctx context.Context, project, ns string) (api.NamespaceStats, error) {
	var s api.NamespaceStats
	return s, c.json(ctx, call{method: http.MethodGet, path: projectPath(project, "kv", ns, "stats")}, &s)
}
