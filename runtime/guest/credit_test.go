package guest

import (
	"testing"
	"time"
)

// Who computes without end is long soon, and stays so; who does little for each call never is, or not for ever.
func TestCredit(t *testing.T) {
	for _, c := range []struct {
		name     string
		compute  time.Duration // at first
		calls    int
		each     time.Duration // after each call
		long     bool          // after the first
		longThen bool
	}{
		{name: "a short one", compute: 300 * time.Microsecond},
		{name: "a loop", compute: 50 * time.Millisecond, long: true, longThen: true},
		{name: "it passes a body on", compute: 200 * time.Microsecond, calls: 2000, each: 60 * time.Microsecond},
		{name: "it parses, then passes a body on", compute: 20 * time.Millisecond, calls: 30, each: 60 * time.Microsecond, long: true},
		{name: "it works hard for each piece", compute: 200 * time.Microsecond, calls: 30, each: 300 * time.Microsecond, longThen: true},
	} {
		k := credit{left: longAfter}
		spend := func(d time.Duration) {
			for ; d > 0; d -= longAfter {
				k.spend(min(d, longAfter))
				k.changed()
			}
		}
		spend(c.compute)
		if k.long != c.long {
			t.Errorf("%s: long %t at first", c.name, k.long)
		}
		for range c.calls {
			k.earn()
			spend(c.each)
		}
		if k.long != c.longThen {
			t.Errorf("%s: long %t in the end", c.name, k.long)
		}
	}
}
