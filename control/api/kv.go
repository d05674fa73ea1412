package api

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// namespace returns the namespace in the path, if the catalog has it.
func (c *call) namespace() (hostcall.Namespace, error) {
	ns := hostcall.Namespace{Project: c.project, Name: c.param("namespace")}
	if _, ok := c.a.Catalog().Namespace(ns.Project, ns.Name); !ok {
		return ns, problem(http.StatusNotFound, "no-namespace", "make it: selvage kv create "+ns.Name+" (PUT /v1/projects/"+ns.Project+"/kv/"+ns.Name+"), or bind it in a function and deploy",
			"project %s has no namespace %s", ns.Project, ns.Name)
	}
	return ns, nil
}

func (a *API) getKey(ctx context.Context, c *call) (*reply, error) {
	ns, err := c.namespace()
	if err != nil {
		return nil, err
	}
	return a.readKey(ctx, c, ns, c.param("key"))
}

// readKey answers a read, for developers and nodes alike. A missing key's answer says, as any, what it reflects.
func (a *API) readKey(ctx context.Context, c *call, ns hostcall.Namespace, key string) (*reply, error) {
	h := c.w.Header()
	h.Set(HeaderEpoch, strconv.FormatUint(a.cfg.Store.Epoch(), 10))
	h.Set(HeaderTime, strconv.FormatInt(a.cfg.Now().UnixMilli(), 10))
	atLeast, err := queryUint(c.r, "at_least", 0)
	if err != nil {
		return nil, err
	}
	if err := c.reserve(ctx, ns, key); err != nil {
		return nil, err
	}
	got, err := a.cfg.Store.KV().Read(ctx, ns, []string{key}, hostcall.ReadOptions{Strong: true, AtLeast: atLeast})
	if err != nil {
		return nil, err
	}
	e := got[0]
	c.share.Keep(int64(len(e.Value)))
	h.Set(HeaderAsOf, strconv.FormatUint(e.AsOf, 10))
	if e.Err != nil {
		return nil, e.Err
	}
	head := http.Header{}
	if len(e.Metadata) > 0 {
		head.Set(HeaderMetadata, base64.StdEncoding.EncodeToString(e.Metadata))
	}
	head.Set(HeaderRevision, strconv.FormatUint(e.Revision, 10))
	head.Set("ETag", `"`+strconv.FormatUint(e.Revision, 10)+`"`)
	if !e.Expires.IsZero() {
		head.Set(HeaderExpires, strconv.FormatInt(e.Expires.UnixMilli(), 10))
	}
	return &reply{raw: e.Value, head: head}, nil
}

func (a *API) putKey(ctx context.Context, c *call) (*reply, error) {
	ns, err := c.namespace()
	if err != nil {
		return nil, err
	}
	o := hostcall.PutOptions{}
	if s := c.r.URL.Query().Get("ttl"); s != "" {
		if o.TTL, err = time.ParseDuration(s); err != nil || o.TTL <= 0 {
			return nil, invalid("ttl=%.40q: want a duration above 0, such as 90s or 24h", s)
		}
	}
	if s := c.r.URL.Query().Get("expires"); s != "" {
		if o.TTL, err = a.until(s, o.TTL); err != nil {
			return nil, err
		}
	}
	if o.IfRevision, err = ifRevision(c.r); err != nil {
		return nil, err
	}
	if o.Metadata, err = base64.StdEncoding.DecodeString(c.r.Header.Get(HeaderMetadata)); err != nil {
		return nil, invalid("header %s: want up to %d bytes in base64: %v", HeaderMetadata, hostcall.MaxMetadataBytes, err)
	}
	out, err := a.writeKey(ctx, c, ns, c.param("key"), o)
	return out, a.told(ctx, ns, c.param("key"), o.IfRevision, err)
}

