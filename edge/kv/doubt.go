package kv

import "time"

// doubts are keys whose last write by this node failed: it may have happened, and
// then the copy does not have it yet. Until the truth has answered, or the stream was
// complete at a later time, such a key is asked for at the origin. The zero value is empty.
type doubts struct {
	byKey map[string]time.Time // when the write failed, on this node's clock
	all   time.Time            // every key is in doubt since then: there were too many; zero: it is not so
}

// add notes a write that failed at now; most bounds how many are told apart.
func (d *doubts) add(key string, now time.Time, most int) {
	if d.byKey == nil {
		d.byKey = map[string]time.Time{}
	}
	if _, known := d.byKey[key]; !known && len(d.byKey) >= most {
		clear(d.byKey)
		d.all = now
	}
	d.byKey[key] = now
}

func (d *doubts) has(key string) bool {
	_, known := d.byKey[key]
	return known || !d.all.IsZero()
}

func (d *doubts) empty() bool { return len(d.byKey) == 0 && d.all.IsZero() }

// settle takes that the truth was asked for the key, or wrote it, from asked on.
func (d *doubts) settle(key string, asked time.Time) {
	if since, known := d.byKey[key]; known && !asked.Before(since) {
		delete(d.byKey, key)
	}
}

// passed takes that the stream had told everything at a time.
func (d *doubts) passed(fresh time.Time) {
	if fresh.After(d.all) {
		d.all = time.Time{}
	}
	for key, since := range d.byKey {
		if fresh.After(since) {
			delete(d.byKey, key)
		}
	}
}
