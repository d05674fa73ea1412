package agent

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/selvage-edge/selvage/control/peer"
	"github.com/selvage-edge/selvage/edge/kv"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// kvPath is where control serves KV to nodes:
//
//	GET, PUT, DELETE  kvPath/PROJECT/NAMESPACE/KEY   PUT: ttl_ms, if_revision; DELETE: if_revision
//	POST              kvPath/PROJECT/NAMESPACE/KEY   by: increments
//	GET               kvPath/PROJECT/NAMESPACE       prefix, cursor, limit
//	POST              kvPath/PROJECT/NAMESPACE       reads the keys in the body, at_least
//
// Keys, prefixes and cursors are base64url without padding; a value is the body.
const kvPath = "/peer/v1/kv"

// Headers of a value.
const (
	headerRevision = "Selvage-Revision"
	headerExpires  = "Selvage-Expires"  // Unix milliseconds on the store's clock; absent: never
	headerTime     = "Selvage-Time"     // that clock at control's answer, in the same unit
	headerMetadata = "Selvage-Metadata" // base64; absent: none
	headerAsOf     = "Selvage-As-Of"    // what the answer reflects, also "not found"
	headerStale    = "Selvage-Stale"    // milliseconds; of a neighbour's answer
)

// Origin is KV as control has it, over mTLS: what edge/kv keeps copies of. What a Doer fails
// before it was sent (peer.Unsent) is told as that (hostcall.ErrUnsent).
type Origin struct{ control Doer }

var _ hostcall.KV = (*Origin)(nil)

// NewOrigin returns the KV behind control.
func NewOrigin(control Doer) *Origin { return &Origin{control} }

// Get implements hostcall.KV.
func (o *Origin) Get(ctx context.Context, ns hostcall.Namespace, key string) (hostcall.Entry, error) {
	e, err := o.entry(ctx, keyPath(ns, key), nil)
	if err != nil {
		return e, fmt.Errorf("origin get: %w", err)
	}
	return e, nil
}

// entry asks for one key; a "not found" says what it reflects, too.
func (o *Origin) entry(ctx context.Context, path string, q url.Values) (hostcall.Entry, error) {
	resp, err := o.send(ctx, http.MethodGet, path, q, nil)
	if err != nil {
		return hostcall.Entry{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		if q != nil && resp.Header.Get(headerAsOf) == "" { // a node of a version that has no such path, say
			return hostcall.Entry{}, fmt.Errorf("%w: who was asked does not look after keys: %w", hostcall.ErrUnavailable, refusal(resp))
		}
		e, err := about(resp)
		return e, errors.Join(hostcall.ErrNotFound, err)
	}
	if err := check(resp); err != nil {
		return hostcall.Entry{}, err
	}
	e, err := entryOf(ctx, resp)
	if err != nil {
		return hostcall.Entry{}, fmt.Errorf("%w: %w", hostcall.ErrUnavailable, err)
	}
	return e, nil
}

// Read implements hostcall.KV.
func (o *Origin) Read(ctx context.Context, ns hostcall.Namespace, keys []string, opt hostcall.ReadOptions) ([]hostcall.Result, error) {
	if len(keys) == 1 { // as it is, not in base64 in JSON
		return o.readOne(ctx, ns, keys[0], opt)
	}
	ask := readRequest{Keys: make([][]byte, len(keys)), AtLeast: opt.AtLeast}
	for i, key := range keys {
		ask.Keys[i] = []byte(key)
	}
	body, err := json.Marshal(ask)
	if err != nil {
		return nil, fmt.Errorf("origin read: %w", err)
	}
	resp, err := o.do(ctx, http.MethodPost, spacePath(ns), nil, body)
	if err != nil {
		return nil, fmt.Errorf("origin read: %w", err)
	}
	defer resp.Body.Close()
	var got readAnswer
	size := int64(maxReadBytes)
	if resp.ContentLength >= 0 {
		size = min(size, resp.ContentLength)
	}
	done, err := kv.Receive(ctx, 2*size) // the JSON, and what is in it
	if err != nil {
		return nil, fmt.Errorf("origin read: %w: %w", hostcall.ErrUnavailable, err)
	}
	defer done()
	if err := decodeJSON(resp, &got, maxReadBytes); err != nil {
		return nil, fmt.Errorf("origin read: %w", err)
	}
	if len(got.Entries) != len(keys) {
		return nil, fmt.Errorf("origin read: %w: %d answers for %d keys", hostcall.ErrUnavailable, len(got.Entries), len(keys))
	}
	out := make([]hostcall.Result, len(keys))
	for i, e := range got.Entries {
		out[i].AsOf, out[i].At = got.AsOf, got.Time
		if !e.Found {
			out[i].Err = hostcall.ErrNotFound
			continue
		}
		out[i].Value, out[i].Metadata, out[i].Revision, out[i].Expires = e.Value, e.Metadata, e.Revision, e.Expires
	}
	return out, nil
}

// readOne is Read of one key.
func (o *Origin) readOne(ctx context.Context, ns hostcall.Namespace, key string, opt hostcall.ReadOptions) ([]hostcall.Result, error) {
	e, err := o.entry(ctx, keyPath(ns, key), url.Values{"at_least": {strconv.FormatUint(opt.AtLeast, 10)}})
	switch {
	case err == nil:
		return []hostcall.Result{{Entry: e}}, nil
	case errors.Is(err, hostcall.ErrNotFound):
		return []hostcall.Result{{Entry: e, Err: hostcall.ErrNotFound}}, nil
	}
	return nil, fmt.Errorf("origin read: %w", err)
}

// readRequest and readAnswer are control's.
type readRequest struct {
	Keys    [][]byte `json:"keys"`
	AtLeast uint64   `json:"at_least,omitempty"`
}

type readAnswer struct {
	Entries []struct {
		Found    bool      `json:"found"`
		Value    []byte    `json:"value"`
		Metadata []byte    `json:"metadata"`
		Revision uint64    `json:"revision"`
		Expires  time.Time `json:"expires"`
	} `json:"entries"`
	AsOf uint64    `json:"as_of"`
	Time time.Time `json:"time"` // absent from an older control node
}

// maxReadBytes bounds an answer: values in base64, and what is said of each key.
const maxReadBytes = 2*hostcall.MaxReadBytes + hostcall.MaxReadKeys*2*(hostcall.MaxKeyBytes+256)

// Increment implements hostcall.KV.
func (o *Origin) Increment(ctx context.Context, ns hostcall.Namespace, key string, delta int64) (int64, uint64, error) {
	resp, err := o.do(ctx, http.MethodPost, keyPath(ns, key), url.Values{"by": {strconv.FormatInt(delta, 10)}}, nil)
	if err != nil {
		return 0, 0, fmt.Errorf("origin increment: %w", err)
	}
	defer resp.Body.Close()
	var done struct {
		Value    int64  `json:"value"`
		Revision uint64 `json:"revision"`
	}
	if err := decodeJSON(resp, &done, maxListBytes); err != nil {
		return 0, 0, fmt.Errorf("origin increment: %w", err)
	}
	return done.Value, done.Revision, nil
}

func entryOf(ctx context.Context, resp *http.Response) (e hostcall.Entry, err error) {
	if e, err = about(resp); err != nil {
		return e, err
	}
	if e.Metadata, err = metadataOf(resp.Header); err != nil {
		return e, err
	}
	if e.Revision, err = strconv.ParseUint(resp.Header.Get(headerRevision), 10, 64); err != nil {
		return e, fmt.Errorf("header %s: %w", headerRevision, err)
	}
	if s := resp.Header.Get(headerExpires); s != "" {
		ms, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return e, fmt.Errorf("header %s: %w", headerExpires, err)
		}
		e.Expires = time.UnixMilli(ms)
	}
	e.Value, err = receive(ctx, resp)
	return e, err
}

