package geo

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// look is how often files are looked at for a change.
const look = 10 * time.Second

// Config says what a DB knows. The zero value knows nothing.
type Config struct {
	Files   []string    // MMDB files; what the first lacks is taken from the next
	Default Place       // for addresses that none knows
	OnEvent func(Event) // called when a file is taken or refused, by one goroutine at a time; may be nil
}

// Event tells of a file.
type Event struct {
	File  string
	Type  string    // the database's own word for what it is
	Built time.Time // when it was made
	Err   error     // why the file was not taken; nil if it was
	Kept  bool      // with Err: an older state of the file is used on
}

// DB says where addresses are. Its methods may be called from many goroutines.
type DB struct {
	config Config
	broken atomic.Uint64
	files  atomic.Pointer[[]*file]
	mu     struct {
		sync.Mutex
		refused map[string]stamp // states of files that were told to be no good
	}
}

// Open reads the files. One that is absent or broken is told to Config.OnEvent,
// and looked for again by Run; the DB works without it.
func Open(c Config) (*DB, error) {
	if err := c.Default.Validate(); err != nil {
		return nil, fmt.Errorf("geo default: %w", err)
	}
	c.Default.EU = c.Default.EU || InUnion(c.Default.Country)
	if c.OnEvent == nil {
		c.OnEvent = func(Event) {}
	}
	d := &DB{config: c}
	d.mu.refused = map[string]stamp{}
	d.files.Store(&[]*file{})
	d.Reload()
	return d, nil
}

// Run reloads files that change, until ctx ends.
func (d *DB) Run(ctx context.Context) {
	if len(d.config.Files) == 0 {
		return
	}
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			d.Reload()
		case <-ctx.Done():
			return
		}
	}
}

// Reload looks at the files at once and takes those that have changed. All are
// swapped together; one that is broken or gone stays as it was.
func (d *DB) Reload() {
	d.mu.Lock()
	defer d.mu.Unlock()
	have := *d.files.Load()
	next := make([]*file, 0, len(d.config.Files))
	for _, path := range d.config.Files {
		var old *file
		if i := slices.IndexFunc(have, func(f *file) bool { return f.path == path }); i >= 0 {
			old = have[i]
		}
		if f := d.renew(path, old); f != nil {
			next = append(next, f)
		}
	}
	if !slices.Equal(have, next) {
		d.files.Store(&next)
	}
}

// renew returns the file as it is to be used: old if it has not changed or
// cannot be read. Called under mu.
func (d *DB) renew(path string, old *file) *file {
	var now stamp
	if info, err := os.Stat(path); err == nil {
		now = stampOf(info)
	}
	refused, told := d.mu.refused[path]
	if old != nil && now == old.stamp {
		delete(d.mu.refused, path) // the good one is back
		return old
	}
	if told && now == refused {
		return old
	}
	f, err := openFile(path, &d.broken)
	if err != nil {
		d.mu.refused[path] = now
		d.config.OnEvent(Event{File: path, Err: err, Kept: old != nil})
		return old
	}
	delete(d.mu.refused, path)
	d.config.OnEvent(Event{File: path, Type: f.kind, Built: f.built})
	return f
}

// Lookup returns where a is. It allocates nothing for records it has met lately.
func (d *DB) Lookup(a netip.Addr) (p Place) {
	a = a.Unmap().WithZone("")
	if a.IsValid() {
		for _, f := range *d.files.Load() {
			if q := f.lookup(a); q != nil {
				p.fill(q)
			}
		}
	}
	if p.Country == "" && !p.Located {
		p.fill(&d.config.Default)
		p.Assumed = true
	}
	return p
}

// Stats are facts about a DB.
type Stats struct {
	Configured int       // files that are wanted
	Loaded     int       // files that are in use
	Oldest     time.Time // when the oldest of these was made
	Broken     uint64    // lookups that met a broken record
}

// Stats returns them.
func (d *DB) Stats() Stats {
	s := Stats{Configured: len(d.config.Files), Broken: d.broken.Load()}
	for _, f := range *d.files.Load() {
		s.Loaded++
		if s.Oldest.IsZero() || f.built.Before(s.Oldest) {
			s.Oldest = f.built
		}
	}
	return s
}
