// Package engine runs WebAssembly: the only room that knows wasmtime.
package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/selvage-edge/selvage/runtime/engine/cshim"
)

// Version is the engine that the product is built and tested with: the library
// inside wasmtime-go v39.0.1, which is wasmtime 39.0.0.
const Version = "wasmtime 39.0.0"

// Sizes that the whole engine shares.
const (
	wasmStack   = StackBytes
	fiberStack  = 9 << 18 // 2.25 MiB: the rest is for host code
	spareMaps   = 8192    // left to the rest of the process
	defaultTick = time.Millisecond
)

// Memory maps that loaded code and an image take, instances aside; an image
// takes a file descriptor too.
const (
	CodeMaps  = 3
	ImageMaps = 1
)

// StackBytes is how deep a guest may recurse: 128 KiB would trap on JSON nested 1,000 deep.
const StackBytes = 2 << 20

// DefaultTableElements is how many elements one instance's tables may have, a
// mebibyte for each of its tables, four at most, that limits.memory does not count.
const DefaultTableElements = 131_072

// ErrCapacity says the node has no room for another instance; answer 503.
var ErrCapacity = errors.New("engine: no room for another instance on this node; raise vm.max_map_count")

// ErrTooLarge says that the image does not fit into the memory limit.
var ErrTooLarge = cshim.ErrTooLarge

// Config says how an Engine runs. The zero value of a field is its default.
type Config struct {
	Tick            time.Duration // how often running guests hand the processor back; default 1 ms
	ResidentBytes   int64         // memory that free slots may keep, node-wide; default 512 MiB
	TableElements   int64         // of one instance's tables; default 131,072
	RemapOnly       bool          // reset slots by mapping them anew, as where PAGEMAP_SCAN is missing
	ParallelCompile bool          // compile one module on all processors; for tools, not for nodes
	QuickCompile    bool          // compile without optimization, in a fraction of the time; for tools, not for nodes
	Maps            int64         // memory maps that may be in use; default: what vm.max_map_count leaves
}

func (c Config) withDefaults() Config {
	if c.Tick == 0 {
		c.Tick = defaultTick
	}
	if c.ResidentBytes == 0 {
		c.ResidentBytes = 512 << 20
	}
	if c.TableElements == 0 {
		c.TableElements = DefaultTableElements
	}
	return c
}

// Validate reports every field that cannot be used.
func (c Config) Validate() error {
	var faults []error
	if c.Tick < 0 || c.Tick > time.Second {
		faults = append(faults, fmt.Errorf("engine: tick %v: want 0 to 1s", c.Tick))
	}
	if c.ResidentBytes < 0 {
		faults = append(faults, fmt.Errorf("engine: resident bytes %d: want 0 or more", c.ResidentBytes))
	}
	if c.Maps < 0 {
		faults = append(faults, fmt.Errorf("engine: maps %d: want 0 or more", c.Maps))
	}
	if c.TableElements < 0 || c.TableElements > 10_000_000 {
		faults = append(faults, fmt.Errorf("engine: table elements %d: want 0 to 10,000,000", c.TableElements))
	}
	return errors.Join(faults...)
}

// Engine compiles and runs code. There is one per process.
type Engine struct {
	policy policy
	quick  bool // Config.QuickCompile
	closed atomic.Bool
}

var opened atomic.Bool

// Open starts the engine. It refuses a second one in the process, and a
// configuration or machine that SECURITY.md's advisory table does not allow.
func Open(c Config) (*Engine, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	m := maps{most: c.Maps}
	if c.Maps == 0 {
		var err error
		if m, err = readMaps(); err != nil {
			return nil, err
		}
	}
	return open(c.withDefaults(), production, m)
}

func open(c Config, p policy, m maps) (*Engine, error) {
	if err := p.check(runtime.GOOS, runtime.GOARCH); err != nil {
		return nil, err
	}
	if !opened.CompareAndSwap(false, true) {
		return nil, errors.New("engine: already opened: there is one engine per process")
	}
	if err := setEnvironment(); err != nil {
		return nil, fmt.Errorf("engine: open: %w", err)
	}
	if err := cshim.Open(p.config(c, m)); err != nil {
		return nil, fmt.Errorf("engine: open: %w", err)
	}
	if err := p.prove(cshim.Validate); err != nil {
		cshim.Close()
		return nil, err
	}
	return &Engine{policy: p, quick: c.QuickCompile}, nil
}

