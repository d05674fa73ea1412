package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

const (
	idemBucket   = "idempotency"
	idemLife     = 24 * time.Hour
	idemRunning  = 10 * time.Minute // after it, a request that never ended may be tried again
	maxIdemBytes = 256 << 10        // of a remembered answer
)

// remembered is what became of a request with an idempotency key.
type remembered struct {
	Request string      `json:"request"` // digest of method, path, query and body
	Done    bool        `json:"done"`
	Status  int         `json:"status,omitempty"`
	Header  http.Header `json:"header,omitempty"`
	Body    []byte      `json:"body,omitempty"`
}

// once does the request, or, if one with the same idempotency key was done,
// answers as it was answered. Failures that may be tried again are not remembered.
func (c *call) once(ctx context.Context, do func() (*reply, error)) (*reply, error) {
	given := c.r.Header.Get(HeaderIdempotency)
	if given == "" || c.route.secret {
		return do()
	}
	if err := checkIdempotencyKey(given); err != nil {
		return nil, err
	}
	bucket, key := c.a.cfg.Store.Bucket(idemBucket), c.idemKey(given)
	mine := remembered{Request: c.digest()}
	rev, err := c.claim(ctx, key, mine)
	if errors.Is(err, hostcall.ErrConflict) {
		return c.again(ctx, key, mine.Request)
	}
	if err != nil {
		return nil, err
	}
	out, err := do()
	// What became of it is owed also to a caller who has left: it may come back with the key.
	ctx = context.WithoutCancel(ctx)
	if err != nil {
		p, ours := problemOf(err)
		if ours || p.Status >= 500 {
			// Not done, or nobody knows: the key is free again.
			return nil, errors.Join(err, ignoreConflict(bucket.Delete(ctx, key, int64(rev))))
		}
		return nil, errors.Join(err, c.remember(ctx, key, rev, mine, p.Status, nil, p))
	}
	return out, c.remember(ctx, key, rev, mine, c.statusOf(out), out, nil)
}

func ignoreConflict(err error) error {
	if errors.Is(err, hostcall.ErrConflict) || errors.Is(err, hostcall.ErrNotFound) {
		return nil
	}
	return err
}

func checkIdempotencyKey(k string) error {
	if len(k) > 128 {
		return invalid("%s has %d characters, over 128", HeaderIdempotency, len(k))
	}
	for i := range len(k) {
		if k[i] <= ' ' || k[i] > '~' {
			return invalid("%s: want printable ASCII without spaces", HeaderIdempotency)
		}
	}
	return nil
}

// idemKey keeps the keys of different callers and calls apart.
func (c *call) idemKey(given string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q", c.actor, c.route.name, c.r.URL.EscapedPath(), given))
	return hex.EncodeToString(sum[:])
}

func (c *call) digest() string {
	body := sha256.Sum256(c.body)
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %x", c.r.Method, c.r.URL.EscapedPath(), c.r.URL.RawQuery, body))
	return hex.EncodeToString(sum[:])
}

// claim takes the key for this request; hostcall.ErrConflict if it is taken.
func (c *call) claim(ctx context.Context, key string, m remembered) (uint64, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return 0, fmt.Errorf("api: claim an idempotency key: %w", err)
	}
	return c.a.cfg.Store.Bucket(idemBucket).Put(ctx, key, b, hostcall.PutOptions{IfRevision: hostcall.AbsentRevision, TTL: idemRunning})
}

// again answers a request whose key is taken.
func (c *call) again(ctx context.Context, key, request string) (*reply, error) {
	e, err := c.a.cfg.Store.Bucket(idemBucket).Get(ctx, key)
	if err != nil {
		return nil, err
	}
	var m remembered
	if err := json.Unmarshal(e.Value, &m); err != nil {
		return nil, fmt.Errorf("api: read an idempotency record: %w", err)
	}
	switch {
	case m.Request != request:
		return nil, problem(http.StatusUnprocessableEntity, "idempotency-key-reused", "use a new key for a new request", "this %s came with another request before", HeaderIdempotency)
	case !m.Done:
		return nil, problem(http.StatusConflict, "in-progress", "wait for it, then ask again with the same key", "the request with this %s has not ended", HeaderIdempotency)
	}
	head := m.Header
	if head == nil {
		head = make(http.Header)
	}
	head.Set(HeaderReplayed, "true")
	return &reply{status: m.Status, raw: m.Body, head: head}, nil
}

// remember keeps the answer under the key.
func (c *call) remember(ctx context.Context, key string, rev uint64, m remembered, status int, out *reply, p *Problem) error {
	m.Done, m.Status, m.Header = true, status, make(http.Header)
	m.Header.Set("Content-Type", problemMedia)
	var v any
	if p != nil {
		q := *p
		q.Instance = c.id
		v = q
	}
	if out != nil {
		v = out.json
		m.Header.Set("Content-Type", "application/json")
		for k, vs := range out.head {
			m.Header[k] = vs
		}
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("api: remember an answer: %w", err)
	}
	if m.Body = append(b, '\n'); len(m.Body) > maxIdemBytes {
		return nil
	}
	b, err = json.Marshal(m)
	if err != nil {
		return fmt.Errorf("api: remember an answer: %w", err)
	}
	_, err = c.a.cfg.Store.Bucket(idemBucket).Put(ctx, key, b, hostcall.PutOptions{IfRevision: int64(rev), TTL: idemLife})
	if err != nil {
		// What was asked for is done; that it can be done twice is worth a warning, not a failure.
		c.a.cfg.Log.Warn("api: an answer could not be remembered", "request", c.id, "error", err)
	}
	return nil
}
