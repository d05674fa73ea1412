package bundle

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/selvage-edge/selvage/runtime/function"
)

// key documents one key of the manifest.
type key struct{ name, def, meaning string }

var manifestKeys = []key{
	{"project", "`default`", "The project (tenant) the function belongs to."},
	{"name", "(required)", "The function's name within the project."},
	{"routes", "none", "Where it answers: `host/path`. A host may be `*` or begin with `*.`; a path may end in `/*`. The most specific wins."},
	{"build.command", "nothing to run", "Run by the shell in the function's folder."},
	{"build.output", "`NAME.wasm`", "The module that it makes."},
	{"snapshot", "`auto`", "Whether start-up (the start section, `_initialize`, `selvage_start`) runs once, at deploy. `auto`: if the module exports `selvage_start`, as the SDK's do, or if it asks for no randomness, time or environment there; `deploy` says what became of it. `required`: refuse to deploy where it cannot. `off`: it runs with each request."},
	{"limits", "see Limits", "What one request may use."},
	{"kv.name", "(required)", "What the code calls the namespace: `edge.KV(NAME)`. One `[[kv]]` table for each."},
	{"kv.namespace", "the name", "The namespace, within the project; made on deploy if it is not there."},
	{"kv.access", "`read`", "`read` or `write`."},
	{"backends.name", "(required)", "A name for the origin. One `[[backends]]` table for each."},
	{"backends.url", "(required)", "Scheme, host and optional port that the function may send requests to."},
	{"backends.private", "`false`", "`true`: it may be in a private network; the node's `fetch.allow` must allow that network too."},
	{"backends.connect_timeout", timeout(function.DefaultTimeouts.Connect, function.CeilingTimeouts.Connect), "Name and TCP connection. One subrequest over a timeout fails as unavailable."},
	{"backends.tls_timeout", timeout(function.DefaultTimeouts.TLS, function.CeilingTimeouts.TLS), "TLS handshake."},
	{"backends.first_byte_timeout", timeout(function.DefaultTimeouts.FirstByte, function.CeilingTimeouts.FirstByte), "From the request sent to the response's head."},
	{"backends.between_bytes_timeout", timeout(function.DefaultTimeouts.Between, function.CeilingTimeouts.Between), "Without a byte of the response's body, while the function waits for one."},
	{"backends.total_timeout", timeout(function.DefaultTimeouts.Total, function.CeilingTimeouts.Total), "From the call to the last byte of the response's body."},
	{"placement.include", "any node", "Labels, as `\"region=eu\"`: it runs on nodes that have one of them. Each node has `pop`, `region` and `node` (its name), and what its configuration gives it (`node.labels`)."},
	{"placement.exclude", "none", "It does not run on nodes that have one of these labels."},
	{"placement.residency", "`false`", "`true`: other nodes neither hold nor run it, even where none that may lives: then its requests get 503. Its labels are those that certificates prove: `pop`, `region`, `node`. `false`: where none that may lives, the node that was asked answers."},
	{"variables", "none", "Names and values given to the function; also its environment."},
}

func timeout(def, ceiling time.Duration) string {
	if def == 0 {
		return "`limits.wall`; at most " + short(ceiling)
	}
	return short(def) + "; at most " + short(ceiling)
}

// short is a duration without zero parts: 15m, not 15m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	return s
}

// WriteReference writes a table of the manifest's keys.
func WriteReference(w io.Writer) {
	fmt.Fprintf(w, "| key | default | meaning |\n|---|---|---|\n")
	for _, k := range manifestKeys {
		fmt.Fprintf(w, "| `%s` | %s | %s |\n", k.name, k.def, k.meaning)
	}
}

// limitKey documents one key below [limits].
type limitKey struct {
	name, meaning, over string
	value               func(l function.Limits) string
}

var limitKeys = []limitKey{
	{"cpu", "Processor time of one request.", "504", func(l function.Limits) string { return l.CPU.String() }},
	{"wall", "Time from the first byte in to the last byte out.", "504, or the response breaks off", func(l function.Limits) string { return l.Wall.String() }},
	{"memory", "Linear memory.", "`memory.grow` is refused; 500 if the guest traps on it", func(l function.Limits) string { return formatSize(l.MemoryBytes) }},
	{"request_body", "Body the client sends.", "413", func(l function.Limits) string { return formatSize(l.RequestBody) }},
	{"response_head", "Headers of the answer.", "500", func(l function.Limits) string { return formatSize(int64(l.ResponseHead)) }},
	{"log", "Log lines of one request.", "dropped and counted", func(l function.Limits) string { return formatSize(int64(l.LogBytes)) }},
	{"subrequests", "Outbound requests.", "refused to the function", func(l function.Limits) string { return strconv.Itoa(l.Subrequests) }},
	{"subrequests_now", "Outbound requests at once.", "refused to the function", func(l function.Limits) string { return strconv.Itoa(l.SubrequestsNow) }},
	{"subrequest_body", "Body of one subrequest's response.", "the read fails", func(l function.Limits) string { return formatSize(l.SubrequestBody) }},
	{"host_calls", "Host calls that leave the engine: all but those for the clock, random numbers, the log and what is gathered of an answer.", "500", func(l function.Limits) string { return strconv.Itoa(l.HostCalls) }},
	{"kv_operations", "KV calls.", "refused to the function", func(l function.Limits) string { return strconv.Itoa(l.KVOperations) }},
	{"concurrency", "Requests of the function at once on a node.", "they wait to be started", func(l function.Limits) string { return strconv.Itoa(l.Concurrency) }},
	{"queue", "Requests that wait to be started, on a node.", "503 with Retry-After, at once", func(l function.Limits) string { return strconv.Itoa(l.Queue) }},
	{"queue_wait", "How long a request waits to be started, from its arrival.", "503 with Retry-After", func(l function.Limits) string { return l.QueueWait.String() }},
	{"weight", "The function's share of processor time and of places on a full node, against the project's other functions. Projects share alike.", "", func(l function.Limits) string { return strconv.Itoa(l.Weight) }},
}

// WriteLimits writes a table of the limits: default, ceiling, and what happens over them.
func WriteLimits(w io.Writer) {
	fmt.Fprintf(w, "| `[limits]` key | default | ceiling | what it bounds | over it |\n|---|---|---|---|---|\n")
	for _, k := range limitKeys {
		fmt.Fprintf(w, "| `%s` | %s | %s | %s | %s |\n", k.name, k.value(function.Default), k.value(function.Ceiling), k.meaning, k.over)
	}
}
