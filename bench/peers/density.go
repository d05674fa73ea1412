package main

import (
	"context"
	"encoding/binary"
	"encoding/gob"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/cmd/selvage/node"
	"github.com/selvage-edge/selvage/edge/limit"
	"github.com/selvage-edge/selvage/edge/route"
	"github.com/selvage-edge/selvage/edge/serve"
	"github.com/selvage-edge/selvage/edge/telemetry"
	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/image"
	"github.com/selvage-edge/selvage/runtime/pool"
)

// The density rows: five thousand functions in one process, of fifty codes with
// a hundred images each. The codes are those of real guests, told apart by a
// custom section: each is loaded for itself. An image differs from the others of
// its code in eight bytes that its guest does not read: each is mapped for itself.
const (
	denseCodes  = 50
	denseImages = 100
	dense       = denseCodes * denseImages
	denseBytes  = 12 << 30 // that may be loaded: all of them fit
	denseRounds = 3
	crossed     = 2000 // requests of each guest whose crossings are counted
)

// denseGuests are the guests whose codes they are, in turn.
var denseGuests = []string{helloGuest, cGuest, goGuest}

// densityGoals are the most: crossings of a request, and times what one function's start takes.
const (
	mostCrossings = 3
	mostSlower    = 1.3
)

// dressed is a guest with its name and a request for it.
type dressed struct {
	Name  string
	Guest wire
	Head  []byte
}

// densityFigures is what the process of the density rows reports.
type densityFigures struct {
	Crossings   map[string]float64 // of a request, by guest
	One, Many   []float64          // us of a start, call and free, round by round: of one function a guest, of all in turn
	Load        float64            // us of an invocation that loads its function
	Loaded      int                // functions that fitted the budget
	Evicted     uint64             // functions that gave up what they had loaded while starts were measured
	IdleBytes   float64            // memory (Pss) of a function that was not invoked
	LoadedBytes float64            // and of one that was
}

// densityRows has a process of its own measure all of them.
func densityRows(ctx context.Context, all guests) ([]row, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, exe, "-density")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	go func() {
		var list []dressed
		for name, p := range all {
			list = append(list, dressed{name, wire{name + ".edge.localhost", p.code, p.encoded, p.started}, p.head})
		}
		_ = gob.NewEncoder(in).Encode(list) // the process says what it lacks
		_ = in.Close()
	}()
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("density: %w", err)
	}
	var f densityFigures
	if err := json.Unmarshal(out, &f); err != nil {
		return nil, err
	}
	return f.rows(), nil
}

func (f densityFigures) rows() []row {
	one, many := median(f.One), median(f.Many)
	fmt.Printf("density: %d functions of %d codes and %d images: %d fit the budget; %.0f bytes each (Pss) before they are invoked, %.0f KiB loaded; %.0f us for an invocation that loads its function\n",
		dense, denseCodes, dense, f.Loaded, f.IdleBytes, f.LoadedBytes/1024, f.Load)
	for name, n := range f.Crossings {
		fmt.Printf("density: %.2f crossings from Go into C for a request of %s\n", n, name)
	}
	fmt.Println()
	return []row{
		row{Name: "crossings/hello", Value: f.Crossings[helloGuest], Unit: "calls", N: crossed}.atMost(f.Crossings[helloGuest], mostCrossings, ""),
		row{Name: "start/5000-functions", Value: many, Unit: "us", Against: fmt.Sprintf("1 function (%d of %d loaded, %d evicted meanwhile)", f.Loaded, dense, f.Evicted),
			Ratio: many / one, N: dense * len(f.Many)}.atMost(many/one, mostSlower, "x"),
		row{Name: "density/bytes-idle", Value: f.IdleBytes, Unit: "bytes", N: dense},
		row{Name: "density/bytes-loaded", Value: f.LoadedBytes, Unit: "bytes", N: f.Loaded},
	}
}

// runDensity measures with the guests on standard input and writes the figures.
func runDensity(ctx context.Context) error {
	var list []dressed
	if err := gob.NewDecoder(os.Stdin).Decode(&list); err != nil {
		return err
	}
	e, err := engine.Open(engine.Config{})
	if err != nil {
		return err
	}
	k := &keeper{compiler: compiler{e}, kept: map[function.Digest][]byte{}}
	p, err := pool.Open(pool.Config{Engine: e, Compiler: k, Computing: node.Computing(), LoadedBytes: denseBytes})
	if err != nil {
		return err
	}
	var f densityFigures
	if f.Crossings, err = crossings(ctx, p, list); err != nil {
		return err
	}
	c, err := newCrowd(ctx, p, k, list)
	if err != nil {
		return err
	}
	if err := c.measure(ctx, &f); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(f)
}