// setEnvironment says what the engine's libraries take from there only.
func setEnvironment() error {
	// Else a guest that is refused memory makes the engine walk its own stack, for a text nobody reads.
	err := os.Setenv("RUST_LIB_BACKTRACE", "0")
	// Else the threads of the compiler are counted by files that a helper cannot open.
	return errors.Join(err, os.Setenv("RAYON_NUM_THREADS", strconv.Itoa(runtime.GOMAXPROCS(0))))
}

// maps is how many memory maps the process has and may have.
type maps struct{ now, most int64 }

func readMaps() (maps, error) {
	self, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return maps{}, fmt.Errorf("engine: count memory maps: %w", err)
	}
	limit, err := os.ReadFile("/proc/sys/vm/max_map_count")
	if err != nil {
		return maps{}, fmt.Errorf("engine: read the limit on memory maps: %w", err)
	}
	most, err := strconv.ParseInt(strings.TrimSpace(string(limit)), 10, 64)
	if err != nil {
		return maps{}, fmt.Errorf("engine: vm.max_map_count: %w", err)
	}
	now := int64(strings.Count(string(self), "\n"))
	if most-spareMaps <= now {
		return maps{}, fmt.Errorf("engine: vm.max_map_count is %d: raise it to 262144 or more", most)
	}
	return maps{now, most - spareMaps}, nil
}

// Close stops the engine. Every instance must have been closed before, and
// their borrows released. The process cannot open another.
func (e *Engine) Close() error {
	if e.closed.Swap(true) {
		return nil
	}
	if n := cshim.ReadStats().Instances; n != 0 {
		return fmt.Errorf("engine: close: %d instances are still alive", n)
	}
	cshim.Close()
	return nil
}

// Validate reports why a module is not valid, or uses a feature that is off. It
// compiles nothing.
func (*Engine) Validate(module []byte) error { return cshim.Validate(module) }

// Compile returns the artifact of code. Cold and slow; only helpers call it.
func (*Engine) Compile(code []byte) ([]byte, error) {
	artifact, err := cshim.Compile(code)
	if err != nil {
		return nil, fmt.Errorf("compile: %w", err)
	}
	return artifact, nil
}

// Fingerprint names everything besides the code that an artifact depends on:
// the engine's version, its configuration and the processor's features.
func (e *Engine) Fingerprint() string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%s\n%+v\n%d %d\n%x\n", Version, runtime.GOARCH, e.policy, wasmStack, fiberStack, cshim.CPUFeatures())
	if e.quick { // of tools: no node loads it
		fmt.Fprintln(h, "quick")
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Stats are counters and gauges of one engine.
type Stats struct {
	Instances     int64 // alive
	Kept          int64 // renewed, and kept for their programs' next instances
	SlotsFree     int64 // of instances that are kept, too
	SlotsRetired  int64 // neither reused nor given back, because a reset failed
	ResidentBytes int64 // kept by free slots
	Maps          int64 // memory maps, estimated from above
	MaxMaps       int64 // Start is refused above it
	Starts        uint64
	Renewed       uint64 // of those, in what an instance of the same program had left as good as new
	Resets        uint64 // slots reset by copying pages back
	KnownResets   uint64 // of those, where no page was touched for the first time: the kernel was not asked which
	PagesCopied   uint64
	PagesTrimmed  uint64 // given back by guests that wait
	PagesFolded   uint64 // of those, of which the lines that differ from the image's were kept beside
	Remaps        uint64 // slots reset by mapping the image over
	Ticks         uint64 // none while no guest runs
	Scanning      bool   // PAGEMAP_SCAN works here
}

// Stats returns the engine's counters.
func (*Engine) Stats() Stats {
	s := cshim.ReadStats()
	return Stats{
		Instances: s.Instances, Kept: s.Kept, SlotsFree: s.FreeSlots + s.Kept, SlotsRetired: s.RetiredSlots, ResidentBytes: s.ResidentBytes,
		Maps: s.Maps, MaxMaps: s.MaxMaps, Starts: s.Starts, Renewed: s.Renewed, Resets: s.Resets, KnownResets: s.KnownResets, PagesCopied: s.PagesCopied, PagesTrimmed: s.PagesTrimmed, PagesFolded: s.PagesFolded, Remaps: s.Remaps, Ticks: s.Ticks,
		Scanning: cshim.Scanning(),
	}
}
