package api

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/selvage-edge/selvage/control/bundle"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// who may make a call.
type who uint8

const (
	aToken who = iota // a bearer token with the route's scope
	anyone            // no credentials
	aNode             // a node's certificate
)

// route is one operation. Everything about it that is not in its handler is
// here: serve obeys it, the OpenAPI document says it, the tests walk it.
type route struct {
	name    string // the operation's: audit trail, OpenAPI
	method  string
	pattern string
	summary string

	who     who
	scope   identity.Scope
	mutates bool
	secret  bool   // the answer is shown once: it is not remembered under an idempotency key
	limit   int64  // of the body; 0: none is read
	over    string // the hint to who sends more; default "send less"

	status int     // of success
	query  []param // in the query
	header []param // in the request's header
	in     any     // a value of the JSON body's type; nil: none or raw
	raw    string  // the raw body's description
	out    any     // a value of the JSON answer's type; nil: raw or none
	rawOut string  // the raw answer's description
	event  any     // a value of the type of the raw answer's lines; nil: it has none of the document's

	do     func(ctx context.Context, c *call) (*reply, error)
	stream func(c *call) // in place of do: answers by itself
}

type param struct{ name, about string }

const (
	jsonLimit  = 1 << 20
	trustLimit = 8 << 20
	kvPath     = "/v1/projects/{project}/kv/{namespace}/keys"
	fnPath     = "/v1/projects/{project}/functions"
)

var (
	waitQuery = []param{{"wait", "how long to wait for a change or the end, Go duration, at most 60s"}, {"after", "the tag of the status that is known"}}
	pageQuery = []param{{"prefix", "keys that begin with these bytes"}, {"cursor", "where the page before ended, in base64url"}, {"limit", "keys in the page, 1 to 1000; default 100"}}
	ifQuery   = param{"if_revision", "the key must be at this revision; 0: must not be there"}
	ttlQuery  = param{"ttl", "how long the value lives, Go duration from 1ms; default for ever"}
	endQuery  = param{"expires", "in place of ttl: when the value ends, Unix ms on the store's clock; 422 if that is over"}
	byQuery   = param{"by", "what is added, 64 bits with a sign; default 1"}
	ifHeaders = []param{{"If-Match", "as if_revision, in quotes"}, {"If-None-Match", "*: the key must not be there"}}
)

