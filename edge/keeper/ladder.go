package keeper

import "time"

// ladder says what follows a server's death. The first costs nothing; servers
// that die again and again, before they lived for calm, are started ever more
// slowly, and in the end something else is tried (duty.fall). One that died
// before it served weighs as much as three that somebody may have killed.
type ladder struct {
	total  int // weight of deaths, which makes the next start wait
	weight int // since something else was tried
}

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
	of := deadWeight
	if served {
		of = servedWeight
	}
	l.total, l.weight = l.total+of, l.weight+of
	if other = l.weight >= enough; other {
		l.weight = 0
	}
	step := (l.total + deadWeight - 1) / deadWeight
	if step == 1 {
		return 0, other
	}
	return min(firstWait<<min(step-2, 10), maxWait), other
}
