package listen

// Stats is a snapshot.
type Stats struct {
	Exchanges int64 // under way
	TCP       int64 // open connections, handshakes included
	QUIC      int64 // open connections
	Taken     int64 // of Config.Connections: TCP and QUIC, handshakes included
	Refused   Refused
}

// Refused counts, since the start, the connections that were turned away or
// closed for what their clients did.
type Refused struct {
	Node      int64 // the node had Config.Connections
	Client    int64 // the client had Config.ConnectionsPerClient
	Handshake int64 // TLS over TCP: too many handshakes at once, or one that failed or took too long
	Calm      int64 // HTTP/2 and HTTP/3: too many exchanges that ended unfinished
}

// Stats returns what is open now.
func (s *Server) Stats() Stats {
	return Stats{Exchanges: s.inFlight.Load(), TCP: s.tcp.open.Load(), QUIC: s.quic.conns.Load(), Taken: s.gate.taken(), Refused: Refused{
		Node: s.gate.node.Load(), Client: s.gate.client.Load(), Handshake: s.tcp.failed.Load(), Calm: s.calmed.Load(),
	}}
}
