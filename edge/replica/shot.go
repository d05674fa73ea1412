package replica

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// Shot is a copy as it was at one position, for another node to have. The copy goes on meanwhile. Close it soon:
// it keeps on disk what has changed since.
type Shot struct {
	db    *DB
	head  head
	snap  *pebble.Snapshot // DB.shots guards its being closed
	after string           // the last key that Next gave
}

// ErrPartial is that a copy is not all of its namespace at this moment: ask again.
var ErrPartial = errors.New("replica: the copy is not whole now")

// Shot returns the copy as it is; ErrPartial if it is not whole, or pages are under way to it.
func (c *Copy) Shot() (*Shot, error) {
	s, now := &Shot{db: c.db}, c.head()
	err := c.db.use(func(db *pebble.DB) error {
		s.snap = db.NewSnapshot()
		// Its head is in the snapshot, so that it is of what is there and nothing else.
		raw, done, err := s.snap.Get(headOf(now.key()))
		if errors.Is(err, pebble.ErrNotFound) {
			err = ErrPartial
		}
		if err == nil {
			s.head, err = decodeHead(raw)
			err = errors.Join(err, done.Close())
		}
		if err == nil && (!s.head.whole || s.head.full != s.head.at.Seq) {
			err = ErrPartial
		}
		if err != nil {
			return errors.Join(err, s.snap.Close())
		}
		c.db.shots.Lock()
		defer c.db.shots.Unlock()
		if c.db.shots.open == nil {
			c.db.shots.open = map[*Shot]struct{}{}
		}
		c.db.shots.open[s] = struct{}{}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("replica: lend %s/%s: %w", c.name.Project, c.name.Name, err)
	}
	return s, nil
}

// Position is what it has everything up to, and nothing beyond.
func (s *Shot) Position() Position { return s.head.at }

// Next appends the next page to b, which has none; it stays empty once all were given. For one goroutine.
func (s *Shot) Next(b []byte) ([]byte, error) {
	err := s.db.use(func(*pebble.DB) (err error) {
		it, err := s.snap.NewIter(s.head.span("", s.after))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, it.Close()) }()
		for it.First(); it.Valid() && len(b) < PageBytes; it.Next() {
			value, err := it.ValueAndErr()
			if err != nil {
				return err
			}
			s.after = string(it.Key()[keyBytes:])
			b = appendRecord(b, s.after, value)
		}
		return it.Error()
	})
	return b, err
}

// Close ends it.
func (s *Shot) Close() error {
	return s.db.use(func(*pebble.DB) error { return s.db.shots.close(s) })
}

// close closes a shot that is open.
func (l *shots) close(s *Shot) error {
	l.Lock()
	defer l.Unlock()
	if _, open := l.open[s]; !open {
		return nil
	}
	delete(l.open, s)
	return s.snap.Close()
}

// closeAll closes those that are open: the database is about to be.
func (l *shots) closeAll() (err error) {
	l.Lock()
	defer l.Unlock()
	for s := range l.open {
		err = errors.Join(err, s.snap.Close())
	}
	l.open = nil
	return err
}
