// Package serve carries one HTTP exchange through its stages, in the order that
// is written in Handler.stages.
package serve

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/selvage-edge/selvage/edge/fetch"
	"github.com/selvage-edge/selvage/edge/forward"
	"github.com/selvage-edge/selvage/edge/guard"
	"github.com/selvage-edge/selvage/edge/limit"
	"github.com/selvage-edge/selvage/edge/telemetry"
	"github.com/selvage-edge/selvage/runtime/fault"
)

// RequestIDHeader names the response header with the exchange's identity.
const RequestIDHeader = "Selvage-Request-Id"

// serverHeader is all that a client learns of what answers it.
var serverHeader = []string{"selvage"}

// Config wires a Handler. Only Limiter and Telemetry must be set.
type Config struct {
	Limiter   *limit.Limiter
	Telemetry *telemetry.Telemetry
	Place     telemetry.Place
	// Covers reports whether the certificate chosen for a server name is good for
	// another host; see guard.Guard. Nil: never.
	Covers func(sni, host string) bool
	// Forward hands exchanges on to other nodes. Nil: none goes on.
	Forward *forward.Forwarder
	// Onward admits exchanges that go on, by their projects. They take no place of Limiter:
	// what they hold here is a connection and buffers. Nil: one with that package's defaults.
	Onward *limit.Limiter
	// Unready says why new traffic should go elsewhere, beside what this room knows of: for
	// /readyz. "" is nothing. Nil: never.
	Unready func() string
	// Proxies are networks whose word is taken, in X-Forwarded-For, for whom they
	// ask. From anywhere else it is what a client likes to say, and means nothing.
	Proxies []netip.Prefix
}

// Handler serves every exchange of a node. Make it with New.
type Handler struct {
	cfg      Config
	guard    guard.Guard
	routes   atomic.Pointer[Routes] // nil until the first SetRoutes
	draining atomic.Bool
	ledger   ledger
}

var _ http.Handler = (*Handler)(nil)

// New returns a Handler without routes: it answers 503 until SetRoutes.
func New(cfg Config) (*Handler, error) {
	var faults []error
	if cfg.Limiter == nil {
		faults = append(faults, errors.New("serve: Config.Limiter is not set"))
	}
	if cfg.Telemetry == nil {
		faults = append(faults, errors.New("serve: Config.Telemetry is not set"))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	if cfg.Onward == nil {
		cfg.Onward = limit.New(limit.Config{})
	}
	return &Handler{cfg: cfg, guard: guard.Guard{Covers: cfg.Covers}}, nil
}

// SetRoutes swaps the route table. Exchanges that are past the route stage end
// on the table they began with.
func (h *Handler) SetRoutes(t *Routes) { h.routes.Store(t) }

// Routes returns the table in use, nil before the first.
func (h *Handler) Routes() *Routes { return h.routes.Load() }

// SetDraining tells /readyz whether this node wants new connections. Exchanges
// are served all the same.
func (h *Handler) SetDraining(on bool) { h.draining.Store(on) }

// Draining reports what SetDraining was told last.
func (h *Handler) Draining() bool { return h.draining.Load() }

// ServeHTTP serves one exchange: it runs the stages, answers for them when they
// fail, and records the exchange whatever happened.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.serve(h.begin(w, r))
}

func (h *Handler) serve(x *exchange) {
	err := h.protect(x)
	cut := h.answer(x, err)
	x.w.linger()
	h.ledger.note(x)
	h.tell(x, err)
	if cut {
		panic(http.ErrAbortHandler) // how net/http and http3 are told to break a response off
	}
}

// stages is the whole exchange, in order. No stage knows its neighbours; what
// one finds for the next is in x.
func (h *Handler) stages(x *exchange) error {
	if err := h.canonical(x); err != nil {
		return err
	}
	if err := h.loop(x); err != nil {
		return err
	}
	if err := h.route(x); err != nil {
		return err
	}
	if done, err := h.placed(x); done {
		return err
	}
	if err := h.admit(x); err != nil {
		return h.overflow(x, err)
	}
	defer x.ticket.Release()
	return h.invoke(x)
}