// receive takes a value when there is room for it.
func receive(ctx context.Context, resp *http.Response) ([]byte, error) {
	size := int64(hostcall.MaxValueBytes)
	if resp.ContentLength >= 0 {
		size = min(size, resp.ContentLength)
	}
	done, err := kv.Receive(ctx, size)
	if err != nil {
		return nil, err
	}
	defer done()
	return readBody(resp, hostcall.MaxValueBytes)
}

// metadataOf is nil for none.
func metadataOf(h http.Header) ([]byte, error) {
	s := h.Get(headerMetadata)
	if s == "" {
		return nil, nil
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil || len(b) > hostcall.MaxMetadataBytes {
		return nil, fmt.Errorf("header %s: want at most %d bytes in base64", headerMetadata, hostcall.MaxMetadataBytes)
	}
	return b, nil
}

// readBody takes a body of at most limit bytes, in one piece when its length is known.
func readBody(resp *http.Response, limit int64) ([]byte, error) {
	if resp.ContentLength > limit {
		return nil, fmt.Errorf("an answer of %d bytes, at most %d", resp.ContentLength, limit)
	}
	if resp.ContentLength >= 0 {
		b := make([]byte, resp.ContentLength)
		_, err := io.ReadFull(resp.Body, b)
		return b, err
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("an answer of more than %d bytes", limit)
	}
	return b, err
}

// Put implements hostcall.KV.
func (o *Origin) Put(ctx context.Context, ns hostcall.Namespace, key string, value []byte, opt hostcall.PutOptions) (uint64, error) {
	q := url.Values{"if_revision": {strconv.FormatInt(opt.IfRevision, 10)}}
	if opt.TTL > 0 {
		// Rounded up: a value must not end before its time.
		q.Set("ttl_ms", strconv.FormatInt(int64((opt.TTL+time.Millisecond-1)/time.Millisecond), 10))
	}
	if len(opt.Metadata) > 0 {
		q.Set("metadata", base64.RawURLEncoding.EncodeToString(opt.Metadata))
	}
	rev, err := o.write(ctx, http.MethodPut, keyPath(ns, key), q, value)
	if err != nil {
		return 0, fmt.Errorf("origin put: %w", err)
	}
	return rev, nil
}

// Delete implements hostcall.KV.
func (o *Origin) Delete(ctx context.Context, ns hostcall.Namespace, key string, ifRevision int64) (uint64, error) {
	q := url.Values{"if_revision": {strconv.FormatInt(ifRevision, 10)}}
	rev, err := o.write(ctx, http.MethodDelete, keyPath(ns, key), q, nil)
	if err != nil {
		return 0, fmt.Errorf("origin delete: %w", err)
	}
	return rev, nil
}

func (o *Origin) write(ctx context.Context, method, path string, q url.Values, body []byte) (uint64, error) {
	resp, err := o.do(ctx, method, path, q, body)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var done struct {
		Revision uint64 `json:"revision"`
	}
	if err := decodeJSON(resp, &done, maxListBytes); err != nil {
		return 0, err
	}
	return done.Revision, nil
}

// listing is a page of keys as control sends it.
type listing struct {
	Keys []struct {
		Key      []byte    `json:"key"`
		Revision uint64    `json:"revision"`
		Expires  time.Time `json:"expires"` // absent: never
		Metadata []byte    `json:"metadata"`
	} `json:"keys"`
	Next []byte `json:"next,omitempty"`
}

// List implements hostcall.KV.
func (o *Origin) List(ctx context.Context, ns hostcall.Namespace, prefix, cursor string, limit int) ([]hostcall.KeyInfo, string, error) {
	q := url.Values{"prefix": {encodeKey(prefix)}, "cursor": {encodeKey(cursor)}, "limit": {strconv.Itoa(limit)}}
	resp, err := o.do(ctx, http.MethodGet, spacePath(ns), q, nil)
	if err != nil {
		return nil, "", fmt.Errorf("origin list: %w", err)
	}
	defer resp.Body.Close()
	var page listing
	if err := decodeJSON(resp, &page, maxListBytes); err != nil {
		return nil, "", fmt.Errorf("origin list: %w", err)
	}
	var keys []hostcall.KeyInfo
	for _, k := range page.Keys {
		keys = append(keys, hostcall.KeyInfo{Key: string(k.Key), Revision: k.Revision, Expires: k.Expires, Metadata: k.Metadata})
	}
	return keys, string(page.Next), nil
}

// maxListBytes bounds a page: the most keys of the most bytes, and what is said of each.
const maxListBytes = hostcall.MaxListKeys * 2 * (hostcall.MaxKeyBytes + hostcall.MaxMetadataBytes + 128)

func decodeJSON(resp *http.Response, into any, limit int64) error {
	if err := json.NewDecoder(io.LimitReader(resp.Body, limit)).Decode(into); err != nil {
		return fmt.Errorf("%w: control's answer: %w", hostcall.ErrUnavailable, err)
	}
	return nil
}

// do sends one request and returns a good answer only.
func (o *Origin) do(ctx context.Context, method, path string, q url.Values, body []byte) (*http.Response, error) {
	resp, err := o.send(ctx, method, path, q, body)
	if err != nil {
		return nil, err
	}
	if err := check(resp); err != nil {
		resp.Body.Close()
		return nil, err
	}
	return resp, nil
}

// check refuses what is no good answer.
func check(resp *http.Response) error {
	if resp.StatusCode/100 == 2 {
		return nil
	}
	err := refusal(resp)
	return fmt.Errorf("%w: %w", meaning(err), err)
}

func (o *Origin) send(ctx context.Context, method, path string, q url.Values, body []byte) (*http.Response, error) {
	u := url.URL{Path: path, RawQuery: q.Encode()}
	var reader io.Reader
	if method == http.MethodPut || body != nil {
		reader = bytes.NewReader(body)
	}
	r, err := http.NewRequestWithContext(ctx, method, u.String(), reader)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", hostcall.ErrInvalid, err)
	}
	resp, err := o.control.Do(r)
	switch {
	case err == nil:
		return resp, nil
	case peer.Unsent(err):
		return nil, fmt.Errorf("%w: %w", hostcall.ErrUnsent, err)
	}
	return nil, fmt.Errorf("%w: %w", hostcall.ErrUnavailable, err)
}

// meaning is what control's status means to a guest.
func meaning(err error) error {
	var s *statusError
	if !errors.As(err, &s) {
		return hostcall.ErrUnavailable
	}
	switch s.status {
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return hostcall.ErrInvalid
	case http.StatusForbidden:
		return hostcall.ErrDenied
	case http.StatusNotFound:
		return hostcall.ErrNotFound
	case http.StatusConflict, http.StatusPreconditionFailed:
		return hostcall.ErrConflict
	case http.StatusRequestEntityTooLarge:
		return hostcall.ErrTooLarge
	}
	return hostcall.ErrUnavailable
}

func encodeKey(key string) string { return base64.RawURLEncoding.EncodeToString([]byte(key)) }

func spacePath(ns hostcall.Namespace) string {
	return kvPath + "/" + url.PathEscape(ns.Project) + "/" + url.PathEscape(ns.Name)
}

func keyPath(ns hostcall.Namespace, key string) string { return spacePath(ns) + "/" + encodeKey(key) }