func (a *API) publicRoutes() []*route {
	read, deploy, admin := identity.ScopeRead, identity.ScopeDeploy, identity.ScopeAdmin
	return []*route{
		{name: "getOpenAPI", method: "GET", pattern: "/v1/openapi.json", summary: "This document", who: anyone, status: 200, rawOut: "an OpenAPI 3.1 document", do: a.getOpenAPI},
		{name: "getTrust", method: "GET", pattern: identity.TrustPath, summary: "The fleet's public trust material", who: anyone, status: 200, out: identity.Bundle{}, do: a.getTrust},
		{name: "putTrust", method: "PUT", pattern: identity.TrustPath, summary: "Add delegations or revocations that the root key signed", scope: admin, mutates: true, limit: trustLimit, status: 200, in: identity.Bundle{}, out: identity.Bundle{}, do: a.putTrust},
		{name: "join", method: "POST", pattern: identity.JoinPath, summary: "Make a node a member, once per join token", who: anyone, mutates: true, secret: true, limit: jsonLimit, status: 201, in: identity.JoinRequest{}, out: identity.JoinResponse{}, do: a.join},
		{name: "createJoinToken", method: "POST", pattern: "/v1/join-tokens", summary: "Make a token that lets one node join", scope: admin, mutates: true, secret: true, limit: jsonLimit, status: 201, in: JoinTokenRequest{}, out: JoinTokenCreated{}, do: a.createJoinToken},
		{name: "deleteJoinToken", method: "DELETE", pattern: "/v1/join-tokens/{id}", summary: "Take a join token back", scope: admin, mutates: true, status: 200, out: Empty{}, do: a.deleteJoinToken},
		{name: "getFleet", method: "GET", pattern: "/v1/fleet", summary: "Nodes, and how far each has followed", scope: read, status: 200, out: Fleet{}, do: a.getFleet},
		{name: "auditPlacement", method: "GET", pattern: "/v1/placement", summary: "Where functions may run, are held and were answered, by what every node says now", scope: admin, status: 200, out: PlacementAudit{}, do: a.auditPlacement},
		{name: "listTokens", method: "GET", pattern: "/v1/tokens", summary: "API tokens, without their secrets", scope: admin, status: 200, out: TokenList{}, do: a.listTokens},
		{name: "createToken", method: "POST", pattern: "/v1/tokens", summary: "Make an API token", scope: admin, mutates: true, secret: true, limit: jsonLimit, status: 201, in: TokenRequest{}, out: TokenCreated{}, do: a.createToken},
		{name: "deleteToken", method: "DELETE", pattern: "/v1/tokens/{id}", summary: "Revoke an API token, at once", scope: admin, mutates: true, status: 200, out: Empty{}, do: a.deleteToken},
		{name: "listAudit", method: "GET", pattern: "/v1/audit", summary: "Every change, oldest first", scope: admin, status: 200, query: auditQuery, out: AuditList{}, do: a.listAudit},
		{name: "drainNode", method: "PUT", pattern: "/v1/nodes/{node}/drain", summary: "Have a node say that new traffic should go elsewhere; it keeps serving, and so it stays until it is undrained", scope: admin, mutates: true, limit: jsonLimit, status: 200, in: DrainRequest{}, out: Node{}, do: a.drainNode},
		{name: "undrainNode", method: "DELETE", pattern: "/v1/nodes/{node}/drain", summary: "Take a node back into service", scope: admin, mutates: true, status: 200, out: Node{}, do: a.undrainNode},
		{name: "getLogs", method: "GET", pattern: "/v1/logs", summary: "Functions' logs and access records of all nodes, merged; also of exchanges that reached no function", scope: read, status: 200, query: logQuery, rawOut: "lines of JSON (application/x-ndjson); empty ones say that the stream is alive", stream: a.streamLogs},
		{name: "getProjectLogs", method: "GET", pattern: "/v1/projects/{project}/logs", summary: "A project's logs and access records of all nodes, merged", scope: read, status: 200, query: logQuery, rawOut: "lines of JSON (application/x-ndjson); empty ones say that the stream is alive", stream: a.streamLogs},
		{name: "listProjects", method: "GET", pattern: "/v1/projects", summary: "Projects that have something", scope: read, status: 200, out: ProjectList{}, do: a.listProjects},
		{name: "listProjectAudit", method: "GET", pattern: "/v1/projects/{project}/audit", summary: "Every change in a project, oldest first", scope: admin, status: 200, query: auditQuery, out: AuditList{}, do: a.listAudit},

		{name: "putBundle", method: "PUT", pattern: "/v1/projects/{project}/bundles", summary: "Upload a signed bundle; nothing is live yet", scope: deploy, mutates: true, limit: a.cfg.Bundle.PackedBytes, status: 201,
			header: []param{{bundle.SignatureHeader, "the publisher's statement on the bundle's digest"}}, raw: "the bundle", out: BundleInfo{}, do: a.putBundle},
		{name: "listFunctions", method: "GET", pattern: fnPath, summary: "Functions that are live, with their status", scope: read, status: 200, out: FunctionList{}, do: a.listFunctions},
		{name: "getFunction", method: "GET", pattern: fnPath + "/{function}", summary: "A function as it is live", scope: read, status: 200, out: Function{}, do: a.getFunction},
		{name: "deleteFunction", method: "DELETE", pattern: fnPath + "/{function}", summary: "Take a function away from every node", scope: deploy, mutates: true, status: 200, out: Release{}, do: a.deleteFunction},
		{name: "listReleases", method: "GET", pattern: fnPath + "/{function}/releases", summary: "A function's releases, newest first, 64 at most", scope: read, status: 200, out: ReleaseList{}, do: a.listReleases},
		{name: "createRelease", method: "POST", pattern: fnPath + "/{function}/releases", summary: "Make an uploaded bundle live", scope: deploy, mutates: true, limit: jsonLimit, status: 201, in: DeployRequest{}, out: Deployed{}, do: a.createRelease},
		{name: "rollback", method: "POST", pattern: fnPath + "/{function}/rollback", summary: "Make an earlier release live again, as a new one, without preparing it anew", scope: deploy, mutates: true, limit: jsonLimit, status: 201, in: RollbackRequest{}, out: Deployed{}, do: a.rollback},
		{name: "getReleaseStatus", method: "GET", pattern: fnPath + "/{function}/releases/{number}/status", summary: "Where a release stands, PoP by PoP", scope: read, status: 200, query: waitQuery, out: Status{}, do: a.getReleaseStatus},

		{name: "listNamespaces", method: "GET", pattern: "/v1/projects/{project}/kv", summary: "KV namespaces", scope: read, status: 200, out: NamespaceList{}, do: a.listNamespaces},
		{name: "putNamespace", method: "PUT", pattern: "/v1/projects/{project}/kv/{namespace}", summary: "Make a KV namespace; done already is done", scope: deploy, mutates: true, limit: jsonLimit, status: 200, in: NamespaceRequest{}, out: Namespace{}, do: a.putNamespace},
		{name: "listKeys", method: "GET", pattern: kvPath, summary: "Keys in byte order", scope: read, status: 200, query: pageQuery, out: KeyList{}, do: a.listKeys},
		{name: "getKey", method: "GET", pattern: kvPath + "/{key...}", summary: "A value; the key is the rest of the path, percent-encoded, any bytes", scope: read, status: 200, query: []param{{"at_least", "a revision that has to be reflected: 400 if no write has had it"}}, rawOut: "the value", do: a.getKey},
		{name: "putKey", method: "PUT", pattern: kvPath + "/{key...}", summary: "Write a value; answered when it is durable; 409 says which revision the key is at, if a condition is not met", scope: deploy, mutates: true, limit: hostcall.MaxValueBytes, over: kvLimits, status: 200, query: []param{ttlQuery, endQuery, ifQuery}, header: append(slices.Clone(ifHeaders), param{HeaderMetadata, "up to 1,024 bytes kept with the value, in base64"}), raw: "the value", out: Written{}, do: a.putKey},
		{name: "getKeys", method: "POST", pattern: "/v1/projects/{project}/kv/{namespace}/read", summary: "Up to 100 values in one answer, of 32 MiB at most", scope: read, limit: jsonLimit, status: 200, in: ReadRequest{}, out: ReadAnswer{}, do: a.getKeys},
		{name: "getNamespaceStats", method: "GET", pattern: "/v1/projects/{project}/kv/{namespace}/stats", summary: "What a namespace holds, and what nodes were asked of it, per PoP, as they reported last", scope: read, status: 200, out: NamespaceStats{}, do: a.namespaceStats},
		{name: "watchKeys", method: "GET", pattern: "/v1/projects/{project}/kv/{namespace}/watch", summary: "A namespace's changes, in order, as they come", scope: read, status: 200, query: watchQuery, rawOut: "lines of JSON (application/x-ndjson), each a WatchEvent", event: WatchEvent{}, stream: a.watchKeys},
		{name: "incrementKey", method: "POST", pattern: "/v1/projects/{project}/kv/{namespace}/increment/{key...}", summary: "Add to a decimal number of 64 bits, in one step; a key that is not there counts as 0, a value that is none is refused (400) and stays", scope: deploy, mutates: true, status: 200, query: []param{byQuery}, out: Incremented{}, do: a.incrementKey},
		{name: "deleteKey", method: "DELETE", pattern: kvPath + "/{key...}", summary: "Delete a value", scope: deploy, mutates: true, status: 200, query: []param{ifQuery}, header: ifHeaders[:1], out: Written{}, do: a.deleteKey},
	}
}

