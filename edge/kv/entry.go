package kv

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/dgraph-io/ristretto/v2"
)

// entry is what is known of one key, a value or that there is none. Immutable once stored.
type entry struct {
	space    uint64 // with key: whose it is; compared, since the cache goes by hash
	key      string
	found    bool
	partial  bool // there is a value, but it is not here
	value    []byte
	metadata []byte
	revision uint64    // found: the value's
	began    uint64    // what the namespace had seen when this was asked for: it is at least so new
	at       time.Time // it was the newest then; zero: what the stream says
	expires  time.Time // found: when it stops to count, on the store's clock
	until    time.Time // when it is asked again; zero: never
}

// over reports whether e's time is up, by this node's clock or the store's.
func (e *entry) over(now, store time.Time) bool {
	return !e.until.IsZero() && !now.Before(e.until) || e.found && !e.expires.IsZero() && !store.Before(e.expires)
}

// asOf is a revision that e reflects, when the stream has come to at without a word of its key.
func (e *entry) asOf(at uint64) uint64 {
	if e.found {
		at = max(at, e.revision)
	}
	return max(at, e.began)
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

// put keeps e, if the cache cares to; now and store are the two clocks' times.
func (c *entries) put(e *entry, now, store time.Time) {
	c.closed.RLock()
	defer c.closed.RUnlock()
	n, life := name(e.space, e.key), time.Duration(0)
	for _, end := range []time.Duration{left(e.until, now), left(e.expires, store)} {
		if end > 0 && (life == 0 || end < life) {
			life = end
		}
	}
	if !c.closed.yes && c.fits(len(e.value)) {
		c.cache.SetWithTTL(n, e, int64(len(n)+len(e.value)+len(e.metadata)+entryBytes), life)
	}
}

// left is the time from now to end, at least 1 ns; 0 if there is no end.
func left(end, now time.Time) time.Duration {
	if end.IsZero() {
		return 0
	}
	return max(end.Sub(now), time.Nanosecond)
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
