package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

func (a *API) createToken(ctx context.Context, c *call) (*reply, error) {
	var req TokenRequest
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	if len(req.Note) > 200 {
		return nil, invalid("note: %d bytes, over 200", len(req.Note))
	}
	secret, t, err := identity.NewToken(identity.Token{Scopes: req.Scopes, Project: req.Project, Note: req.Note, Expires: req.Expires}, a.cfg.Now())
	if err != nil {
		return nil, invalid("%v", err)
	}
	if err := a.saveToken(ctx, t, hostcall.AbsentRevision); err != nil {
		return nil, err
	}
	c.note("token", t.ID)
	return &reply{json: TokenCreated{infoOf(t), secret}}, nil
}

func infoOf(t identity.Token) TokenInfo {
	return TokenInfo{t.ID, t.Scopes, t.Project, t.Note, t.Created, t.Expires}
}

func (a *API) listTokens(ctx context.Context, _ *call) (*reply, error) {
	records, err := a.cfg.Store.Bucket(tokenBucket).All(ctx)
	if err != nil {
		return nil, err
	}
	out := TokenList{Tokens: []TokenInfo{}}
	for id, e := range records {
		var t identity.Token
		if err := json.Unmarshal(e.Value, &t); err != nil {
			return nil, fmt.Errorf("api: record of token %s: %w", id, err)
		}
		out.Tokens = append(out.Tokens, infoOf(t))
	}
	slices.SortFunc(out.Tokens, func(a, b TokenInfo) int { return strings.Compare(a.ID, b.ID) })
	return &reply{json: out}, nil
}

func (a *API) deleteToken(ctx context.Context, c *call) (*reply, error) {
	return a.deleteRecord(ctx, c, tokenBucket, "token")
}

func (a *API) deleteJoinToken(ctx context.Context, c *call) (*reply, error) {
	return a.deleteRecord(ctx, c, joinBucket, "join token")
}

func (a *API) deleteRecord(ctx context.Context, c *call, bucket, what string) (*reply, error) {
	id := c.param("id")
	b := a.cfg.Store.Bucket(bucket)
	e, err := b.Get(ctx, id)
	if errors.Is(err, hostcall.ErrNotFound) || errors.Is(err, hostcall.ErrInvalid) {
		hint := "list them: selvage token ls"
		if bucket == joinBucket {
			hint = "its ID was told when it was made; one that was used, or has expired, is gone"
		}
		return nil, notFound(hint, "there is no %s %.40q", what, id)
	}
	if err != nil {
		return nil, err
	}
	c.note(what, id)
	return &reply{json: Empty{}}, b.Delete(ctx, id, int64(e.Revision))
}

func (a *API) createJoinToken(ctx context.Context, c *call) (*reply, error) {
	var req JoinTokenRequest
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	var life time.Duration
	if req.TTL != "" {
		var err error
		if life, err = time.ParseDuration(req.TTL); err != nil || life <= 0 {
			return nil, invalid("ttl %.40q: want a duration above 0, such as 1h", req.TTL)
		}
	}
	addresses := req.Addresses
	if len(addresses) == 0 {
		addresses = a.cfg.API
	}
	t, rec, err := identity.NewJoinToken(a.cfg.Identity.Fleet, a.cfg.Identity.Root, addresses, req.PoP, life, a.cfg.Now())
	if err != nil {
		return nil, invalid("%v", err)
	}
	o := hostcall.PutOptions{IfRevision: hostcall.AbsentRevision, TTL: max(time.Second, rec.Expires.Sub(a.cfg.Now()))}
	if err := a.saveRecord(ctx, joinBucket, rec.ID, rec, o); err != nil {
		return nil, err
	}
	c.note("join token", rec.ID)
	return &reply{json: JoinTokenCreated{ID: rec.ID, Token: t.Encode(), Expires: rec.Expires}}, nil
}

// nodeBucket holds the names that joined, so that no two nodes are one.
const nodeBucket = "nodes"

type joined struct {
	Name string    `json:"name"`
	PoP  string    `json:"pop"`
	At   time.Time `json:"at"`
}

// join makes a node a member: the token is spent first, and only once, whatever comes after.
func (a *API) join(ctx context.Context, c *call) (*reply, error) {
	var req identity.JoinRequest
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	if err := req.Validate(); err != nil {
		return nil, invalid("%v", err)
	}
	c.actor = "join:" + req.ID
	c.note("node", req.Name)
	c.note("pop", req.PoP)
	if err := a.spend(ctx, c, req); err != nil {
		return nil, err
	}
	err := a.saveRecord(ctx, nodeBucket, req.Name, joined{req.Name, req.PoP, a.cfg.Now().UTC()}, hostcall.PutOptions{IfRevision: hostcall.AnyRevision})
	if err != nil {
		return nil, err
	}
	resp, err := a.cfg.Identity.Join(req, a.cfg.Seeds, a.cfg.Control, a.cfg.API)
	if err != nil {
		return nil, err
	}
	return &reply{json: resp}, nil
}

// spend checks the request's join token and uses it up.
func (a *API) spend(ctx context.Context, c *call, req identity.JoinRequest) error {
	refused := func(err error) error {
		if !a.limiter.mayFail(c.remote()) {
			return problem(http.StatusTooManyRequests, "too-many-failures", "wait, then use a valid join token", "too many refused tokens from this address")
		}
		return problem(http.StatusUnauthorized, "bad-join-token", "make a new one: 'selvage control token' or POST /v1/join-tokens", "%v", err)
	}
	b := a.cfg.Store.Bucket(joinBucket)
	e, err := b.Get(ctx, req.ID)
	if errors.Is(err, hostcall.ErrNotFound) {
		return refused(errors.New("unknown, spent or expired join token"))
	}
	if err != nil {
		return err
	}
	var rec identity.JoinRecord
	if err := json.Unmarshal(e.Value, &rec); err != nil {
		return fmt.Errorf("api: record of join token %s: %w", req.ID, err)
	}
	if err := rec.Check(req, a.cfg.Now()); err != nil {
		return refused(err)
	}
	if err := a.nameIsFree(ctx, req); err != nil {
		return err
	}
	err = b.Delete(ctx, req.ID, int64(e.Revision))
	if errors.Is(err, hostcall.ErrNotFound) || errors.Is(err, hostcall.ErrConflict) {
		return refused(errors.New("the join token was spent a moment ago"))
	}
	return err
}

// nameIsFree refuses the name of a node that is there: two nodes of one name would
// both be it. A node that is away may be replaced under its name.
func (a *API) nameIsFree(ctx context.Context, req identity.JoinRequest) error {
	if _, err := a.cfg.Store.Bucket(nodeBucket).Get(ctx, req.Name); errors.Is(err, hostcall.ErrNotFound) {
		return nil
	}
	for _, n := range a.nodes() {
		if n.Node == req.Name && !n.away {
			return problem(http.StatusConflict, "name-taken", "choose another name, or stop the node that has it first", "a node %s of PoP %s is there", n.Node, n.PoP)
		}
	}
	return nil
}