// keeper compiles each code once, as a node with its disk does. Codes that differ
// in a custom section only have the same artifact.
type keeper struct {
	compiler
	mu   sync.Mutex
	kept map[function.Digest][]byte
}

var _ pool.Keeper = (*keeper)(nil)

func (k *keeper) Has(d function.Digest) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.kept[d] != nil
}

func (k *keeper) Artifact(ctx context.Context, d function.Digest, code []byte) ([]byte, bool, time.Duration, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if a := k.kept[d]; a != nil {
		return a, true, 0, nil
	}
	a, cached, took, err := k.compiler.Artifact(ctx, d, code)
	k.kept[d] = a
	return a, cached, took, err
}

// crossings counts the calls from Go into C that a request of each guest takes
// on its whole way through a node's data path.
func crossings(ctx context.Context, p *pool.Pool, list []dressed) (map[string]float64, error) {
	var entries []serve.Entry
	for _, g := range list {
		target, err := load1(ctx, p, g.Guest, 0)
		if err != nil {
			return nil, err
		}
		entries = append(entries, serve.Entry{Pattern: g.Guest.Host + "/*", Owner: g.Guest.Host, Target: target})
	}
	table, err := route.Build(entries)
	if err != nil {
		return nil, err
	}
	h, err := serve.New(serve.Config{Limiter: limit.New(limit.Config{}), Telemetry: telemetry.New(telemetry.Config{Place: telemetry.Place{PoP: "bench"}})})
	if err != nil {
		return nil, err
	}
	h.SetRoutes(table)
	counts := map[string]float64{}
	for _, g := range list {
		ask := func() error {
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+g.Guest.Host+"/get", nil)
			if err != nil {
				return err
			}
			r.RequestURI, r.RemoteAddr = "/get", "192.0.2.1:443"
			w := &counted{header: http.Header{}}
			if h.ServeHTTP(w, r); w.status == 0 || w.status >= http.StatusInternalServerError {
				return fmt.Errorf("crossings of %s: status %d", g.Name, w.status)
			}
			return nil
		}
		if err := ask(); err != nil { // makes slot, stack and buffers
			return nil, err
		}
		before := runtime.NumCgoCall()
		for range crossed {
			if err := ask(); err != nil {
				return nil, err
			}
		}
		counts[g.Name] = float64(runtime.NumCgoCall()-before) / crossed
	}
	return counts, nil
}

// crowd is the functions of the density rows.
type crowd struct {
	kinds []dressed        // guests
	ones  []*pool.Function // one of each
	all   []*pool.Function // in turn: the next has another code
	pool  *pool.Pool
	idle  float64
}

// newCrowd prepares all functions, of which none is loaded, and one more of each guest.
func newCrowd(ctx context.Context, p *pool.Pool, k *keeper, list []dressed) (*crowd, error) {
	c := &crowd{pool: p}
	for _, name := range denseGuests {
		if i := slices.IndexFunc(list, func(g dressed) bool { return g.Name == name }); i >= 0 {
			c.kinds = append(c.kinds, list[i])
		}
	}
	codes := make([][]byte, denseCodes)
	for i := range codes {
		g := c.kinds[i%len(c.kinds)]
		codes[i] = marked(g.Guest.Code, uint32(i))
		k.kept[function.DigestOf(codes[i])] = k.kept[function.DigestOf(g.Guest.Code)]
	}
	for _, g := range c.kinds {
		f, err := c.prepare(ctx, g, g.Guest.Code, dense)
		if err != nil {
			return nil, err
		}
		c.ones = append(c.ones, f)
	}
	before, err := pss()
	if err != nil {
		return nil, err
	}
	for i := range dense {
		f, err := c.prepare(ctx, c.kinds[i%denseCodes%len(c.kinds)], codes[i%denseCodes], i)
		if err != nil {
			return nil, err
		}
		c.all = append(c.all, f)
	}
	after, err := pss()
	c.idle = float64(after-before) / dense
	return c, err
}

// marked is a code with one more custom section.
func marked(code []byte, n uint32) []byte {
	return append(slices.Clone(code), 0, 6, 1, 'n', byte(n), byte(n>>8), byte(n>>16), byte(n>>24))
}

