package keeper

import "time"

// ladder says what follows a server's death. The first costs nothing; servers
// that die again and again, before they lived for calm, are started ever more
// slowly, and in the end something else is tried (duty.fall). One that died
// before it served weighs more than one that somebody may have killed.
type ladder struct{ deaths, weight int }

const (
	calm      = 10 * time.Second
	firstWait = 100 * time.Millisecond
	maxWait   = 5 * time.Second

	servedWeight = 1
	deadWeight   = 3
	enough       = 9
)

// fell counts a death and returns how long to wait, and whether to try something else.
func (l *ladder) fell(lived time.Duration, served bool) (wait time.Duration, other bool) {
	if lived >= calm {
		*l = ladder{}
	}
	l.deaths++
	l.weight += deadWeight
	if served {
		l.weight += servedWeight - deadWeight
	}
	if other = l.weight >= enough; other {
		l.weight = 0
	}
	if l.deaths == 1 {
		return 0, other
	}
	return min(firstWait<<min(l.deaths-2, 10), maxWait), other
}
