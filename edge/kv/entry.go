package kv

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/dgraph-io/ristretto/v2"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// entry is what is known of one key, a value or that there is none. Immutable once stored.
type entry struct {
	space    uint64 // with key: whose it is; compared, since the cache goes by hash
	key      string
	found    bool
	partial  bool // there is a value, but it is not here
	value    []byte
	revision uint64    // found: the value's
	began    uint64    // what the namespace had seen when this was asked for: it is at least so new
	expires  time.Time // found: when it stops to count
	until    time.Time // not found: when that is asked again
}

func (e *entry) answer() (hostcall.Entry, error) {
	if !e.found {
		return hostcall.Entry{}, hostcall.ErrNotFound
	}
	return hostcall.Entry{Value: e.value, Revision: e.revision, Expires: e.expires}, nil
}

// over reports whether e's time is up.
func (e *entry) over(now time.Time) bool {
	end := e.expires
	if !e.found {
		end = e.until
	}
	return !end.IsZero() && !now.Before(end)
}

// entryBytes is what an entry costs besides its key and value.
const entryBytes = 256

// entries is the memory: ristretto, by cost in bytes. It may drop anything at
// any time, and does what it is told a little later.
type entries struct {
	most   int // bytes of a value that may be kept
	closed struct {
		sync.RWMutex // held for reading while the cache is used: it must not be closed under a call
		yes          bool
	}
	cache *ristretto.Cache[string, *entry]
}

func newEntries(bytes int64) (*entries, error) {
	c, err := ristretto.NewCache(&ristretto.Config[string, *entry]{
		NumCounters: min(max(bytes/1024*10, 1e4), 1e7),
		MaxCost:     bytes,
		BufferItems: 64,
		Metrics:     true,
	})
	if err != nil {
		return nil, err
	}
	return &entries{most: int(bytes / 8), cache: c}, nil
}

// fits reports whether a value of n bytes may be kept: one value must not drive out all others.
func (c *entries) fits(n int) bool { return n <= c.most }

// name is a fixed-size id and the key, so that no key of one namespace reads as another's.
func name(space uint64, key string) string {
	b := make([]byte, 0, 8+len(key))
	b = binary.BigEndian.AppendUint64(b, space)
	return string(append(b, key...))
}

func (c *entries) get(space uint64, key string) *entry {
	c.closed.RLock()
	defer c.closed.RUnlock()
	if c.closed.yes {
		return nil
	}
	e, ok := c.cache.Get(name(space, key))
	if !ok || e.space != space || e.key != key {
		return nil
	}
	return e
}

// put keeps e, if the cache cares to.
func (c *entries) put(e *entry) {
	c.closed.RLock()
	defer c.closed.RUnlock()
	end, n := e.expires, name(e.space, e.key)
	if !e.found {
		end = e.until
	}
	life := time.Duration(0)
	if !end.IsZero() {
		life = max(time.Until(end), time.Nanosecond)
	}
	if !c.closed.yes && c.fits(len(e.value)) {
		c.cache.SetWithTTL(n, e, int64(len(n)+len(e.value)+entryBytes), life)
	}
}

func (c *entries) drop(space uint64, key string) {
	c.closed.RLock()
	defer c.closed.RUnlock()
	if !c.closed.yes {
		c.cache.Del(name(space, key))
	}
}

func (c *entries) close() {
	c.closed.Lock()
	defer c.closed.Unlock()
	if !c.closed.yes {
		c.closed.yes = true
		c.cache.Close()
	}
}
