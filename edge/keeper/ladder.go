package keeper

import "time"

// ladder says what follows a server's death. The first costs nothing; servers
// that die again and again, before they lived for calm, are started ever more
// slowly, and every so many times something else is tried (duty.fall).
type ladder struct{ deaths int }

const (
	calm      = 10 * time.Second
	firstWait = 100 * time.Millisecond
	maxWait   = 5 * time.Second
	tries     = 3
)

// fell counts a death and returns how long to wait, and whether to try something else.
func (l *ladder) fell(lived time.Duration) (wait time.Duration, other bool) {
	if lived >= calm {
		l.deaths = 0
	}
	l.deaths++
	if l.deaths == 1 {
		return 0, false
	}
	return min(firstWait<<min(l.deaths-2, 10), maxWait), l.deaths%tries == 0
}
