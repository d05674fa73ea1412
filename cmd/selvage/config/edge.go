// Package config reads the configuration files of edge and control nodes:
// strict TOML, documented defaults, every fault reported at once.
package config

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
)

// Edge is the configuration of one node of a PoP (`selvage edge --config FILE`).
type Edge struct {
	Node   Node       `toml:"node"`
	Listen EdgeListen `toml:"listen"`
	TLS    TLS        `toml:"tls"`
	Limits EdgeLimits `toml:"limits"`
	Fetch  Fetch      `toml:"fetch"`
	Log    Log        `toml:"log"`
	Trace  Trace      `toml:"trace"`
	Geo    Geo        `toml:"geo"`
	DNS    DNS        `toml:"dns"`
}

// Node says who this node is.
type Node struct {
	Name   string   `toml:"name" doc:"The node's name, one in the fleet: lower-case letters, digits and dashes."`
	PoP    string   `toml:"pop" doc:"The point of presence it stands in."`
	Region string   `toml:"region" doc:"A label for placement, such as eu. The node's certificate says it, so that functions can be pinned to it: a node that has joined joins anew to change it." default:"local"`
	Labels []string `toml:"labels" doc:"Further labels for placement, as key=value: 16 of them, 128 bytes together. Functions cannot be pinned to them." default:"[]"`
	State  string   `toml:"state" doc:"Folder for keys, catalog, bundles and compiled code. Made on first start, mode 0700."`

	Position  string   `toml:"position" doc:"Where its PoP stands, as latitude, longitude in degrees, such as 51.51, -0.13: clients near it are sent to it by DNS." default:""`
	Weight    float64  `toml:"weight" doc:"Share of its PoP's own clients that DNS sends to it, 0 to 1; the others go to the next PoP. PoPs in one city share its clients by weight." default:"1"`
	Addresses []string `toml:"addresses" doc:"IP addresses that DNS gives users for this node, one IPv4 and one IPv6; by default that of listen.public or listen.advertise." default:"[]"`
}

// EdgeListen says where an edge node listens.
type EdgeListen struct {
	Public    string `toml:"public" doc:"Address for users: TCP (HTTP/1.1, HTTP/2) and UDP (HTTP/3) on one port." default:"0.0.0.0:443"`
	Admin     string `toml:"admin" doc:"Address for /metrics, /healthz and /readyz. Not for the internet." default:"127.0.0.1:9090"`
	Peer      string `toml:"peer" doc:"Address for the fleet's mTLS traffic." default:"0.0.0.0:7443"`
	Gossip    string `toml:"gossip" doc:"Address for membership, TCP and UDP." default:"0.0.0.0:7946"`
	Advertise string `toml:"advertise" doc:"IP address other nodes reach this one at; needed when peer and gossip listen on 0.0.0.0." default:""`

	ProxyProtocol  []string `toml:"proxy_protocol" doc:"Networks (CIDR) of balancers before this node, whose TCP connections to listen.public begin with a PROXY protocol header (version 1 or 2) that says whose they are; without one they are closed. Elsewhere such a header is refused. HTTP/3 has none: let UDP keep its clients' addresses." default:"[]"`
	TrustedProxies []string `toml:"trusted_proxies" doc:"Networks (CIDR) of HTTP proxies whose X-Forwarded-For is believed: the client is the last address in it that is not in them. Elsewhere the field means nothing." default:"[]"`
}

// TLS names the certificates shown to users.
type TLS struct {
	Certificates []Certificate `toml:"certificates" doc:"Certificate files in PEM; the first is shown to clients whose server name matches none."`
}

// Certificate is one pair of PEM files.
type Certificate struct {
	Cert string `toml:"cert" doc:"Certificate chain, leaf first."`
	Key  string `toml:"key" doc:"Private key."`
}

