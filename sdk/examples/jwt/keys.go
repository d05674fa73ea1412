package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	edge "github.com/selvage-edge/selvage/sdk/go"
)

// The issuer's keys are in KV, where each PoP has them: one function in one PoP
// fetches them for all. They are fetched again when they are older than fresh,
// and when a token names a key that is not among them, at most once each pause,
// so that invented names do not become requests to the issuer.
const (
	fresh = 10 * time.Minute
	pause = time.Minute // KV's shortest life
	keep  = 24 * time.Hour
)

// keys finds an issuer's keys.
type keys struct {
	kv    *edge.Namespace
	url   func() string // of its JWK set
	fetch func(*http.Request) (*http.Response, error)
	now   func() time.Time
}

// stored is the value in KV.
type stored struct {
	Fetched time.Time       `json:"fetched"`
	Set     json.RawMessage `json:"set"`
}

const (
	setKey   = "jwks"
	pauseKey = "jwks-asked"
)

// find returns the keys with that name, or all where a token names none.
func (k *keys) find(ctx context.Context, kid string) ([]key, error) {
	all, at, err := k.known(ctx)
	if err != nil {
		return nil, err
	}
	found := named(all, kid)
	if len(found) > 0 && k.now().Sub(at) < fresh {
		return found, nil
	}
	newer, err := k.renew(ctx)
	if err != nil && len(found) == 0 {
		return nil, err
	}
	if err != nil { // the issuer is away: what it said last holds
		slog.Warn("the issuer's keys are not renewed", "error", err, "age", k.now().Sub(at))
		return found, nil
	}
	if newer == nil && at.IsZero() {
		return nil, errors.New("the issuer's keys are not known, and were asked for just now")
	}
	if newer == nil { // somebody asked just now
		return found, nil
	}
	return named(newer, kid), nil
}

func named(all []key, kid string) (found []key) {
	for _, k := range all {
		if kid == "" || k.kid == kid {
			found = append(found, k)
		}
	}
	return found
}

// known are the keys in KV, and since when; none is not an error.
func (k *keys) known(ctx context.Context) ([]key, time.Time, error) {
	b, err := k.kv.Get(ctx, setKey)
	if errors.Is(err, edge.ErrNotFound) {
		return nil, time.Time{}, nil
	}
	if err != nil {
		return nil, time.Time{}, err
	}
	var s stored
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, time.Time{}, fmt.Errorf("kv %s: %w", setKey, err)
	}
	all, err := parseKeys(s.Set)
	return all, s.Fetched, err
}

// renew asks the issuer, unless somebody did less than a pause ago: then it returns nil.
func (k *keys) renew(ctx context.Context) ([]key, error) {
	_, err := k.kv.Put(ctx, pauseKey, []byte("1"), edge.IfAbsent(), edge.TTL(pause))
	if errors.Is(err, edge.ErrConflict) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	url := k.url()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := k.fetch(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	defer resp.Body.Close()
	set, err := io.ReadAll(io.LimitReader(resp.Body, maxJWKS+1))
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: status %d, %w", url, resp.StatusCode, errors.Join(err, errors.New("no key set")))
	}
	all, err := parseKeys(set)
	if err != nil {
		return nil, err // what was kept before stays
	}
	b, err := json.Marshal(stored{k.now(), set})
	if err != nil {
		return nil, err
	}
	if _, err := k.kv.Put(ctx, setKey, b, edge.TTL(keep)); err != nil {
		slog.Warn("the issuer's keys are not kept", "error", err)
	}
	return all, nil
}