var auditQuery = []param{{"after", "entries after this sequence"}, {"limit", "entries in the page, 1 to 500; default 100"}}

var logQuery = []param{
	{"function", "only this function's"}, {"pop", "only of this PoP's nodes"}, {"kind", "access or function; default both"},
	{"level", "this and above: debug, info, warn or error; default all"}, {"request", "only the exchange with this ID"},
	{"since", "how far back, Go duration; default nothing of the past"}, {"tail", "the newest of the past lines, at most; default 1000, at most 10000"},
	{"follow", "true: go on with what comes, until the caller leaves"},
}

// path is the pattern as the OpenAPI document writes it.
func (rt *route) path() string { return strings.ReplaceAll(rt.pattern, "...}", "}") }

// hasWildcard reports whether pattern has the path parameter name.
func hasWildcard(pattern, name string) bool { return strings.Contains(pattern, "{"+name+"}") }

// wildcards returns the names of pattern's path parameters.
func wildcards(pattern string) (names []string) {
	for _, seg := range strings.Split(pattern, "/") {
		if strings.HasPrefix(seg, "{") {
			names = append(names, strings.Trim(seg, "{}."))
		}
	}
	return names
}

func (a *API) getOpenAPI(context.Context, *call) (*reply, error) {
	return &reply{raw: a.doc, head: http.Header{"Content-Type": {"application/json"}}}, nil
}