// prepare prepares a function whose image holds n at an address that no guest's toolchain uses.
func (c *crowd) prepare(ctx context.Context, g dressed, code []byte, n int) (*pool.Function, error) {
	picture := func(context.Context) ([]byte, error) {
		img, err := image.Decode(g.Guest.Image, 1<<30)
		if err != nil {
			return nil, err
		}
		const at = 16
		mark := image.Run{Offset: at, Data: binary.LittleEndian.AppendUint64(nil, uint64(n)+1)}
		switch {
		case len(img.Runs) == 0 || img.Runs[0].Offset >= at+8:
			img.Runs = append([]image.Run{mark}, img.Runs...)
		case img.Runs[0].Offset == 0 && len(img.Runs[0].Data) >= at+8: // the deep end of C's stack
			img.Runs[0].Data = slices.Clone(img.Runs[0].Data)
			copy(img.Runs[0].Data[at:], mark.Data)
		default:
			return nil, fmt.Errorf("density: the image of %s begins at %d", g.Name, img.Runs[0].Offset)
		}
		return img.Encode(), nil
	}
	v := function.Version{
		ID: function.ID{Project: "bench", Name: fmt.Sprint("f", n)}, Digest: function.DigestOf(fmt.Append(nil, n)),
		Code: function.DigestOf(code), Image: function.DigestOf(fmt.Append(nil, g.Name, n)), Started: g.Guest.Started, Limits: function.Default,
	}
	whole := func(context.Context) ([]byte, error) { return code, nil }
	f, _, err := c.pool.Prepare(ctx, v, pool.Parts{Code: whole, Image: picture, Known: true})
	return f, err
}

// measure loads all functions and then has one of each guest and all in turn
// start, round by round. A round of one function invokes it as often as all of
// its guest's are.
func (c *crowd) measure(ctx context.Context, f *densityFigures) error {
	f.IdleBytes = c.idle
	before, err := pss()
	if err != nil {
		return err
	}
	others := c.pool.Stats().Loaded // those whose crossings were counted
	if f.Load, err = c.round(ctx, false); err != nil {
		return err
	}
	after, err := pss()
	if err != nil {
		return err
	}
	f.Loaded = c.pool.Stats().Loaded - others
	f.LoadedBytes = float64(after-before) / float64(f.Loaded)
	_, evicted := c.pool.Churn()
	for i := range denseRounds + 1 {
		one, err := c.round(ctx, true)
		if err != nil {
			return err
		}
		many, err := c.round(ctx, false)
		if err != nil {
			return err
		}
		if i > 0 { // the first round warms
			f.One, f.Many = append(f.One, one), append(f.Many, many)
		}
	}
	_, now := c.pool.Churn()
	f.Evicted = now - evicted
	return nil
}

// round invokes as many functions as there are and returns us an invocation.
func (c *crowd) round(ctx context.Context, same bool) (float64, error) {
	begin := time.Now()
	for i := range dense {
		kind, f := i%denseCodes%len(c.kinds), c.all[i]
		if same { // all of the first guest's, then all of the next's
			kind = i * len(c.kinds) / dense
			f = c.ones[kind]
		}
		x := &asked{head: c.kinds[kind].Head}
		if _, err := f.Invoke(ctx, guest.Ports{}, x); err != nil {
			return 0, fmt.Errorf("density: %s: %w", f.Version().ID, err)
		}
		if x.bytes == 0 {
			return 0, errSilent
		}
	}
	return float64(time.Since(begin).Nanoseconds()) / 1000 / dense, nil
}

// asked is an exchange that counts the answer's bytes. What a guest without a body does not call is nil.
type asked struct {
	guest.Exchange
	head  []byte
	bytes int
}

func (*asked) RequestID() string               { return "" }
func (*asked) StartBy() time.Time              { return time.Time{} }
func (x *asked) AppendHead(b []byte) []byte    { return append(b, x.head...) }
func (*asked) HasBody() bool                   { return false }
func (*asked) WriteHead(int, []byte) error     { return nil }
func (*asked) Flush() error                    { return nil }
func (*asked) Interrupt()                      {}
func (*asked) RequestTrailers() ([]byte, bool) { return nil, true }
func (x *asked) WriteBody(p []byte) error      { x.bytes += len(p); return nil }
func (x *asked) Finish(p []byte) error         { x.bytes += len(p); return nil }
