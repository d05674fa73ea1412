// Command jwt answers whoever has a valid JSON Web Token of one issuer, and
// tells them what it says. A real function would pass the request on here.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	edge "github.com/selvage-edge/selvage/sdk/go"
)

func main() {
	g := &guard{
		keys: &keys{kv: edge.KV("keys"), url: func() string { return edge.Var("JWKS_URL") }, fetch: edge.Fetch, now: time.Now},
		policy: func() policy {
			return policy{issuer: edge.Var("ISSUER"), audience: edge.Var("AUDIENCE"), leeway: 30 * time.Second}
		},
		next: http.HandlerFunc(tell),
	}
	edge.Serve(g)
}

// guard lets requests with a valid token through to next.
type guard struct {
	keys   *keys
	policy func() policy // variables are read while a request is handled
	next   http.Handler
}

type claimsKey struct{}

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, err := g.admit(r)
	switch {
	case err == nil:
		g.next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), claimsKey{}, c)))
	case errors.Is(err, errToken):
		slog.Info("refused", "why", err)
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`) // RFC 6750, section 3; why is for the log
		http.Error(w, "a valid token is needed", http.StatusUnauthorized)
	default:
		slog.Error("keys", "error", err)
		w.Header().Set("Retry-After", "5")
		http.Error(w, "tokens cannot be checked now", http.StatusServiceUnavailable)
	}
}

// admit checks the request's token. Only a signature that is good makes its claims worth reading.
func (g *guard) admit(r *http.Request) (claims, error) {
	scheme, text, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return claims{}, refused("there is none")
	}
	t, err := parse(text)
	if err != nil {
		return claims{}, err
	}
	all, err := g.keys.find(r.Context(), t.kid)
	if err != nil {
		return claims{}, err
	}
	for _, k := range all {
		if k.signs(t) {
			return g.policy().check(t, g.keys.now())
		}
	}
	return claims{}, refused("no key of the issuer's signs it (alg %q, kid %q)", t.alg, t.kid)
}

// tell answers with who asks.
func tell(w http.ResponseWriter, r *http.Request) {
	c, _ := r.Context().Value(claimsKey{}).(claims)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "private, no-store")
	_ = json.NewEncoder(w).Encode(map[string]any{"subject": c.Subject, "scope": c.Scope, "pop": edge.Info(r.Context()).PoP}) // the client may be gone
}
