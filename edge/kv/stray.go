package kv

// strays are this node's own writes that were acknowledged after their namespace
// had begun anew. The revision of one says nothing if the epoch is another, so it
// fences nothing; if the epoch is the same, the stream may still be behind it. Until
// the stream has passed it, the key is read at the origin, which has it. In an epoch
// that counts from far below that can take long: such a key is slow, never old. The
// zero value is empty.
type strays struct {
	byKey map[string]uint64
	below uint64 // until the stream has passed it every key counts as one: there were too many
}

// add remembers a write; most bounds how many are.
func (s *strays) add(key string, rev uint64, most int) {
	if s.byKey == nil {
		s.byKey = map[string]uint64{}
	}
	if _, known := s.byKey[key]; !known && len(s.byKey) >= most {
		for _, one := range s.byKey {
			s.below = max(s.below, one)
		}
		clear(s.byKey)
	}
	s.byKey[key] = max(rev, s.byKey[key])
}

// has reports whether the key must be read at the origin.
func (s *strays) has(key string) bool { return s.below > 0 || s.byKey[key] > 0 }

func (s *strays) empty() bool { return s.below == 0 && len(s.byKey) == 0 }

// passed forgets what the stream has come to.
func (s *strays) passed(to uint64) {
	if s.below <= to {
		s.below = 0
	}
	for key, rev := range s.byKey {
		if rev <= to {
			delete(s.byKey, key)
		}
	}
}
