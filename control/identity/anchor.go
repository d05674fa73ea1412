package identity

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Anchor holds the newest trust a process has, pinned to one root.
type Anchor struct {
	root KeyID
	path string
	now  func() time.Time
	cur  atomic.Pointer[Trust]
	mu   struct {
		sync.Mutex
		changed chan struct{} // closed and replaced by each update
	}
}

// NewAnchor checks b and holds it. If path is not empty, updates are saved there.
func NewAnchor(root KeyID, b Bundle, path string, now func() time.Time) (*Anchor, error) {
	t, err := NewTrust(root, b, now)
	if err != nil {
		return nil, err
	}
	a := &Anchor{root: root, path: path, now: clock(now)}
	a.mu.changed = make(chan struct{})
	a.cur.Store(t)
	return a, nil
}

// Trust returns the newest trust.
func (a *Anchor) Trust() *Trust { return a.cur.Load() }

// Verify is Trust().Verify.
func (a *Anchor) Verify(purpose Purpose, project, payloadType string, e Envelope) ([]byte, KeyID, error) {
	return a.Trust().Verify(purpose, project, payloadType, e)
}

// VerifyKept is Trust().VerifyKept.
func (a *Anchor) VerifyKept(purpose Purpose, project, payloadType string, e Envelope) ([]byte, KeyID, error) {
	return a.Trust().VerifyKept(purpose, project, payloadType, e)
}

// Changed returns a channel that is closed by the next update.
func (a *Anchor) Changed() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.changed
}

// Update checks b and replaces the trust with it; it refuses another root or
// fleet and an older revocation list. Nothing changes on error.
func (a *Anchor) Update(b Bundle) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	t, err := a.check(b)
	if err != nil {
		return err
	}
	if a.path != "" {
		if err := b.Save(a.path); err != nil {
			return err
		}
	}
	a.swap(t)
	return nil
}

// Reload takes over what another process saved at the anchor's path.
func (a *Anchor) Reload() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	b, err := LoadBundle(a.path)
	if err != nil {
		return err
	}
	t, err := a.check(b)
	if err != nil {
		return err
	}
	a.swap(t)
	return nil
}

func (a *Anchor) check(b Bundle) (*Trust, error) {
	t, err := NewTrust(a.root, b, a.now)
	if err != nil {
		return nil, err
	}
	old := a.cur.Load()
	if t.fleet != old.fleet {
		return nil, fmt.Errorf("trust: %w: of fleet %s, this is %s", ErrUntrusted, t.fleet, old.fleet)
	}
	if t.revoked.Number < old.revoked.Number {
		return nil, fmt.Errorf("trust: %w: its revocation list is number %d, older than the %d held", ErrUntrusted, t.revoked.Number, old.revoked.Number)
	}
	for s := range old.void {
		if !t.void[s] {
			return nil, fmt.Errorf("trust: %w: serial %s would be valid again", ErrUntrusted, s)
		}
	}
	return t, nil
}

func (a *Anchor) swap(t *Trust) {
	a.cur.Store(t)
	close(a.mu.changed)
	a.mu.changed = make(chan struct{})
}