// told says of a conflict what the key is at, and what to do; another error stays as it is.
func (a *API) told(ctx context.Context, ns hostcall.Namespace, key string, wanted int64, err error) error {
	if !errors.Is(err, hostcall.ErrConflict) {
		return err
	}
	name := fmt.Sprintf("key %.80q", key)
	e, now := a.cfg.Store.KV().Get(ctx, ns, key)
	const absent = "the key was to be absent (--if-absent, if_revision=0, If-None-Match)"
	switch {
	case errors.Is(now, hostcall.ErrNotFound):
		return problem(http.StatusConflict, "conflict", "it was deleted or has ended since it was read: write it with --if-absent (if_revision=0), or without a condition", "%s is not there, and was to be at revision %d", name, wanted)
	case now != nil:
		return err
	case wanted == hostcall.AbsentRevision:
		return problem(http.StatusConflict, "conflict", fmt.Sprintf("to replace what it holds now, write with --if-revision %d (if_revision=%[1]d), or without a condition", e.Revision), "%s is there already, at revision %d; %s", name, e.Revision, absent)
	}
	return problem(http.StatusConflict, "conflict", fmt.Sprintf("read it again and decide anew; --if-revision %d (if_revision=%[1]d) is what it is at now", e.Revision), "%s is at revision %d, and was to be at %d", name, e.Revision, wanted)
}

// until is the time to live of a value that ends at a time on the store's clock, in Unix ms.
func (a *API) until(expires string, ttl time.Duration) (time.Duration, error) {
	ms, err := strconv.ParseInt(expires, 10, 64)
	if err != nil || ms <= 0 {
		return 0, invalid("expires=%.40q: want Unix milliseconds", expires)
	}
	if ttl != 0 {
		return 0, invalid("ttl and expires: want one of them")
	}
	left := time.UnixMilli(ms).Sub(a.cfg.Now())
	if left < time.Millisecond {
		return 0, problem(http.StatusUnprocessableEntity, "expired", "leave it out, or give it a later end", "expires=%d is over: the store's clock says %d", ms, a.cfg.Now().UnixMilli())
	}
	return left, nil
}

func (a *API) writeKey(ctx context.Context, c *call, ns hostcall.Namespace, key string, o hostcall.PutOptions) (*reply, error) {
	rev, err := a.cfg.Store.KV().Put(ctx, ns, key, c.body, o)
	if err != nil {
		return nil, err
	}
	return a.written(c, rev), nil
}

// written answers a write; its key goes to the audit trail by the path.
func (a *API) written(c *call, rev uint64) *reply {
	s := strconv.FormatUint(rev, 10)
	c.note("revision", s)
	return &reply{json: Written{Revision: rev, Epoch: a.cfg.Store.Epoch()}, head: http.Header{HeaderRevision: {s}}}
}

func (a *API) deleteKey(ctx context.Context, c *call) (*reply, error) {
	ns, err := c.namespace()
	if err != nil {
		return nil, err
	}
	at, err := ifRevision(c.r)
	if err != nil {
		return nil, err
	}
	if at == hostcall.AnyRevision {
		return a.removeIfThere(ctx, c, ns, c.param("key"))
	}
	out, err := a.removeKey(ctx, c, ns, c.param("key"), at)
	return out, a.told(ctx, ns, c.param("key"), at, err)
}

// removeIfThere deletes a key whatever it holds, and tells whether there was one.
func (a *API) removeIfThere(ctx context.Context, c *call, ns hostcall.Namespace, key string) (*reply, error) {
	for {
		e, err := a.cfg.Store.KV().Get(ctx, ns, key)
		if errors.Is(err, hostcall.ErrNotFound) {
			return &reply{json: Written{Revision: a.cfg.Store.KV().AsOf(), Epoch: a.cfg.Store.Epoch(), Absent: true}}, nil
		}
		if err != nil {
			return nil, err
		}
		out, err := a.removeKey(ctx, c, ns, key, int64(e.Revision))
		if !errors.Is(err, hostcall.ErrConflict) && !errors.Is(err, hostcall.ErrNotFound) {
			return out, err
		}
	}
}

func (a *API) removeKey(ctx context.Context, c *call, ns hostcall.Namespace, key string, at int64) (*reply, error) {
	rev, err := a.cfg.Store.KV().Delete(ctx, ns, key, at)
	if err != nil {
		return nil, err
	}
	return a.written(c, rev), nil
}

// ifRevision reads the condition from if_revision, If-Match or If-None-Match; two of them are an error.
func ifRevision(r *http.Request) (int64, error) {
	given, at := 0, hostcall.AnyRevision
	take := func(s string) (err error) {
		given++
		if at, err = strconv.ParseInt(s, 10, 64); err != nil || at < hostcall.AnyRevision {
			return invalid("revision %.40q: want a number; 0 for absent", s)
		}
		return nil
	}
	if s := r.URL.Query().Get("if_revision"); s != "" {
		if err := take(s); err != nil {
			return 0, err
		}
	}
	if s := r.Header.Get("If-Match"); s != "" {
		if err := take(strings.Trim(s, `"`)); err != nil {
			return 0, err
		}
	}
	if s := r.Header.Get("If-None-Match"); s != "" {
		if s != "*" {
			return 0, invalid("If-None-Match: only * is meant here: the key must not be there")
		}
		if err := take("0"); err != nil {
			return 0, err
		}
	}
	if given > 1 {
		return 0, invalid("more than one condition: use one of if_revision, If-Match and If-None-Match")
	}
	return at, nil
}

