package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sort"
	"strings"
	"testing"

	"github.com/selvage-edge/selvage/control/bundle"
	"github.com/selvage-edge/selvage/control/report"
)

type openAPIDoc struct {
	OpenAPI string
	Paths   map[string]map[string]struct {
		OperationID string `json:"operationId"`
		Security    []map[string][]string
		Parameters  []struct {
			Name, In string
			Required bool
		}
		Responses   map[string]any
		RequestBody any `json:"requestBody"`
	}
	Components struct{ Schemas map[string]any }
}

// The document that is served names exactly the routes that are registered.
func TestOpenAPINamesEveryRoute(t *testing.T) {
	f := start(t)
	a := f.send(f.client, "GET", f.url+"/v1/openapi.json", nil)
	var doc openAPIDoc
	f.want(200, a, &doc)
	if a.Header.Get("Content-Type") != "application/json" || !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Errorf("%v %s", a.Header, doc.OpenAPI)
	}
	var said, there []string
	for p, item := range doc.Paths {
		for m, op := range item {
			said = append(said, strings.ToUpper(m)+" "+p+" "+op.OperationID)
			checkParameters(t, p, op.Parameters)
		}
	}
	for _, rt := range f.api.routes {
		there = append(there, rt.method+" "+rt.path()+" "+rt.name)
		op := doc.Paths[rt.path()][strings.ToLower(rt.method)]
		if (rt.who == aToken) != (len(op.Security) == 1 && fmt.Sprint(op.Security[0]["token"]) == fmt.Sprintf("[%s]", rt.scope)) {
			t.Errorf("%s: security %v, scope %s", rt.name, op.Security, rt.scope)
		}
		if op.Responses[fmt.Sprint(rt.status)] == nil || op.Responses["default"] == nil {
			t.Errorf("%s: responses %v", rt.name, op.Responses)
		}
		if (op.RequestBody != nil) != (rt.limit > 0) {
			t.Errorf("%s: body %v", rt.name, op.RequestBody)
		}
		// The router knows the route by the very pattern.
		if r, err := http.NewRequest(rt.method, rt.pattern, nil); err != nil || r.URL.Path == "" {
			t.Errorf("%s: %v", rt.name, err)
		}
	}
	sort.Strings(said)
	sort.Strings(there)
	if strings.Join(said, "\n") != strings.Join(there, "\n") {
		t.Errorf("document:\n%s\n\nrouter:\n%s", strings.Join(said, "\n"), strings.Join(there, "\n"))
	}
	checkRefs(t, a.body, doc.Components.Schemas)
}

func checkParameters(t *testing.T, pattern string, params []struct {
	Name, In string
	Required bool
}) {
	t.Helper()
	in := map[string]bool{}
	for _, p := range params {
		if p.In == "path" {
			in[p.Name] = p.Required
		}
	}
	for _, w := range wildcards(pattern) {
		if !in[w] {
			t.Errorf("%s: parameter %s is not said", pattern, w)
		}
		delete(in, w)
	}
	if len(in) != 0 {
		t.Errorf("%s: parameters %v are not there", pattern, in)
	}
}

// checkRefs follows every reference.
func checkRefs(t *testing.T, doc []byte, schemas map[string]any) {
	t.Helper()
	for _, part := range strings.Split(string(doc), `"$ref": "#/components/schemas/`)[1:] {
		name, _, _ := strings.Cut(part, `"`)
		if schemas[name] == nil {
			t.Errorf("schema %q is not there", name)
		}
	}
}

