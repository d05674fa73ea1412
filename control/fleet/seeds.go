package fleet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of the seeds file.
const (
	maxSeeds     = 1024
	maxSeedsFile = 256 << 10
	seedLife     = 30 * 24 * time.Hour
)

// seed is an address a member once had.
type seed struct {
	Name    string         `json:"name"`
	Address netip.AddrPort `json:"address"`
	Seen    time.Time      `json:"seen"`
}

type seedsFile struct {
	Version int    `json:"version"`
	Seeds   []seed `json:"seeds"`
}

// seeds remembers, over restarts, where members were: memberlist forgets who
// was away for a minute, and two halves that forgot each other never meet again.
type seeds struct {
	path     string
	rejoins  atomic.Uint64
	failures atomic.Uint64
	mu       struct {
		sync.Mutex
		byName map[string]seed
		dirty  bool
	}
}

// loadSeeds returns an empty but usable set beside an error.
func loadSeeds(path string) (*seeds, error) {
	s := &seeds{path: path}
	s.mu.byName = map[string]seed{}
	if path == "" {
		return s, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("read seeds: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSeedsFile+1))
	if err != nil {
		return s, fmt.Errorf("read seeds: %w", err)
	}
	list, err := decodeSeeds(b)
	if err != nil {
		return s, fmt.Errorf("read seeds %s: %w", path, err)
	}
	for _, e := range list {
		s.mu.byName[e.Name] = e
	}
	return s, nil
}

// decodeSeeds accepts the whole file or nothing of it.
func decodeSeeds(b []byte) ([]seed, error) {
	if len(b) > maxSeedsFile {
		return nil, fmt.Errorf("more than %d bytes", maxSeedsFile)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var f seedsFile
	if err := d.Decode(&f); err != nil {
		return nil, err
	}
	if f.Version != 1 || len(f.Seeds) > maxSeeds {
		return nil, fmt.Errorf("version %d with %d seeds: want version 1 and at most %d", f.Version, len(f.Seeds), maxSeeds)
	}
	for _, e := range f.Seeds {
		if err := ValidName(e.Name); err != nil {
			return nil, err
		}
		if !e.Address.IsValid() || e.Address.Port() == 0 {
			return nil, fmt.Errorf("seed %s: address %s is not ip:port", e.Name, e.Address)
		}
	}
	return f.Seeds, nil
}

func (s *seeds) seen(m Member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.byName[m.Name] = seed{Name: m.Name, Address: m.Gossip, Seen: time.Now().UTC().Truncate(time.Second)}
	s.mu.dirty = true
	if len(s.mu.byName) > maxSeeds {
		delete(s.mu.byName, s.oldest())
	}
}

func (s *seeds) oldest() (name string) {
	var when time.Time
	for n, e := range s.mu.byName {
		if name == "" || e.Seen.Before(when) {
			name, when = n, e.Seen
		}
	}
	return name
}

func (s *seeds) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.byName, name)
	s.mu.dirty = true
}

// list returns the seeds, without those nobody saw for a month.
func (s *seeds) list() []seed {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []seed
	for n, e := range s.mu.byName {
		if time.Since(e.Seen) > seedLife {
			delete(s.mu.byName, n)
			s.mu.dirty = true
			continue
		}
		all = append(all, e)
	}
	return all
}

// save writes what changed since the last time; on an error it will be tried again.
func (s *seeds) save() error {
	list := s.list()
	s.mu.Lock()
	dirty := s.mu.dirty
	s.mu.dirty = false
	s.mu.Unlock()
	if !dirty || s.path == "" {
		return nil
	}
	if err := writeSeeds(s.path, list); err != nil {
		s.mu.Lock()
		s.mu.dirty = true
		s.mu.Unlock()
		return fmt.Errorf("save seeds: %w", err)
	}
	return nil
}

// writeSeeds replaces the file whole: a crash leaves the old one or the new one.
func writeSeeds(path string, list []seed) error {
	b, err := json.MarshalIndent(seedsFile{Version: 1, Seeds: list}, "", "\t")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".seeds-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