func (a *API) getKeys(ctx context.Context, c *call) (*reply, error) {
	ns, err := c.namespace()
	if err != nil {
		return nil, err
	}
	return a.readKeys(ctx, c, ns)
}

// readKeys answers for several keys, for developers and nodes alike.
func (a *API) readKeys(ctx context.Context, c *call, ns hostcall.Namespace) (*reply, error) {
	var req ReadRequest
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	keys := make([]string, len(req.Keys))
	for i, k := range req.Keys {
		keys[i] = string(k)
	}
	if err := c.reserve(ctx, ns, keys...); err != nil {
		return nil, err
	}
	got, err := a.cfg.Store.KV().Read(ctx, ns, keys, hostcall.ReadOptions{Strong: true, AtLeast: req.AtLeast})
	if err != nil {
		return nil, err
	}
	out := ReadAnswer{Entries: make([]ReadEntry, len(got)), AsOf: got[0].AsOf, Epoch: a.cfg.Store.Epoch(), Time: a.cfg.Now().UTC()}
	for i, e := range got {
		out.AsOf = min(out.AsOf, e.AsOf)
		out.Entries[i] = ReadEntry{Key: req.Keys[i], Found: e.Err == nil, Value: e.Value, Metadata: e.Metadata, Revision: e.Revision, Expires: e.Expires}
	}
	return &reply{json: out}, nil
}

func (a *API) incrementKey(ctx context.Context, c *call) (*reply, error) {
	ns, err := c.namespace()
	if err != nil {
		return nil, err
	}
	return a.increment(ctx, c, ns, c.param("key"))
}

func (a *API) increment(ctx context.Context, c *call, ns hostcall.Namespace, key string) (*reply, error) {
	by := int64(1)
	if s := c.r.URL.Query().Get("by"); s != "" {
		var err error
		if by, err = strconv.ParseInt(s, 10, 64); err != nil {
			return nil, invalid("by=%.40q: want a number of 64 bits, such as 1 or -1", s)
		}
	}
	value, rev, err := a.cfg.Store.KV().Increment(ctx, ns, key, by)
	if err != nil {
		return nil, err
	}
	c.note("revision", strconv.FormatUint(rev, 10))
	return &reply{json: Incremented{Value: value, Revision: rev, Epoch: a.cfg.Store.Epoch()}}, nil
}

func (a *API) listKeys(ctx context.Context, c *call) (*reply, error) {
	ns, err := c.namespace()
	if err != nil {
		return nil, err
	}
	q := c.r.URL.Query()
	cursor, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(q.Get("cursor"), "="))
	if err != nil {
		return nil, invalid("cursor: want it as 'next' gave it, in base64url")
	}
	return a.pageOfKeys(ctx, c, ns, q.Get("prefix"), string(cursor))
}

func (a *API) pageOfKeys(ctx context.Context, c *call, ns hostcall.Namespace, prefix, cursor string) (*reply, error) {
	limit, err := queryUint(c.r, "limit", 100)
	if err != nil {
		return nil, err
	}
	if limit == 0 || limit > hostcall.MaxListKeys {
		return nil, invalid("limit=%d: want 1 to %d", limit, hostcall.MaxListKeys)
	}
	asOf := a.cfg.Store.KV().AsOf()
	keys, next, err := a.cfg.Store.KV().List(ctx, ns, prefix, cursor, int(limit))
	if err != nil {
		return nil, err
	}
	out := KeyList{Keys: make([]Key, len(keys)), Next: []byte(next), AsOf: asOf, Epoch: a.cfg.Store.Epoch()}
	for i, k := range keys {
		out.Keys[i] = Key{Key: []byte(k.Key), Revision: k.Revision, Expires: k.Expires.UTC(), Metadata: k.Metadata}
		if k.Expires.IsZero() {
			out.Keys[i].Expires = time.Time{}
		}
		if utf8.ValidString(k.Key) {
			out.Keys[i].Text = k.Key
		}
	}
	return &reply{json: out}, nil
}
