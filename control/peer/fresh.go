package peer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/selvage-edge/selvage/control/identity"
)

// TrustPath is where control tells nodes the newest trust: GET, with an ETag.
const TrustPath = "/peer/v1/trust"

const maxTrustBytes = 16 << 20

// TrustHandler serves an anchor's bundle at TrustPath.
func TrustHandler(a *identity.Anchor) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := json.Marshal(a.Trust().Bundle())
		if err != nil {
			refuse(w, http.StatusInternalServerError, "the trust bundle cannot be encoded")
			return
		}
		sum := sha256.Sum256(b)
		tag := `"` + hex.EncodeToString(sum[:]) + `"`
		w.Header().Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(b) // the peer left; nobody to tell
	})
}

// RenewHandler renews nodes' certificates at identity.RenewPath.
func RenewHandler(c *identity.Control) http.Handler {
	return Only(identity.KindNode, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, _ := From(r.Context())
		var req identity.RenewRequest
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxHead)).Decode(&req); err != nil {
			refuse(w, http.StatusBadRequest, "renewal: "+err.Error())
			return
		}
		answer, err := c.Renew(p, req)
		if err != nil {
			refuse(w, http.StatusUnprocessableEntity, err.Error())
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer) // the peer left; nobody to tell
	}))
}

// FreshConfig says what KeepFresh keeps fresh. Node and Control are required.
type FreshConfig struct {
	Node    *identity.Node
	Control *Client
	Every   time.Duration // between looks at the trust; default a minute
	Failed  func(error)   // told of each failure; nil: nobody
	Now     func() time.Time
}

// KeepFresh renews the node's certificate when it is time and follows control's
// trust, until ctx is done. Failures are tried again at the next look: there are
// ten days for a renewal.
func KeepFresh(ctx context.Context, c FreshConfig) {
	if c.Every == 0 {
		c.Every = time.Minute
	}
	if c.Failed == nil {
		c.Failed = func(error) {}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	tick := time.NewTicker(c.Every)
	defer tick.Stop()
	for tag := ""; ; {
		var err error
		if tag, err = c.look(ctx, tag); err != nil && ctx.Err() == nil {
			c.Failed(err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// look does what is due once.
func (c *FreshConfig) look(ctx context.Context, tag string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tag, err := FetchTrust(ctx, c.Control, c.Node.Member.Anchor(), tag)
	if !c.Now().Before(c.Node.RenewAt()) {
		err = errors.Join(err, c.Node.Renew(ctx, c.Control))
	}
	return tag, err
}

// FetchTrust takes over control's trust bundle if it is not the one that tag
// names, and returns its tag.
func FetchTrust(ctx context.Context, control identity.Doer, a *identity.Anchor, tag string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, TrustPath, nil)
	if err != nil {
		return tag, err
	}
	if tag != "" {
		r.Header.Set("If-None-Match", tag)
	}
	resp, err := control.Do(r)
	if err != nil {
		return tag, fmt.Errorf("fetch trust: %w", err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusNotModified:
		return tag, nil
	case http.StatusOK:
		return takeTrust(resp, a, tag)
	}
	return tag, fmt.Errorf("fetch trust: control answered %s", resp.Status)
}

func takeTrust(resp *http.Response, a *identity.Anchor, tag string) (string, error) {
	var b identity.Bundle
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxTrustBytes)).Decode(&b); err != nil {
		return tag, fmt.Errorf("fetch trust: %w", err)
	}
	if err := a.Update(b); err != nil {
		return tag, fmt.Errorf("fetch trust: %w", err)
	}
	return resp.Header.Get("ETag"), nil
}
