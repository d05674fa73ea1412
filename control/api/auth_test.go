package api

import (
	"net/http"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/control/identity"
)

// role is one kind of caller of the public API.
type role struct {
	name, token string
	scope       identity.Scope
	project     string
}

// Every route and every role: who may not is refused before anything is done,
// who may gets past it. Routes come from the router's own table, so none is left out.
func TestEveryRouteAndEveryRole(t *testing.T) {
	f := start(t)
	roles := []role{{name: "fleet admin", token: f.created.AdminToken, scope: identity.ScopeAdmin}}
	for _, project := range []string{"", "default", "other"} {
		for _, s := range []identity.Scope{identity.ScopeRead, identity.ScopeDeploy, identity.ScopeAdmin} {
			roles = append(roles, role{string(s) + " of " + project, f.token(s, project), s, project})
		}
	}
	rank := map[identity.Scope]int{identity.ScopeRead: 1, identity.ScopeDeploy: 2, identity.ScopeAdmin: 3}
	fill := strings.NewReplacer("{project}", "default", "{function}", "nothing", "{namespace}", "nothing", "{key...}", "k", "{number}", "1", "{id}", "none", "{node}", "none")
	for _, rt := range f.api.routes {
		target := fill.Replace(rt.pattern)
		for _, ro := range roles {
			a := f.as(ro.token, rt.method, target, nil)
			inProject := ro.project == "" || ro.project == "default" && hasWildcard(rt.pattern, "project")
			allowed := rt.who == anyone || rank[ro.scope] >= rank[rt.scope] && inProject
			if refused := a.StatusCode == http.StatusForbidden && a.problem() == "scope"; refused == allowed {
				t.Errorf("%s %s as %s: %d %s", rt.method, target, ro.name, a.StatusCode, a.body)
			}
			if a.StatusCode == http.StatusUnauthorized && rt.name != "join" || a.StatusCode >= 500 {
				t.Errorf("%s %s as %s: %d %s", rt.method, target, ro.name, a.StatusCode, a.body)
			}
		}
		if rt.who == anyone {
			continue
		}
		for _, bad := range []string{"", "Bearer", "Bearer ", "Basic YTpi", "Bearer slv_aaaaaaaaaaaaaaaa_" + strings.Repeat("a", 52), "Bearer " + f.created.AdminToken + "x"} {
			a := f.send(f.client, rt.method, f.url+target, nil, "Authorization: "+bad)
			if a.StatusCode != http.StatusUnauthorized && a.StatusCode != http.StatusTooManyRequests {
				t.Errorf("%s %s with %q: %d %s", rt.method, target, bad, a.StatusCode, a.body)
			}
		}
	}
}

