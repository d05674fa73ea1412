package kv

import "time"

// strayLife bounds how long a stray is remembered: in another epoch the stream
// may never reach its revision.
const strayLife = 30 * time.Second

// strays are this node's own writes that were acknowledged after their namespace
// had begun anew. The revision of one says nothing if the epoch is another, so it
// fences nothing; if the epoch is the same, the stream may still be behind it. Until
// it has passed, their keys are read at the origin, which has them. The zero value is empty.
type strays struct {
	byKey map[string]stray
	all   time.Time // until then every key counts as one: there were too many
}

type stray struct {
	rev   uint64
	until time.Time
}

// add remembers a write; most bounds how many are.
func (s *strays) add(key string, rev uint64, most int) {
	until := time.Now().Add(strayLife)
	if s.byKey == nil {
		s.byKey = map[string]stray{}
	}
	if _, known := s.byKey[key]; !known && len(s.byKey) >= most {
		clear(s.byKey)
		s.all = until
	}
	s.byKey[key] = stray{max(rev, s.byKey[key].rev), until}
}

// has reports whether the key must be read at the origin.
func (s *strays) has(key string) bool {
	if len(s.byKey) == 0 && s.all.IsZero() {
		return false
	}
	now := time.Now()
	return now.Before(s.all) || now.Before(s.byKey[key].until)
}

// passed forgets what the stream has come to, and what is over.
func (s *strays) passed(to uint64) {
	if len(s.byKey) == 0 {
		return
	}
	now := time.Now()
	for key, one := range s.byKey {
		if one.rev <= to || !now.Before(one.until) {
			delete(s.byKey, key)
		}
	}
}
