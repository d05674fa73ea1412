package agent

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// kvPath is where control serves KV to nodes:
//
//	GET, PUT, DELETE  kvPath/PROJECT/NAMESPACE/KEY   PUT: ttl_ms, if_revision; DELETE: if_revision
//	GET               kvPath/PROJECT/NAMESPACE       prefix, cursor, limit
//
// Keys, prefixes and cursors are base64url without padding; a value is the body.
const kvPath = "/peer/v1/kv"

// Headers of a value.
const (
	headerRevision = "Selvage-Revision"
	headerExpires  = "Selvage-Expires"    // Unix milliseconds by control's clock; absent: never
	headerLeft     = "Selvage-Expires-In" // the same, in milliseconds from control's answer
)

// Origin is KV as control has it, over mTLS: what edge/kv keeps copies of.
type Origin struct{ control Doer }

var _ hostcall.KV = (*Origin)(nil)

// NewOrigin returns the KV behind control.
func NewOrigin(control Doer) *Origin { return &Origin{control} }

// Get implements hostcall.KV.
func (o *Origin) Get(ctx context.Context, ns hostcall.Namespace, key string) (hostcall.Entry, error) {
	asked := time.Now()
	resp, err := o.do(ctx, http.MethodGet, keyPath(ns, key), nil, nil)
	if err != nil {
		return hostcall.Entry{}, fmt.Errorf("origin get: %w", err)
	}
	defer resp.Body.Close()
	e, err := entryOf(resp, asked)
	if err != nil {
		return hostcall.Entry{}, fmt.Errorf("origin get: %w: %w", hostcall.ErrUnavailable, err)
	}
	return e, nil
}

// entryOf reads an answer to what was asked then. How long a value still lives is
// counted from there, on this node's clock, which may be off control's and may be set
// meanwhile: so it is not served for longer than the store does.
func entryOf(resp *http.Response, asked time.Time) (e hostcall.Entry, err error) {
	if e.Revision, err = strconv.ParseUint(resp.Header.Get(headerRevision), 10, 64); err != nil {
		return e, fmt.Errorf("header %s: %w", headerRevision, err)
	}
	if s := resp.Header.Get(headerLeft); s != "" {
		ms, err := strconv.ParseInt(s, 10, 64)
		if err != nil || ms < 0 || ms > math.MaxInt64/int64(time.Millisecond) {
			return e, fmt.Errorf("header %s: %.40q: want milliseconds", headerLeft, s)
		}
		e.Expires = asked.Add(time.Duration(ms) * time.Millisecond)
	} else if s := resp.Header.Get(headerExpires); s != "" { // of an older control node
		ms, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return e, fmt.Errorf("header %s: %w", headerExpires, err)
		}
		e.Expires = time.UnixMilli(ms)
	}
	e.Value, err = readBody(resp, hostcall.MaxValueBytes)
	return e, err
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
	if err := decodeJSON(resp, &done); err != nil {
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
	if err := decodeJSON(resp, &page); err != nil {
		return nil, "", fmt.Errorf("origin list: %w", err)
	}
	var keys []hostcall.KeyInfo
	for _, k := range page.Keys {
		keys = append(keys, hostcall.KeyInfo{Key: string(k.Key), Revision: k.Revision, Expires: k.Expires})
	}
	return keys, string(page.Next), nil
}

// maxListBytes bounds a page: the most keys of the most bytes, and what is said of each.
const maxListBytes = hostcall.MaxListKeys * 2 * (hostcall.MaxKeyBytes + 128)

func decodeJSON(resp *http.Response, into any) error {
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxListBytes)).Decode(into); err != nil {
		return fmt.Errorf("%w: control's answer: %w", hostcall.ErrUnavailable, err)
	}
	return nil
}

// do sends one request and returns a good answer only.
func (o *Origin) do(ctx context.Context, method, path string, q url.Values, body []byte) (*http.Response, error) {
	u := url.URL{Path: path, RawQuery: q.Encode()}
	var reader io.Reader
	if method == http.MethodPut {
		reader = bytes.NewReader(body)
	}
	r, err := http.NewRequestWithContext(ctx, method, u.String(), reader)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", hostcall.ErrInvalid, err)
	}
	resp, err := o.control.Do(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", hostcall.ErrUnavailable, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	err = refusal(resp)
	return nil, fmt.Errorf("%w: %w", meaning(err), err)
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
