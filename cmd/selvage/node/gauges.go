package node

import (
	"github.com/selvage-edge/selvage/control/agent"
	"github.com/selvage-edge/selvage/control/geodns"
	"github.com/selvage-edge/selvage/edge/telemetry"
	"github.com/selvage-edge/selvage/runtime/pool"
)

// Metrics lists the metrics of a node.
func Metrics() []telemetry.Metric {
	t := telemetry.New(telemetry.Config{})
	(&node{path: &dataPath{metrics: t}}).gauges(nil) // values are asked for by a scrape only
	return t.Metrics()
}

// gauges turns the rooms' facts into metrics: the one place that does.
func (n *node) gauges(a *agent.Agent[*pool.Function]) {
	m, p := n.path.metrics, n.path
	m.Gauge("engine_instances", "Instances alive.", func() float64 { return float64(p.engine.Stats().Instances) })
	m.Gauge("engine_slots_free", "Memory slots waiting to be used again.", func() float64 { return float64(p.engine.Stats().SlotsFree) })
	m.Gauge("engine_slots_retired", "Memory slots given up because a reset failed.", func() float64 { return float64(p.engine.Stats().SlotsRetired) })
	m.Gauge("engine_resident_bytes", "Memory kept by free slots.", func() float64 { return float64(p.engine.Stats().ResidentBytes) })
	m.Gauge("engine_maps", "Memory maps in use, estimated from above.", func() float64 { return float64(p.engine.Stats().Maps) })
	m.Counter("engine_starts_total", "Instances started.", func() float64 { return float64(p.engine.Stats().Starts) })
	m.Counter("engine_renewed_total", "Of those, in an instance of the same program that was made as good as new.", func() float64 { return float64(p.engine.Stats().Renewed) })
	m.Counter("engine_pages_trimmed_total", "Pages given back by guests that wait, because they held little of their own.", func() float64 { return float64(p.engine.Stats().PagesTrimmed) })
	m.Gauge("pool_functions", "Function versions that can be invoked.", func() float64 { return float64(p.pool.Stats().Functions) })
	m.Gauge("pool_loaded", "Of these, whose code and image are loaded.", func() float64 { return float64(p.pool.Stats().Loaded) })
	m.Gauge("pool_codes", "Codes loaded; functions may share one.", func() float64 { return float64(p.pool.Stats().Codes) })
	m.Gauge("pool_images", "Images mapped; functions may share one.", func() float64 { return float64(p.pool.Stats().Images) })
	m.Gauge("pool_bytes", "Memory of loaded codes and images, of limits.loaded_bytes.", func() float64 { return float64(p.pool.Stats().Bytes) })
	m.Counter("pool_loads_total", "Times a function was loaded.", func() float64 { n, _ := p.pool.Churn(); return float64(n) })
	m.Counter("pool_evictions_total", "Times a function gave up what it had loaded, for others.", func() float64 { _, n := p.pool.Churn(); return float64(n) })
	m.Gauge("sched_waiting", "Guests that wait for a turn to compute.", func() float64 { return float64(p.pool.Stats().Waiting) })
	m.Gauge("sched_waiting_long", "Guests that have computed for a millisecond and wait for a turn to go on.", func() float64 { return float64(p.pool.Stats().Long) })
	m.Gauge("limit_running", "Exchanges under way.", func() float64 { return float64(p.limiter.Stats().Running) })
	m.Gauge("limit_waiting", "Exchanges that wait for a place to run.", func() float64 { return float64(p.limiter.Stats().Waiting) })
	m.Counter("limit_shed_busy_total", "Exchanges turned away: their function's queue was full.", func() float64 { return float64(p.limiter.Stats().Shed.Busy) })
	m.Counter("limit_shed_capacity_total", "Exchanges turned away: the node's queue was full, or their project had its share of it.", func() float64 { return float64(p.limiter.Stats().Shed.Capacity) })
	m.Counter("limit_shed_late_total", "Exchanges turned away: they waited too long for a place.", func() float64 { return float64(p.limiter.Stats().Shed.Late) })
	m.Counter("limit_left_total", "Exchanges whose client left while they waited for a place.", func() float64 { return float64(p.limiter.Stats().Shed.Left) })
	m.Gauge("connections_tcp", "Users' TCP connections open, handshakes included.", func() float64 { return float64(p.public.Stats().TCP) })
	m.Gauge("connections_quic", "Users' QUIC connections open.", func() float64 { return float64(p.public.Stats().QUIC) })
	m.Gauge("connections_taken", "Of limits.connections: TCP and QUIC, handshakes included.", func() float64 { return float64(p.public.Stats().Taken) })
	m.Counter("connections_refused_node_total", "Connections closed unread: limits.connections were open.", func() float64 { return float64(p.public.Stats().Refused.Node) })
	m.Counter("connections_refused_client_total", "Connections closed unread: the client had limits.connections_per_client.", func() float64 { return float64(p.public.Stats().Refused.Client) })
	m.Counter("handshakes_failed_total", "TLS handshakes over TCP that failed, took too long, or were too many at once.", func() float64 { return float64(p.public.Stats().Refused.Handshake) })
	m.Counter("connections_calmed_total", "HTTP/2 and HTTP/3 connections closed for too many requests that ended unfinished.", func() float64 { return float64(p.public.Stats().Refused.Calm) })
	m.Gauge("kv_entries_bytes", "Memory of cached KV entries.", func() float64 { return float64(p.kv.Stats().Bytes) })
	m.Counter("kv_hits_total", "KV reads answered in this node.", func() float64 { return float64(p.kv.Stats().Hits) })
	m.Counter("kv_misses_total", "KV reads that asked control.", func() float64 { return float64(p.kv.Stats().Misses) })
	m.Counter("kv_replica_hits_total", "KV reads answered from a copy on disk.", func() float64 { return float64(p.kv.Stats().Replica) })
	m.Gauge("replica_copies", "Copies of replicated KV namespaces that reads are answered from.", func() float64 { return float64(a.Stats().Copies.Whole) })
	m.Gauge("replica_copies_pending", "Replicated KV namespaces whose copy is being made, or cannot be had now.", func() float64 { return float64(a.Stats().Copies.Others) })
	m.Gauge("replica_no_room", "Replicated KV namespaces without a copy for want of room: limits.replica_bytes, or the disk's.", func() float64 { return float64(a.Stats().Copies.NoRoom) })
	m.Gauge("replica_bytes", "Keys, values and metadata of all copies, of limits.replica_bytes.", func() float64 { return float64(a.Stats().Copies.Bytes) })
	m.Counter("replica_from_neighbours_total", "Copies of KV namespaces that came from a node of the PoP, checked against what control says.", func() float64 { return float64(a.Stats().Copies.FromNeighbours) })
	m.Counter("replica_to_neighbours_total", "Copies of KV namespaces sent to nodes of the PoP.", func() float64 { return float64(a.Stats().Copies.ToNeighbours) })
	m.Counter("replica_untrue_total", "Copies of KV namespaces from nodes of the PoP that were not what control says, and were not taken.", func() float64 { return float64(a.Stats().Copies.Untrue) })
	m.Counter("log_lines_dropped_total", "Log lines dropped: over a function's rate, or not read in time.", func() float64 { return float64(p.lines.Stats().Lost) })
	m.Gauge("log_followers", "Who follows this node's log.", func() float64 { return float64(p.lines.Stats().Follows) })
	m.Gauge("catalog_revision", "Revision of the catalog applied here.", func() float64 { return float64(a.Stats().Revision) })
	m.Counter("blobs_from_control_total", "Codes and images fetched from control.", func() float64 { return float64(a.Stats().Fetched.FromControl) })
	m.Counter("blobs_from_neighbours_total", "Codes and images fetched from a node of the PoP.", func() float64 { return float64(a.Stats().Fetched.FromNeighbours) })
	m.Counter("blobs_detours_total", "Codes and images that a node of the PoP was asked for in vain.", func() float64 { return float64(a.Stats().Fetched.Detours) })
	m.Counter("blobs_to_neighbours_total", "Codes and images sent to nodes of the PoP.", func() float64 { return float64(a.Stats().Fetched.ToNeighbours) })
	m.Gauge("changes_logs_control", "Change logs followed from control.", func() float64 { return float64(a.Stats().FromControl) })
	m.Gauge("changes_logs_neighbour", "Change logs followed from a node of the PoP.", func() float64 { return float64(a.Stats().FromNeighbours) })
	m.Gauge("relay_streams", "Streams that nodes of the PoP follow here.", func() float64 { return float64(a.Stats().Relay.Streams) })
	m.Gauge("relay_bytes", "Memory of the changes kept for nodes of the PoP.", func() float64 { return float64(a.Stats().Relay.Bytes) })
	m.Counter("relay_batches_total", "Batches of changes sent to nodes of the PoP.", func() float64 { return float64(a.Stats().Relay.Sent) })
	m.Counter("relay_cut_off_total", "Streams of the PoP's nodes ended because they did not keep up.", func() float64 { return float64(a.Stats().Relay.CutOff) })
	m.Gauge("catalog_connected", "1 while the catalog's stream, from control or a neighbour, is up.", func() float64 { return truth(a.Stats().Connected) })
	m.Gauge("control_away", "1 while control does not answer this node, so that writes of KV, and reads that control has to answer, fail at once.", func() float64 { return truth(n.member.reach.Stats().Away) })
	m.Counter("control_refused_total", "KV questions and writes that were not sent because control did not answer.", func() float64 { return float64(n.member.reach.Stats().Refused) })
	m.Gauge("draining", "1 while this node says that new traffic should go elsewhere.", func() float64 { return truth(p.handler.Draining()) })
	m.Gauge("forward_running", "Exchanges that other nodes answer now.", func() float64 { return float64(p.onward.Stats().Running) })
	m.Counter("forward_shed_total", "Exchanges that could not go on: limits.concurrency were under way to other nodes, or their project had half of that.", func() float64 { s := p.onward.Stats().Shed; return float64(s.Busy + s.Capacity + s.Late) })
	m.Counter("forward_placed_total", "Exchanges that another node answered because their function is placed there.", func() float64 { return float64(p.forward.Stats().Placed) })
	m.Counter("forward_overflowed_total", "Exchanges that another node answered for want of room here.", func() float64 { return float64(p.forward.Stats().Overflowed) })
	m.Counter("forward_denied_total", "Exchanges that stayed here for want of room, because limits.overflow had gone on already.", func() float64 { return float64(p.forward.Stats().Denied) })
	m.Counter("forward_nowhere_total", "Exchanges that no node took which may run their function.", func() float64 { return float64(p.forward.Stats().Nowhere) })
	m.Counter("forward_broken_total", "Exchanges whose other node broke off, or was late.", func() float64 { return float64(p.forward.Stats().Broken) })
	m.Counter("forward_retried_total", "Times another node than the first was asked to take an exchange.", func() float64 { return float64(p.forward.Stats().Retried) })
	m.Gauge("geo_databases", "Place databases in use.", func() float64 { return float64(p.geo.Stats().Loaded) })
	m.Gauge("geo_databases_missing", "Place databases that are configured and cannot be used: absent, or broken and never good.", func() float64 { return float64(p.geo.Stats().Configured - p.geo.Stats().Loaded) })
	m.Counter("geo_broken_records_total", "Lookups of places that met a broken record.", func() float64 { return float64(p.geo.Stats().Broken) })
	m.Counter("dns_queries_total", "DNS queries, answered or dropped.", func() float64 { return float64(dnsStats(p).Queries) })
	m.Counter("dns_tcp_queries_total", "Of these, over TCP.", func() float64 { return float64(dnsStats(p).TCP) })
	m.Counter("dns_refused_total", "DNS queries refused: for a zone that is not ours, a transfer, another class.", func() float64 { return float64(dnsStats(p).Refused) })
	m.Counter("dns_malformed_total", "DNS messages that could not be read.", func() float64 { return float64(dnsStats(p).Malformed) })
	m.Counter("dns_truncated_total", "DNS answers cut to fit UDP, or to bring a client to TCP.", func() float64 { return float64(dnsStats(p).Truncated) })
	m.Counter("dns_limited_total", "DNS answers over dns.rate.", func() float64 { return float64(dnsStats(p).Limited) })
	m.Gauge("functions_live", "Functions whose newest release is served.", func() float64 { return float64(a.Stats().Live) })
	m.Gauge("functions_failed", "Functions whose newest release cannot run here.", func() float64 { return float64(a.Stats().Failed) })
}

// dnsStats are zero where the node is no name server.
func dnsStats(p *dataPath) (s geodns.Stats) {
	if p.dns != nil {
		s = p.dns.Stats()
	}
	return s
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
