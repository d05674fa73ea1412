package fetch

import (
	"errors"
	"sync/atomic"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// Stats are counts since New.
type Stats struct {
	Requests    uint64
	Denied      uint64 // not bound, an address that may not be reached, or a loop
	Unavailable uint64 // the backend did not answer, or not in time
	Failed      uint64 // every other failure
	Pools       int    // functions and backends with connections
}

type counts struct{ requests, denied, unavailable, other atomic.Uint64 }

func (c *counts) failed(err error) {
	switch {
	case errors.Is(err, hostcall.ErrDenied):
		c.denied.Add(1)
	case errors.Is(err, hostcall.ErrUnavailable):
		c.unavailable.Add(1)
	default:
		c.other.Add(1)
	}
}

// Stats returns counts.
func (c *Client) Stats() Stats {
	c.pools.mu.Lock()
	n := len(c.pools.mu.open)
	c.pools.mu.Unlock()
	return Stats{
		Requests: c.counts.requests.Load(), Denied: c.counts.denied.Load(),
		Unavailable: c.counts.unavailable.Load(), Failed: c.counts.other.Load(), Pools: n,
	}
}
