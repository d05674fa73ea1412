package identity

import (
	"path/filepath"
	"testing"
	"time"
)

// A clock that is set an hour forward or back: what counted counts, or is refused for the
// time that it is wrong and not after.
func TestClockIsSet(t *testing.T) {
	now := start
	clock := func() time.Time { return now }
	_, created := newFleet(t, InitOptions{})
	c, err := OpenControl(filepath.Dir(created.RootKeyFile), clock)
	if err != nil {
		t.Fatal(err)
	}
	node := nodeOf(t, c)
	leaf := node.Member.leaf.cur.Load().Leaf
	for _, step := range []struct {
		off  time.Duration
		good bool
	}{{time.Hour, true}, {0, true}, {-time.Hour, false}, {0, true}, {-Skew, true}, {24 * time.Hour, true}, {0, true}} {
		now = start.Add(step.off)
		if err := c.check(); (err == nil) != step.good {
			t.Errorf("at %v control's delegations: %v", step.off, err)
		}
		if _, err := c.Anchor.Trust().CheckPeer(leaf, Expect{}, true); (err == nil) != step.good {
			t.Errorf("at %v a node's certificate: %v", step.off, err)
		}
	}
}

// A certificate that was renewed while the clock was ahead is made again once it is right:
// until the time that it names nobody would take it.
func TestLeafOfTheFutureIsMadeAgain(t *testing.T) {
	now := start
	_, created := newFleet(t, InitOptions{})
	c, err := OpenControl(filepath.Dir(created.RootKeyFile), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.Member()
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []time.Duration{21*24*time.Hour + time.Hour, 21 * 24 * time.Hour, 21*24*time.Hour - time.Hour} {
		now = start.Add(off)
		leaf, err := m.ServerTLS().GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Anchor.Trust().CheckPeer(leaf.Leaf, Expect{}, false); err != nil {
			t.Errorf("%v after the start it shows a certificate that is refused: %v", off, err)
		}
	}
}
