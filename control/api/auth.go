package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// tokenBucket holds the records of API tokens by ID, joinBucket those of join tokens.
const (
	tokenBucket = "tokens"
	joinBucket  = "join-tokens"
)

// authenticate finds the caller's token and checks that it has the route's scope.
func (c *call) authenticate() error {
	secret, ok := strings.CutPrefix(c.r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return problem(http.StatusUnauthorized, "no-token", "send the header 'Authorization: Bearer TOKEN'", "this call needs a token")
	}
	t, err := c.a.token(c.r.Context(), secret)
	if err != nil {
		if errors.Is(err, identity.ErrToken) && !c.a.limiter.mayFail(c.remote()) {
			return problem(http.StatusTooManyRequests, "too-many-failures", "wait, then use a valid token", "too many refused tokens from this address")
		}
		return err
	}
	c.token, c.actor = t, "token:"+t.ID
	if !t.Allows(c.route.scope, c.project) {
		return problem(http.StatusForbidden, "scope", "ask an operator for a token with scope "+string(c.route.scope)+of(c.project),
			"the token %s has not scope %s%s", t.ID, c.route.scope, of(c.project))
	}
	return nil
}

func of(project string) string {
	if project == "" {
		return " for the whole fleet"
	}
	return " in project " + project
}

// token returns the record of a token's text; identity.ErrToken if it is not one of ours.
func (a *API) token(ctx context.Context, secret string) (identity.Token, error) {
	id, err := identity.TokenID(secret)
	if err != nil {
		return identity.Token{}, err
	}
	t, err := a.tokenRecord(ctx, id)
	if errors.Is(err, hostcall.ErrNotFound) {
		// The same words as for a wrong secret: which IDs exist is not told.
		return identity.Token{}, fmt.Errorf("%w: unknown", identity.ErrToken)
	}
	if err != nil {
		return identity.Token{}, err
	}
	return t, t.Check(secret, a.cfg.Now())
}

func (a *API) tokenRecord(ctx context.Context, id string) (t identity.Token, err error) {
	e, err := a.cfg.Store.Bucket(tokenBucket).Get(ctx, id)
	if err != nil {
		return t, err
	}
	if err := json.Unmarshal(e.Value, &t); err != nil {
		return t, fmt.Errorf("api: record of token %s: %w", id, err)
	}
	return t, nil
}

func (a *API) saveToken(ctx context.Context, t identity.Token, ifRevision int64) error {
	return a.saveRecord(ctx, tokenBucket, t.ID, t, hostcall.PutOptions{IfRevision: ifRevision, TTL: max(time.Second, t.Expires.Sub(a.cfg.Now()))})
}

func (a *API) saveRecord(ctx context.Context, bucket, key string, v any, o hostcall.PutOptions) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("api: record %s of %s: %w", key, bucket, err)
	}
	_, err = a.cfg.Store.Bucket(bucket).Put(ctx, key, b, o)
	return err
}

// adopted marks that init's tokens were taken over once: one revoked since must not come back.
const adoptedBucket = "adopted-tokens"

func (a *API) adoptTokens(ctx context.Context) error {
	for _, t := range a.cfg.Identity.Tokens {
		if _, err := a.cfg.Store.Bucket(adoptedBucket).Get(ctx, t.ID); err == nil {
			continue
		}
		if err := a.saveToken(ctx, t, hostcall.AnyRevision); err != nil {
			return err
		}
		if err := a.saveRecord(ctx, adoptedBucket, t.ID, Empty{}, hostcall.PutOptions{IfRevision: hostcall.AnyRevision}); err != nil {
			return err
		}
	}
	return nil
}

// limiter slows down who guesses tokens.
type limiter struct {
	now func() time.Time
	mu  struct {
		sync.Mutex
		failures map[string]*rate.Limiter // by address
	}
}

const (
	failuresPerSecond = 1
	failuresBurst     = 20
	maxAddresses      = 10_000
)

func newLimiter(now func() time.Time) *limiter {
	l := &limiter{now: now}
	l.mu.failures = make(map[string]*rate.Limiter)
	return l
}

// mayFail counts a refused token of an address and reports whether that is still bearable.
func (l *limiter) mayFail(addr string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.mu.failures[addr]
	if f == nil {
		if len(l.mu.failures) >= maxAddresses {
			l.forget()
		}
		f = rate.NewLimiter(failuresPerSecond, failuresBurst)
		l.mu.failures[addr] = f
	}
	return f.AllowN(l.now(), 1)
}

// forget drops the addresses that have been good for a while, or else all; the lock is held.
func (l *limiter) forget() {
	for addr, f := range l.mu.failures {
		if f.TokensAt(l.now()) >= failuresBurst {
			delete(l.mu.failures, addr)
		}
	}
	if len(l.mu.failures) >= maxAddresses {
		clear(l.mu.failures)
	}
}
