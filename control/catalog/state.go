package catalog

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/selvage-edge/selvage/runtime/function"
)

// What Apply may refuse with.
var (
	ErrStale = errors.New("catalog: not newer than what is held")
	ErrEpoch = errors.New("catalog: another epoch: rebuild from the start of the log")
)

// State holds the newest catalog; readers take snapshots, one owner applies.
type State struct {
	cur    atomic.Pointer[Snapshot]
	verify Verifier
	mu     sync.Mutex
}

// NewState returns an empty catalog at position zero.
func NewState(t Verifier) *State { panic("not yet") }

// Snapshot returns the newest catalog; never nil.
func (s *State) Snapshot() *Snapshot { return s.cur.Load() }

// Apply verifies records (as Sign made them), which must be in order and newer than the state, and
// moves the state to position to (at or after the last record): all or nothing. The first epoch
// is taken as it comes; a later one needs Rebuild (ErrEpoch).
func (s *State) Apply(to Position, records ...[]byte) error { panic("not yet") }

// Rebuild starts an empty catalog of a newer epoch beside the present one, which keeps serving until Commit.
func (s *State) Rebuild(epoch uint64) (*Rebuild, error) { panic("not yet") }

// Rebuild is a catalog being read again from the start of the log.
type Rebuild struct{}

// Apply is as State.Apply; records of earlier epochs are allowed, in order.
func (r *Rebuild) Apply(to Position, records ...[]byte) error { panic("not yet") }

// Commit makes it the state's catalog.
func (r *Rebuild) Commit() error { panic("not yet") }

// Save writes the present snapshot to path in one step.
func (s *State) Save(path string) error { panic("not yet") }

// Load reads what Save wrote and verifies every record again. It refuses a file
// older than the state (ErrStale); a missing file is fs.ErrNotExist.
func (s *State) Load(path string) error { panic("not yet") }

// Snapshot is the catalog at one position: immutable. Do not change what its methods return.
type Snapshot struct{}

// Position returns where in the order the snapshot stands.
func (s *Snapshot) Position() Position { panic("not yet") }

// Release returns the function's newest record, also a removed one.
func (s *Snapshot) Release(id function.ID) (Release, bool) { panic("not yet") }

// Releases returns all live releases, by project and function.
func (s *Snapshot) Releases() []Release { panic("not yet") }

// Namespace returns a live namespace.
func (s *Snapshot) Namespace(project, name string) (Namespace, bool) { panic("not yet") }

// Namespaces returns all live namespaces, by project and name.
func (s *Snapshot) Namespaces() []Namespace { panic("not yet") }

// Binds reports whether some live release binds the namespace (with write access, if write).
func (s *Snapshot) Binds(project, namespace string, write bool) bool { panic("not yet") }

// Bound returns the namespaces some live release binds.
func (s *Snapshot) Bound() []Namespace { panic("not yet") }

// RouteOwner returns the function that holds a canonical pattern.
func (s *Snapshot) RouteOwner(pattern string) (function.ID, bool) { panic("not yet") }

// Admit reports why control must not sign r now: a *RouteTaken for each route another function holds, a binding to a
// namespace that does not exist, a number that does not follow. All reasons are joined.
func (s *Snapshot) Admit(r *Record) error { panic("not yet") }

// RouteTaken says who holds a route.
type RouteTaken struct {
	Route string
	Owner function.ID
}

func (e *RouteTaken) Error() string { panic("not yet") }