// Without a node's certificate nothing of the peer API is reached, on either listener.
func TestPeerRoutesNeedANode(t *testing.T) {
	f := start(t)
	fill := strings.NewReplacer("{project}", "default", "{namespace}", "links", "{key}", "aw", "{digest}", "sha256:"+strings.Repeat("0", 64))
	for _, rt := range f.api.peers {
		target := fill.Replace(rt.pattern)
		f.refused(404, "not-found", f.admin(rt.method, target, nil))
		// The handler itself, with no peer behind the request.
		w := &recorder{header: make(http.Header)}
		r, err := http.NewRequest(rt.method, target, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		f.api.PeerHandler().ServeHTTP(w, r)
		if w.status != http.StatusForbidden {
			t.Errorf("%s %s without a certificate: %d", rt.method, target, w.status)
		}
	}
}

type recorder struct {
	header http.Header
	status int
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(b []byte) (int, error) { return len(b), nil }
func (r *recorder) WriteHeader(s int)           { r.status = s }

// Every pattern is clean, has its project if it speaks of one, and is there once.
func TestRoutesAreWellFormed(t *testing.T) {
	f := start(t)
	seen := map[string]bool{}
	for _, rt := range append(append([]*route{}, f.api.routes...), f.api.peers...) {
		key := rt.method + " " + rt.pattern
		switch {
		case seen[key] || seen[rt.name]:
			t.Errorf("%s %s: twice", rt.name, key)
		case path.Clean(rt.pattern) != rt.pattern:
			t.Errorf("%s: not clean", key)
		case rt.who == aToken && rt.scope == "":
			t.Errorf("%s: no scope", key)
		case (rt.do == nil) == (rt.stream == nil):
			t.Errorf("%s: want one handler", key)
		case rt.who == aToken && rt.mutates == (rt.method == http.MethodGet || rt.scope == identity.ScopeRead): // a POST may be a question with a body
			t.Errorf("%s: mutates is %v", key, rt.mutates)
		case (rt.in != nil || rt.raw != "") != (rt.limit > 0) && rt.stream == nil:
			t.Errorf("%s: a body without a limit, or the other way round", key)
		case rt.summary == "" || rt.status == 0 || rt.out == nil && rt.rawOut == "":
			t.Errorf("%s: says too little", key)
		}
		seen[key], seen[rt.name] = true, true
	}
}

func TestTokens(t *testing.T) {
	f := start(t)
	var made TokenCreated
	f.want(201, f.admin("POST", "/v1/tokens", TokenRequest{Scopes: []identity.Scope{"read"}, Note: "laptop"}), &made)
	f.want(200, f.as(made.Token, "GET", "/v1/fleet", nil), nil)
	var list TokenList
	a := f.admin("GET", "/v1/tokens", nil)
	f.want(200, a, &list)
	if len(list.Tokens) != 2 || strings.Contains(string(a.body), "hash") || strings.Contains(string(a.body), made.Token) {
		t.Errorf("listed: %s", a.body)
	}
	f.want(200, f.admin("DELETE", "/v1/tokens/"+made.ID, nil), nil)
	f.refused(401, "bad-token", f.as(made.Token, "GET", "/v1/fleet", nil))
	f.refused(404, "not-found", f.admin("DELETE", "/v1/tokens/"+made.ID, nil))
	for _, bad := range []TokenRequest{{}, {Scopes: []identity.Scope{"root"}}, {Scopes: []identity.Scope{"read"}, Project: "../x"}, {Scopes: []identity.Scope{"read"}, Expires: time.Now().Add(91 * 24 * time.Hour)}, {Scopes: []identity.Scope{"read"}, Expires: time.Now().Add(-time.Hour)}} {
		f.refused(400, "invalid-request", f.admin("POST", "/v1/tokens", bad))
	}
}

// A token of init that was revoked does not come back with a restart.
func TestRevokedFirstTokenStaysRevoked(t *testing.T) {
	f := start(t)
	second := f.token(identity.ScopeAdmin, "")
	id, err := identity.TokenID(f.created.AdminToken)
	if err != nil {
		t.Fatal(err)
	}
	f.want(200, f.admin("DELETE", "/v1/tokens/"+id, nil), nil)
	f.listen()
	f.refused(401, "bad-token", f.admin("GET", "/v1/fleet", nil))
	f.want(200, f.as(second, "GET", "/v1/fleet", nil), nil)
}

func TestExpiredTokenIsRefused(t *testing.T) {
	later := time.Duration(0)
	f := start(t, func(c *Config) { c.Now = func() time.Time { return time.Now().Add(later) } })
	later = identity.MaxTokenLife + time.Hour
	p := f.refused(401, "bad-token", f.admin("GET", "/v1/fleet", nil))
	if !strings.Contains(p.Detail, "expired") {
		t.Errorf("why is not said: %+v", p)
	}
}

// Who guesses is slowed down; who has a valid token is not, even at the same address.
func TestGuessingIsSlowedDown(t *testing.T) {
	now := time.Now()
	f := start(t, func(c *Config) { c.Now = func() time.Time { return now } })
	for range failuresBurst {
		f.refused(401, "bad-token", f.as("guess", "GET", "/v1/fleet", nil))
	}
	f.refused(429, "too-many-failures", f.as("guess", "GET", "/v1/fleet", nil))
	f.want(200, f.admin("GET", "/v1/fleet", nil), nil)
	now = now.Add(2 * time.Second)
	f.refused(401, "bad-token", f.as("guess", "GET", "/v1/fleet", nil))
}

func TestLimiterForgets(t *testing.T) {
	now := time.Now()
	l := newLimiter(func() time.Time { return now })
	for i := range maxAddresses + 10 {
		l.mayFail(string(rune(i)))
	}
	if n := len(l.mu.failures); n > maxAddresses {
		t.Errorf("%d addresses are remembered", n)
	}
}
