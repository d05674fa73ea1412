package logs

import (
	"fmt"
	"io"
	"sync/atomic"
)

// What lines may take of control's memory, in bytes as telemetry.Line.Size counts them.
// Each follower has reserveBytes that nobody takes from it, and up to followerBytes while
// the pool, which all share, has room. The followers one token may have cannot take all
// of the pool: tokenFollows of them want at most 7/8 of it.
const (
	reserveBytes  = 1 << 20
	followerBytes = 8 << 20
	poolBytes     = 64 << 20
	mostFollows   = 64
	tokenFollows  = 8
)

// pool is what followers hold over their reserves.
type pool struct {
	most int64
	used atomic.Int64
}

// take is false, and nothing is taken, if there is no room.
func (p *pool) take(n int) bool {
	if p.used.Add(int64(n)) > p.most {
		p.used.Add(int64(-n))
		return false
	}
	return true
}

func (p *pool) give(n int) { p.used.Add(int64(-n)) }

// WriteLimits writes the bounds of following as rows of a table: what, bound, beyond it.
func WriteLimits(w io.Writer) {
	for _, row := range [][3]string{
		{"followers of a control node", fmt.Sprint(mostFollows), "503 `busy`"},
		{"followers of one token", fmt.Sprint(tokenFollows), "429 `too-many-followers`"},
		{"lines held for a follower", fmt.Sprintf("%s; %s of it reserved", mib(followerBytes), mib(reserveBytes)),
			"the oldest lines of the node that has most are dropped; the follower is told how many"},
		{"lines held for all followers", fmt.Sprintf("%s over their reserves: %s at most", mib(poolBytes), mib(poolBytes+mostFollows*reserveBytes)), "likewise"},
		{"nodes that one follower hears", fmt.Sprint(nodesAtAll), "not asked"},
	} {
		fmt.Fprintf(w, "| %s | %s | %s |\n", row[0], row[1], row[2])
	}
}

func mib(n int) string { return fmt.Sprintf("%d MiB", n>>20) }