// protect turns a panic of a stage into an internal fault. A stage that wants
// the response broken off may panic with http.ErrAbortHandler.
func (h *Handler) protect(x *exchange) (err error) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler:
			x.w.aborted = true
			err = fault.New(fault.Canceled, "the response was broken off", nil)
		default:
			err = fault.New(fault.Internal, fmt.Sprintf("panic: %v\n%s", p, debug.Stack()), nil)
		}
	}()
	return h.stages(x)
}

// begin prepares the exchange's state.
func (h *Handler) begin(w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{r: r, start: time.Now(), client: h.clientOf(r), protocol: r.Proto}
	x.span = h.cfg.Telemetry.Begin(r, x.start)
	x.w.ResponseWriter = w
	x.w.exchange = x
	x.id[0] = newRequestID()
	if r.Body != nil && r.Body != http.NoBody {
		// A copy: net/http looks at the body of its own request to see what is left
		// of it, and whether the client still waits to be asked for it.
		counted := *r
		x.body.ReadCloser, x.body.request = r.Body, r
		counted.Body = &x.body
		x.r = &counted
	}
	return x
}

// newRequestID returns 128 random bits in hex: unique, and from the runtime's
// ChaCha8, which costs a tenth of what keys need. Nothing may rest on its being secret.
func newRequestID() string {
	var bits [16]byte
	binary.NativeEndian.PutUint64(bits[:8], rand.Uint64())
	binary.NativeEndian.PutUint64(bits[8:], rand.Uint64())
	var id [32]byte
	hex.Encode(id[:], bits[:])
	return string(id[:])
}

func (h *Handler) canonical(x *exchange) (err error) {
	x.canon, err = h.guard.Request(x.r)
	return err
}

var (
	errNoRoutes = &refusal{http.StatusServiceUnavailable, "not-ready", "this node has no routes yet"}
	errNoRoute  = &refusal{http.StatusNotFound, "no-route", "no function serves this host and path"}
	errLoop     = &refusal{http.StatusLoopDetected, "loop", "the request has passed through this CDN too often"}
)

// loop refuses a request that functions keep sending round (RFC 8586).
func (h *Handler) loop(x *exchange) error {
	if fetch.Passes(x.r.Header, fetch.CDN) > fetch.MaxLoop {
		return errLoop
	}
	return nil
}

func (h *Handler) route(x *exchange) error {
	table := h.routes.Load()
	x.notHere = "no route" // of what another node hands on
	if table == nil {
		return errNoRoutes
	}
	target, ok := table.Lookup(x.canon.Host, x.canon.Path)
	if !ok {
		return errNoRoute
	}
	x.target = target
	return x.expected()
}

func (h *Handler) admit(x *exchange) (err error) {
	v := x.target.Version
	limits := v.Limits.WithDefaults()
	x.startBy = x.start.Add(limits.QueueWait)
	x.ticket, err = h.cfg.Limiter.Admit(x.r.Context(), v.ID, limits, x.startBy)
	x.usage.Queued = x.ticket.Waited
	return err
}

func (h *Handler) invoke(x *exchange) (err error) {
	meta := Meta{
		RequestID: x.id[0],
		Scheme:    "https",
		Authority: x.canon.Authority(),
		Target:    x.canon.Target(),
		Protocol:  x.protocol,
		Client:    x.client,
		Place:     h.cfg.Place,
		StartBy:   x.startBy,
	}
	x.ran = true
	run := x.span.Child("guest")
	x.usage, err = x.target.Invoker.Invoke(x.located(run.Context(x.r.Context())), &x.w, x.r, meta)
	x.usage.Queued += x.ticket.Waited
	run.Done(x.span, err)
	if err != nil && errors.Is(x.r.Context().Err(), context.Canceled) && fault.Of(err).Kind == fault.Internal {
		return fault.New(fault.Canceled, "", err)
	}
	return err
}
