package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/peer"
	"github.com/selvage-edge/selvage/control/report"
)

// orders is what control wants of this node, kept over restarts: a node that is
// to drain does not come back into service because its server was replaced.
type orders struct {
	path  string
	apply func(report.Orders) // called with the lock held, in the order they were given
	mu    struct {
		sync.Mutex
		now report.Orders
	}
}

// openOrders reads what was ordered last, and applies it.
func openOrders(path string, apply func(report.Orders)) (*orders, error) {
	o := &orders{path: path, apply: apply}
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("orders: %w", err)
	}
	if err == nil {
		if err := json.Unmarshal(b, &o.mu.now); err != nil {
			return o, fmt.Errorf("orders: %s is damaged, control will say again: %w", path, err)
		}
	}
	apply(o.mu.now)
	return o, nil
}

// reread follows what another server of this node was ordered since openOrders.
func (o *orders) reread() error {
	b, err := os.ReadFile(o.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var kept report.Orders
	if err == nil {
		err = json.Unmarshal(b, &kept)
	}
	if err != nil {
		return fmt.Errorf("orders: %w", err)
	}
	return o.take(kept)
}

// take follows orders, unless newer ones were followed already.
func (o *orders) take(next report.Orders) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !next.Newer(o.mu.now) {
		return nil
	}
	if next.Drain != o.mu.now.Drain {
		if err := o.save(next); err != nil {
			return err
		}
	}
	o.mu.now = next
	o.apply(next)
	return nil
}

func (o *orders) save(next report.Orders) error {
	b, err := json.Marshal(next)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(o.path), 0o700); err != nil {
		return fmt.Errorf("orders: %w", err)
	}
	if err := os.WriteFile(o.path+".new", b, 0o600); err != nil {
		return fmt.Errorf("orders: %w", err)
	}
	return os.Rename(o.path+".new", o.path)
}

// draining reports whether this node was ordered to drain.
func (o *orders) draining() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.mu.now.Drain
}

// handler takes orders from control on the peer listener.
func (o *orders) handler() http.Handler {
	return peer.Only(identity.KindControl, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var next report.Orders
		if err := json.NewDecoder(io.LimitReader(r.Body, 64<<10)).Decode(&next); err != nil {
			http.Error(w, "orders: "+err.Error(), http.StatusBadRequest)
			return
		}
		if err := o.take(next); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}))
}
