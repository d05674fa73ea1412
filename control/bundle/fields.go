package bundle

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/edge/fetch"
	"github.com/selvage-edge/selvage/edge/route"
	"github.com/selvage-edge/selvage/runtime/function"
)

// How many of each a manifest may have.
const (
	maxRoutes        = 100
	maxBindings      = 64
	maxVariables     = 128
	maxVariableBytes = 64 << 10 // names and values together
	minMemory        = 64 << 10
)

func readManifest(root *table, m *Manifest) {
	readNames(root, m)
	readRoutes(root, m)
	readBuild(root.sub("build"), m)
	readSnapshot(root, m)
	readLimits(root.sub("limits"), &m.Limits)
	readKV(root, &m.Bindings)
	readBackends(root, &m.Bindings)
	readVariables(root.sub("variables"), &m.Bindings)
	readPlacement(root.sub("placement"), &m.Placement)
	root.done()
}

func readNames(root *table, m *Manifest) {
	if m.Project = root.text("project"); m.Project == "" {
		m.Project = "default"
	}
	root.checkName("project", m.Project)
	if m.Name = root.required("name", "hello"); m.Name != "" {
		root.checkName("name", m.Name)
	}
}

func (t *table) checkName(key, value string) {
	if err := identity.CheckName(key, value); err != nil {
		t.fault(key, "%s", strings.TrimPrefix(err.Error(), key+" "))
	}
}

func readRoutes(root *table, m *Manifest) {
	list, keys := root.texts("routes")
	if len(list) > maxRoutes {
		root.fault("routes", "%d routes; at most %d", len(list), maxRoutes)
		return
	}
	first := map[string]string{}
	for i, s := range list {
		p, err := route.ParsePattern(s)
		if err != nil {
			root.r.fault(keys[i], "%s", strings.TrimPrefix(err.Error(), fmt.Sprintf("route %q: ", s)))
			continue
		}
		canon := p.String()
		if twin, ok := first[canon]; ok {
			root.r.fault(keys[i], "%q is the same as %s; leave one out", s, twin)
			continue
		}
		first[canon] = keys[i]
		m.Routes = append(m.Routes, canon)
	}
}

func readBuild(t *table, m *Manifest) {
	m.Build.Output = m.Name + ".wasm"
	if t == nil {
		return
	}
	m.Build.Command = t.text("command")
	if out := t.text("output"); out != "" {
		m.Build.Output = out
		if !filepath.IsLocal(out) {
			t.fault("output", "%q leaves the function's folder; name a file in it", out)
		}
	}
	t.done()
}

func readSnapshot(root *table, m *Manifest) {
	switch s := root.text("snapshot"); s {
	case "", "auto":
	case string(function.SnapshotRequired), string(function.SnapshotOff):
		m.Snapshot = function.Snapshot(s)
	default:
		root.fault("snapshot", "%q: want \"auto\", \"required\" or \"off\"", s)
	}
}

func readLimits(t *table, l *function.Limits) {
	if t == nil {
		return
	}
	top := function.Ceiling
	t.duration("cpu", &l.CPU, top.CPU)
	t.duration("wall", &l.Wall, top.Wall)
	t.size("memory", &l.MemoryBytes, top.MemoryBytes)
	if l.MemoryBytes > 0 && l.MemoryBytes < minMemory {
		t.fault("memory", "less than one page of WebAssembly memory; give at least 64KiB")
	}
	t.size("request_body", &l.RequestBody, top.RequestBody)
	t.sizeInt("response_head", &l.ResponseHead, top.ResponseHead)
	t.sizeInt("log", &l.LogBytes, top.LogBytes)
	t.count("subrequests", &l.Subrequests, top.Subrequests)
	t.count("subrequests_now", &l.SubrequestsNow, top.SubrequestsNow)
	t.size("subrequest_body", &l.SubrequestBody, top.SubrequestBody)
	t.count("host_calls", &l.HostCalls, top.HostCalls)
	t.count("kv_operations", &l.KVOperations, top.KVOperations)
	t.count("concurrency", &l.Concurrency, top.Concurrency)
	t.count("queue", &l.Queue, top.Queue)
	t.duration("queue_wait", &l.QueueWait, top.QueueWait)
	t.count("weight", &l.Weight, top.Weight)
	t.done()
}

func (t *table) duration(name string, into *time.Duration, ceiling time.Duration) {
	if _, ok := t.values[name]; !ok {
		t.known = append(t.known, name)
		return
	}
	s, ok := t.values[name].(string)
	d, err := time.ParseDuration(s)
	t.known = append(t.known, name)
	switch {
	case !ok || err != nil:
		t.fault(name, "%s where a duration is wanted: \"50ms\", \"1.5s\", \"2m\"", show(t.values[name]))
	case d < time.Millisecond:
		t.fault(name, "%q: give at least 1ms", s)
	case d > ceiling:
		t.fault(name, "%q is over the platform's ceiling of %s", s, ceiling)
	default:
		*into = d
	}
}

func (t *table) size(name string, into *int64, ceiling int64) {
	v, ok := t.get(name)
	if !ok {
		return
	}
	s, _ := v.(string)
	n, err := parseSize(s)
	switch {
	case err != nil:
		t.fault(name, "%s where a size is wanted: \"128MiB\", \"64KiB\", \"1GiB\", \"512B\"", show(v))
	case n <= 0:
		t.fault(name, "%q: give more than nothing, or leave it out for the default", s)
	case n > ceiling:
		t.fault(name, "%q is over the platform's ceiling of %s", s, formatSize(ceiling))
	default:
		*into = n
	}
}