// Answers have the fields the document says, no more and none missing.
func TestAnswersFitTheDocument(t *testing.T) {
	f := withNamespace(t)
	var doc openAPIDoc
	f.want(200, f.send(f.client, "GET", f.url+"/v1/openapi.json", nil), &doc)
	node := f.node("n1", "lon")
	d := f.deploy("hello", routeHello, module)
	f.report(node, "n1", "lon", d.Release, report.Live)
	packed, sig, _ := f.pack("default", "hello", routeHello, module)
	f.want(200, f.admin("PUT", keysOf+"/k?ttl=1h", []byte("v")), nil)

	for name, a := range map[string]answer{
		"BundleInfo":       f.admin("PUT", "/v1/projects/default/bundles", packed, bundle.SignatureHeader+": "+sig),
		"Deployed":         f.admin("POST", "/v1/projects/default/functions/hello/releases", DeployRequest{d.Release.Bundle}),
		"FunctionList":     f.admin("GET", "/v1/projects/default/functions", nil),
		"Function":         f.admin("GET", "/v1/projects/default/functions/hello", nil),
		"ReleaseList":      f.admin("GET", "/v1/projects/default/functions/hello/releases", nil),
		"Status":           f.admin("GET", "/v1/projects/default/functions/hello/releases/1/status", nil),
		"Fleet":            f.admin("GET", "/v1/fleet", nil),
		"TokenList":        f.admin("GET", "/v1/tokens", nil),
		"AuditList":        f.admin("GET", "/v1/audit", nil),
		"ProjectList":      f.admin("GET", "/v1/projects", nil),
		"NamespaceList":    f.admin("GET", "/v1/projects/default/kv", nil),
		"KeyList":          f.admin("GET", keysOf, nil),
		"NamespaceStats":   f.admin("GET", "/v1/projects/default/kv/links/stats", nil),
		"Written":          f.admin("PUT", keysOf+"/k", []byte("v")),
		"IdentityBundle":   f.admin("GET", "/v1/trust", nil),
		"JoinTokenCreated": f.admin("POST", "/v1/join-tokens", nil),
		"Problem":          f.admin("GET", keysOf+"/none", nil),
	} {
		var v any
		if err := json.Unmarshal(a.body, &v); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		fits(t, name, v, ref(name), doc.Components.Schemas)
	}
}

// fits checks a JSON value against a schema of the kind schemas.of makes.
func fits(t *testing.T, at string, v any, schema any, known map[string]any) {
	t.Helper()
	s, _ := schema.(map[string]any)
	if r, ok := s["$ref"].(string); ok {
		s, _ = known[strings.TrimPrefix(r, "#/components/schemas/")].(map[string]any)
	}
	switch s["type"] {
	case "object":
		fitsObject(t, at, v, s, known)
	case "array":
		list, ok := v.([]any)
		if !ok && v != nil {
			t.Errorf("%s: %T, want an array", at, v)
		}
		for i, e := range list {
			fits(t, fmt.Sprintf("%s[%d]", at, i), e, s["items"], known)
		}
	case "string":
		if _, ok := v.(string); !ok && v != nil {
			t.Errorf("%s: %T, want a string", at, v)
		}
	case "integer", "number":
		if _, ok := v.(float64); !ok {
			t.Errorf("%s: %T, want a number", at, v)
		}
	case "boolean":
		if _, ok := v.(bool); !ok {
			t.Errorf("%s: %T, want a boolean", at, v)
		}
	default:
		t.Errorf("%s: no schema: %v", at, schema)
	}
}

func fitsObject(t *testing.T, at string, v any, s, known map[string]any) {
	t.Helper()
	m, ok := v.(map[string]any)
	if !ok {
		t.Errorf("%s: %T, want an object", at, v)
		return
	}
	properties, _ := s["properties"].(map[string]any)
	for k, e := range m {
		switch {
		case properties[k] != nil:
			fits(t, at+"."+k, e, properties[k], known)
		case s["additionalProperties"] != nil:
			fits(t, at+"."+k, e, s["additionalProperties"], known)
		default:
			t.Errorf("%s.%s: not in the document", at, k)
		}
	}
	required, _ := s["required"].([]any)
	for _, r := range required {
		if _, ok := m[r.(string)]; !ok {
			t.Errorf("%s.%s: missing", at, r)
		}
	}
}