// EdgeLimits bound the node, beside each function's own limits.
type EdgeLimits struct {
	Concurrency int     `toml:"concurrency" doc:"Requests being answered at once on this node; more wait." default:"10000"`
	Queue       int     `toml:"queue" doc:"Requests waiting to be started on this node, because it or their function has all that it may; more get 503 with Retry-After. A project may have as many as are still free." default:"5000"`
	Connections int     `toml:"connections" doc:"Connections of users open at once, TCP and QUIC together; one more is closed unread. Bounded by the process's descriptors too." default:"20000"`
	PerClient   int     `toml:"connections_per_client" doc:"Of these, one client's: an IPv4 address or an IPv6 /64." default:"1000"`
	Overflow    float64 `toml:"overflow" doc:"Share of requests, 0 to 1, that may be handed on to the next PoP's nodes when there is no place for them here; beyond it they get 503. 0: none." default:"0.1"`
	CacheBytes  int     `toml:"kv_cache_bytes" doc:"Memory for cached KV entries, in bytes." default:"134217728"`
	Replica     int64   `toml:"replica_bytes" doc:"Disk for the copies of replicated KV namespaces, in bytes of keys, values and metadata; what does not fit is read as from cached ones. They are in the folder replica of node.state, which may be a file system of its own. 0: none." default:"4294967296"`
	LoadedBytes int     `toml:"loaded_bytes" doc:"Memory for the code and images of functions that are loaded, in bytes; functions that were not invoked for longest give theirs up, and load it again when they are." default:"2147483648"`
	LoadedMaps  int     `toml:"loaded_maps" doc:"Memory maps for them: an image takes one, and a descriptor; code takes three. Bounded by a quarter of vm.max_map_count, and by half of the process's descriptors, too." default:"16384"`
}

// Fetch bounds what functions may reach.
type Fetch struct {
	Allow       []string `toml:"allow" doc:"Private networks (CIDR) that backends bound with private = true may be in; by default none is reached." default:"[]"`
	Connections int      `toml:"connections" doc:"Connections a function may have to one backend at once; more requests wait for one." default:"256"`
}

// Log says what is logged and where to.
type Log struct {
	Level  string `toml:"level" doc:"debug, info, warn or error." default:"info"`
	Access bool   `toml:"access" doc:"One JSON line per request on standard output." default:"true"`

	RecentBytes   int `toml:"recent_bytes" doc:"Memory for recent lines, which 'selvage logs' shows, in bytes." default:"16777216"`
	FunctionBytes int `toml:"function_bytes" doc:"What one function may log in a second, in bytes, on average; more is dropped and counted." default:"1048576"`
}

// Trace says what is traced, and where spans go.
type Trace struct {
	Endpoint string  `toml:"endpoint" doc:"OTLP/HTTP receiver of spans, such as http://127.0.0.1:4318/v1/traces; empty: nothing is traced. Headers for it come from $OTEL_EXPORTER_OTLP_HEADERS." default:""`
	Ratio    float64 `toml:"ratio" doc:"Share of requests that are traced, 0 to 1." default:"0.01"`
	Asked    int     `toml:"asked_per_second" doc:"Requests a second that are traced because their traceparent says that it is sampled; those beyond, by ratio." default:"10"`
}

// DefaultEdge returns the configuration of a file that sets nothing.
func DefaultEdge() Edge {
	return Edge{
		Node:   Node{Region: "local", Weight: 1},
		Listen: EdgeListen{Public: "0.0.0.0:443", Admin: "127.0.0.1:9090", Peer: "0.0.0.0:7443", Gossip: "0.0.0.0:7946"},
		Limits: EdgeLimits{Concurrency: 10_000, Queue: 5_000, Connections: 20_000, PerClient: 1_000, Overflow: 0.1, CacheBytes: 128 << 20, Replica: 4 << 30, LoadedBytes: 2 << 30, LoadedMaps: 16 << 10},
		Fetch:  Fetch{Connections: 256},
		Log:    Log{Level: "info", Access: true, RecentBytes: 16 << 20, FunctionBytes: 1 << 20},
		Trace:  Trace{Ratio: 0.01, Asked: 10},
		DNS:    DefaultDNS(),
	}
}

