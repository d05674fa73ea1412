package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"strconv"

	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/peer"
	"github.com/selvage-edge/selvage/runtime/jail"
	"github.com/selvage-edge/selvage/runtime/quota"
)

// call is one request on its way through serve.
type call struct {
	a       *API
	route   *route
	r       *http.Request
	w       http.ResponseWriter
	id      string
	actor   string
	token   identity.Token // public routes with a token
	peer    identity.Peer  // peer routes
	project string         // from the path
	body    []byte
	detail  map[string]string // for the audit trail
	share   *quota.Share      // of the room for answers; nil where there is no large one
}

// note adds a fact to the request's audit entry.
func (c *call) note(name, value string) {
	if c.detail == nil {
		c.detail = make(map[string]string)
	}
	c.detail[name] = value
}

// remote is the caller's address.
func (c *call) remote() string {
	host, _, err := net.SplitHostPort(c.r.RemoteAddr)
	if err != nil {
		return c.r.RemoteAddr
	}
	return host
}

func (c *call) param(name string) string { return c.r.PathValue(name) }

// decode reads the JSON body into v, strictly.
func (c *call) decode(v any) error {
	if len(bytes.TrimSpace(c.body)) == 0 {
		return nil // every field has a default or is checked
	}
	d := json.NewDecoder(bytes.NewReader(c.body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return invalid("the body is not the JSON this call takes: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return invalid("the body goes on after its JSON value")
	}
	return nil
}

// reply is a successful answer: JSON, or raw bytes.
type reply struct {
	status int // default: the route's
	json   any
	raw    []byte
	head   http.Header
}

func (a *API) handler(routes []*route) http.Handler {
	mux := http.NewServeMux()
	for _, rt := range routes {
		mux.Handle(rt.method+" "+rt.pattern, a.serve(rt))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The mux would redirect to a cleaned path, which is another key.
		if p := r.URL.EscapedPath(); path.Clean(p) != p {
			invalid("the path %.200q is not clean: percent-encode keys, also '.' and '..'", p).write(w, "")
			return
		}
		h, pattern := mux.Handler(r)
		if pattern == "" {
			noRoute(w, r, h)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// noRoute answers what the mux would answer in plain text, as a problem.
func noRoute(w http.ResponseWriter, r *http.Request, h http.Handler) {
	was := &probe{header: make(http.Header)}
	h.ServeHTTP(was, r)
	if allow := was.header.Get("Allow"); allow != "" {
		w.Header().Set("Allow", allow)
		problem(http.StatusMethodNotAllowed, "method-not-allowed", "this path takes "+allow, "%s is not for this path", r.Method).write(w, "")
		return
	}
	notFound("see /v1/openapi.json for what there is; percent-encode keys", "no such path").write(w, "")
}

// probe keeps a handler's header and drops the rest.
type probe struct{ header http.Header }

func (p *probe) Header() http.Header         { return p.header }
func (p *probe) Write(b []byte) (int, error) { return len(b), nil }
func (p *probe) WriteHeader(int)             {}

// serve does what is the same for every route.
func (a *API) serve(rt *route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &call{a: a, route: rt, r: r, w: w, id: requestID(), project: r.PathValue("project")}
		w.Header().Set(HeaderRequestID, c.id)
		if rt.stream != nil {
			if err := c.admit(); err != nil {
				c.fail(err)
				return
			}
			rt.stream(c)
			return
		}
		defer func() { c.share.Release() }()
		out, err := c.run(r.Context())
		if err != nil {
			c.fail(err)
			return
		}
		c.send(out)
	})
}

func requestID() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// run is the order of a request: who, what, once, done, recorded.
func (c *call) run(ctx context.Context) (*reply, error) {
	if err := c.admit(); err != nil {
		return nil, err
	}
	release, err := c.readBody(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	if !c.route.mutates {
		return c.route.do(ctx, c)
	}
	return c.once(ctx, func() (*reply, error) {
		out, err := c.route.do(ctx, c)
		if auditErr := c.audit(ctx, out, err); auditErr != nil {
			return nil, auditErr
		}
		return out, err
	})
}

// admit checks who calls, that they may, and the names in the path.
func (c *call) admit() error {
	if err := c.identify(); err != nil {
		return err
	}
	for _, name := range []string{"project", "function", "namespace", "node"} {
		if v := c.param(name); v != "" || hasWildcard(c.route.pattern, name) {
			if err := identity.CheckName(name, v); err != nil {
				return invalid("%v", err)
			}
		}
	}
	return nil
}

func (c *call) identify() error {
	switch c.route.who {
	case anyone:
		c.actor = "anyone"
		return nil
	case aNode:
		p, ok := peer.From(c.r.Context())
		if !ok || p.Kind != identity.KindNode {
			return problem(http.StatusForbidden, "not-a-node", "connect with the certificate of a node of this fleet", "this call is for nodes")
		}
		c.peer, c.actor = p, "node:"+p.Name
		return nil
	}
	return c.authenticate()
}

// statusLeft is what records say where the client did not wait for its answer; it is never seen.
const statusLeft = 499

// problemOf is what became of the call. What ended because the client left is no failure of control's.
func (c *call) problemOf(err error) (p *Problem, ours bool) {
	ended := errors.Is(err, context.Canceled) || errors.Is(err, jail.ErrKilled)
	if ended && errors.Is(c.r.Context().Err(), context.Canceled) {
		return problem(statusLeft, "canceled", "", "the client left before it was answered"), false
	}
	return problemOf(err)
}

func (c *call) fail(err error) {
	p, ours := c.problemOf(err)
	level, what := c.a.cfg.Log.Debug, "request failed"
	switch {
	case p.Status == statusLeft:
		level, what = c.a.cfg.Log.Info, "the client left"
	case ours || p.Status >= 500:
		level = c.a.cfg.Log.Error
	}
	level(what, "request", c.id, "method", c.r.Method, "path", c.r.URL.EscapedPath(), "actor", c.actor, "status", p.Status, "error", err)
	p.write(c.w, c.id)
}

func (c *call) send(out *reply) {
	h := c.w.Header()
	for k, v := range out.head {
		h[k] = v
	}
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "no-store")
	}
	body := out.raw
	if out.json != nil {
		b, err := json.Marshal(out.json)
		if err != nil {
			c.fail(fmt.Errorf("api: encode the answer: %w", err))
			return
		}
		body = append(b, '\n')
		h.Set("Content-Type", "application/json")
	} else if h.Get("Content-Type") == "" {
		h.Set("Content-Type", "application/octet-stream")
		h.Set("X-Content-Type-Options", "nosniff")
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	c.w.WriteHeader(c.statusOf(out))
	c.share.Keep(int64(len(body)))
	deliver(c.w, body)
}

func (c *call) statusOf(out *reply) int {
	if out.status != 0 {
		return out.status
	}
	return c.route.status
}
