package edge

import (
	"context"
	"net/netip"
)

// Names of the metadata in the request head; see sdk/abi.
const (
	metaRequestID = "request-id"
	metaClient    = "client"
	metaPoP       = "pop"
	metaNode      = "node"
	metaRegion    = "region"
	metaProject   = "project"
	metaFunction  = "function"
	metaVersion   = "version"
)

// Metadata is what the edge knows about a request beyond its HTTP. A field the
// edge did not tell is empty.
type Metadata struct {
	PoP       string         // the point of presence that runs the function
	Node      string         // the machine in it
	Region    string         // where the PoP is
	Client    netip.AddrPort // the client's address as the edge saw it
	RequestID string         // the same in the edge's access log
	Project   string
	Function  string
	Version   string // the deployed bundle's digest
	Place     Place  // where the client is
}

type infoKey struct{}

// Info returns the metadata of the request whose context ctx is, or comes from:
// edge.Info(r.Context()). Elsewhere it returns the zero value.
func Info(ctx context.Context) Metadata {
	if m, ok := ctx.Value(infoKey{}).(*Metadata); ok {
		return *m
	}
	return Metadata{}
}

// WithInfo returns a context in which Info returns m: for tests of handlers. On
// the edge each request's has what the edge knows.
func WithInfo(ctx context.Context, m Metadata) context.Context {
	return context.WithValue(ctx, infoKey{}, &m)
}

// set records one pair of the request head; unknown names are ignored.
func (m *Metadata) set(name, value string) {
	switch name {
	case metaRequestID:
		m.RequestID = value
	case metaClient:
		m.Client, _ = netip.ParseAddrPort(value)
	case metaPoP:
		m.PoP = value
	case metaNode:
		m.Node = value
	case metaRegion:
		m.Region = value
	case metaProject:
		m.Project = value
	case metaFunction:
		m.Function = value
	case metaVersion:
		m.Version = value
	default:
		m.Place.set(name, value)
	}
}