func (t *table) sizeInt(name string, into *int, ceiling int) {
	var n int64
	t.size(name, &n, int64(ceiling))
	*into = int(n)
}

func (t *table) count(name string, into *int, ceiling int) {
	v, ok := t.get(name)
	if !ok {
		return
	}
	n, ok := v.(int64)
	switch {
	case !ok:
		t.fault(name, "%s where a whole number is wanted", show(v))
	case n < 1:
		t.fault(name, "%d: give at least 1, or leave it out for the default", n)
	case n > int64(ceiling):
		t.fault(name, "%d is over the platform's ceiling of %d", n, ceiling)
	default:
		*into = int(n)
	}
}

// units of sizes; binary only, so that nobody need guess what MB is.
var units = []struct {
	name  string
	bytes int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

func parseSize(s string) (int64, error) {
	for _, u := range units {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil {
			return 0, err
		}
		if n > (1<<62)/u.bytes {
			return 1 << 62, nil // over any ceiling
		}
		return n * u.bytes, nil
	}
	return 0, fmt.Errorf("size %q: no unit", s)
}

func formatSize(n int64) string {
	for _, u := range units {
		if n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}

// show repeats a value that was not of the wanted form.
func show(v any) string {
	switch v := v.(type) {
	case string:
		return strconv.Quote(v)
	case int64:
		return strconv.FormatInt(v, 10)
	}
	return describe(v)
}

func readKV(root *table, b *function.Bindings) {
	list := root.subs("kv")
	root.atMost("kv", len(list))
	names := map[string]bool{}
	for _, t := range list {
		k := function.KVBinding{Name: t.bindingName(names, "links")}
		if k.Namespace = t.text("namespace"); k.Namespace == "" {
			k.Namespace = k.Name
		} else {
			t.checkName("namespace", k.Namespace)
		}
		switch access := t.text("access"); access {
		case "", "read":
		case "write":
			k.Write = true
		default:
			t.fault("access", "%q: want \"read\" or \"write\" (which includes reading)", access)
		}
		t.done()
		b.KV = append(b.KV, k)
	}
}

func (t *table) atMost(name string, n int) {
	if n > maxBindings {
		t.fault(name, "%d of them; at most %d", n, maxBindings)
	}
}

// bindingName reads the name the guest calls a binding by; it must be the only one.
func (t *table) bindingName(taken map[string]bool, example string) string {
	name := t.required("name", example)
	switch {
	case name == "":
	case taken[name]:
		t.fault("name", "%q is bound twice; give each binding a name of its own", name)
	default:
		t.checkName("name", name)
	}
	taken[name] = true
	return name
}

func readBackends(root *table, b *function.Bindings) {
	list := root.subs("backends")
	root.atMost("backends", len(list))
	names := map[string]bool{}
	for _, t := range list {
		backend := function.Backend{Name: t.bindingName(names, "api")}
		if s := t.required("url", "https://api.example.com"); s != "" {
			parsed, err := fetch.ParseBackend(s)
			if err != nil {
				t.fault("url", "%s", strings.TrimPrefix(err.Error(), "backend "))
			} else {
				backend.URL = parsed.String()
			}
		}
		backend.Private = t.flag("private")
		readTimeouts(t, &backend.Timeouts)
		t.done()
		b.Backends = append(b.Backends, backend)
	}
}

func readTimeouts(t *table, o *function.Timeouts) {
	top := function.CeilingTimeouts
	t.duration("connect_timeout", &o.Connect, top.Connect)
	t.duration("tls_timeout", &o.TLS, top.TLS)
	t.duration("first_byte_timeout", &o.FirstByte, top.FirstByte)
	t.duration("between_bytes_timeout", &o.Between, top.Between)
	t.duration("total_timeout", &o.Total, top.Total)
}

// flag reads true or false; false if it is not there.
func (t *table) flag(name string) bool {
	v, ok := t.get(name)
	b, is := v.(bool)
	if ok && !is {
		t.fault(name, "%s where true or false is wanted", show(v))
	}
	return b
}

func readVariables(t *table, b *function.Bindings) {
	if t == nil {
		return
	}
	if n := len(t.values); n > maxVariables {
		t.r.fault(t.path, "%d variables; at most %d", n, maxVariables)
	}
	bytes := 0
	b.Variables = make(map[string]string, len(t.values))
	for name := range t.values {
		value := t.text(name)
		checkVariable(t, name, value)
		bytes += len(name) + len(value)
		b.Variables[name] = value
	}
	if bytes > maxVariableBytes {
		t.r.fault(t.path, "%d bytes of names and values; at most %d. Put what is large in KV", bytes, maxVariableBytes)
	}
}

func checkVariable(t *table, name, value string) {
	letter := func(r rune) bool { return r == '_' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' }
	other := func(r rune) bool { return !letter(r) && (r < '0' || r > '9') }
	switch {
	case name == "" || len(name) > 128 || !letter(rune(name[0])) || strings.ContainsFunc(name, other):
		t.fault(name, "not a variable's name; use letters, digits and _, at most 128, no digit first")
	case strings.HasPrefix(strings.ToUpper(name), "SELVAGE_"):
		t.fault(name, "names that begin with SELVAGE_ are the platform's; choose another")
	case strings.ContainsRune(value, 0):
		t.fault(name, "its value holds a zero byte, which no environment can")
	}
}
