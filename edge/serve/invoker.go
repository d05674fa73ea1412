package serve

import (
	"context"
	"net/http"

	"github.com/selvage-edge/selvage/edge/route"
	"github.com/selvage-edge/selvage/edge/telemetry"
	"github.com/selvage-edge/selvage/runtime/function"
)

// Meta is what is known of an exchange before its function runs.
type Meta = telemetry.Meta

// Usage is what one invocation used.
type Usage = telemetry.Usage

// Invoker runs a function for one exchange.
type Invoker interface {
	// Invoke answers r through w, and returns when nothing of it uses either any
	// more. ctx ends when the client leaves. r.Host, r.URL and r.RequestURI are
	// as the client sent them; meta has the canonical address.
	//
	// An error is a *fault.Error (others count as fault.Internal). If Invoke has
	// not called WriteHeader or Write by then, the exchange is answered for it,
	// with the status of the fault; if it has, the response is cut off so that
	// the client does not take it for complete.
	Invoke(ctx context.Context, w http.ResponseWriter, r *http.Request, meta Meta) (Usage, error)
}

// Target is what a route leads to.
type Target struct {
	Version *function.Version // whose function it is, its limits and its placement
	Invoker Invoker           // nil: it must not run here
	Away    bool              // its requests go on to a node that it is placed on
}

// Routes maps requests to targets.
type Routes = route.Table[Target]

// Entry is one route of a table; see route.Build.
type Entry = route.Entry[Target]