// LoadEdge reads and validates an edge node's file. Relative paths in it are
// taken from the file's folder.
func LoadEdge(path string) (Edge, error) {
	c := DefaultEdge()
	if err := decode(path, &c); err != nil {
		return c, err
	}
	dir := filepath.Dir(path)
	c.Node.State = below(dir, c.Node.State)
	c.Geo.below(dir)
	for i := range c.TLS.Certificates {
		p := &c.TLS.Certificates[i]
		p.Cert, p.Key = below(dir, p.Cert), below(dir, p.Key)
	}
	if err := c.Validate(); err != nil {
		return c, fmt.Errorf("config %s:\n%w", path, err)
	}
	return c, nil
}

var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Validate reports every fault of c with its key and value.
func (c *Edge) Validate() error {
	var f faults
	f.name("node.name", c.Node.Name)
	f.name("node.pop", c.Node.PoP)
	f.name("node.region", c.Node.Region)
	f.set("node.state", c.Node.State)
	c.Node.validateSite(&f)
	f.address("listen.public", c.Listen.Public)
	f.address("listen.admin", c.Listen.Admin)
	f.address("listen.peer", c.Listen.Peer)
	f.address("listen.gossip", c.Listen.Gossip)
	f.advertise(c.Listen.Advertise, c.Listen.Peer, c.Listen.Gossip)
	f.networks("listen.proxy_protocol", c.Listen.ProxyProtocol)
	f.networks("listen.trusted_proxies", c.Listen.TrustedProxies)
	if len(c.TLS.Certificates) == 0 {
		f.add("tls.certificates: none; name at least one pair: certificates = [{cert = \"...\", key = \"...\"}]")
	}
	for i, p := range c.TLS.Certificates {
		f.set(fmt.Sprintf("tls.certificates[%d].cert", i), p.Cert)
		f.set(fmt.Sprintf("tls.certificates[%d].key", i), p.Key)
	}
	f.positive("limits.concurrency", c.Limits.Concurrency)
	f.positive("limits.queue", c.Limits.Queue)
	f.positive("limits.connections", c.Limits.Connections)
	f.positive("limits.connections_per_client", c.Limits.PerClient)
	if !(c.Limits.Overflow >= 0 && c.Limits.Overflow <= 1) {
		f.add("limits.overflow: %v: want 0 to 1", c.Limits.Overflow)
	}
	f.positive("limits.kv_cache_bytes", c.Limits.CacheBytes)
	if c.Limits.Replica < 0 {
		f.add("limits.replica_bytes: %d: want 0 or more", c.Limits.Replica)
	}
	f.positive("limits.loaded_bytes", c.Limits.LoadedBytes)
	f.positive("limits.loaded_maps", c.Limits.LoadedMaps)
	f.positive("fetch.connections", c.Fetch.Connections)
	f.networks("fetch.allow", c.Fetch.Allow)
	f.level(c.Log.Level)
	f.positive("log.recent_bytes", c.Log.RecentBytes)
	f.positive("log.function_bytes", c.Log.FunctionBytes)
	if c.Trace.Ratio < 0 || c.Trace.Ratio > 1 {
		f.add("trace.ratio: %v: want 0 to 1", c.Trace.Ratio)
	}
	if c.Trace.Asked < 0 {
		f.add("trace.asked_per_second: %d: want 0 or more", c.Trace.Asked)
	}
	c.Geo.validate(&f)
	c.DNS.validate(&f, false)
	return errors.Join(f...)
}

// Prefixes returns networks of a configuration, parsed. Call after Validate.
func Prefixes(networks []string) []netip.Prefix {
	var all []netip.Prefix
	for _, n := range networks {
		all = append(all, netip.MustParsePrefix(n))
	}
	return all
}

func (f *faults) networks(key string, networks []string) {
	for i, n := range networks {
		if _, err := netip.ParsePrefix(n); err != nil {
			f.add("%s[%d]: %q is not a network such as 10.0.0.0/8", key, i, n)
		}
	}
}
