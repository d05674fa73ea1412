package doctor

import (
	"fmt"
	"net"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// quicBuffer is what QUIC wants of the kernel for each UDP socket (7 MiB and some).
const quicBuffer = 7_500_000

func network() []Finding {
	var all []Finding
	for _, name := range []string{"rmem_max", "wmem_max"} {
		n, err := readNumber("/proc/sys/net/core/" + name)
		if err != nil {
			continue // not told inside some containers
		}
		all = append(all, judge(n >= quicBuffer, Warn, "net.core."+name, strconv.Itoa(n),
			"HTTP/3 loses packets when many come at once", fmt.Sprintf("sysctl -w net.core.%s=%d, and in /etc/sysctl.d for the next start", name, quicBuffer)))
	}
	l, err := net.Listen("tcp6", "[::1]:0")
	if err == nil {
		l.Close()
	}
	return append(all, judge(err == nil, Warn, "IPv6", text(err, ""), "users of IPv6 alone do not reach this node, and backends of IPv6 alone are not reached", "turn IPv6 on (net.ipv6.conf.all.disable_ipv6=0)"))
}

// skewWarn and skewFail are how far this machine's clock may be off control's:
// certificates are made valid a few minutes back, tokens and delegations end by it.
const (
	skewWarn = 5 * time.Second
	skewFail = 2 * time.Minute
)

func clock(control func() (time.Time, error)) []Finding {
	var all []Finding
	var t unix.Timex
	const unsynchronized = 0x40
	state, err := unix.Adjtimex(&t)
	switch {
	case err != nil:
		all = append(all, Finding{Level: Warn, Name: "clock", Found: err.Error()})
	default:
		good := state != unix.TIME_ERROR && t.Status&unsynchronized == 0
		found := "synchronised"
		if !good {
			found = "not synchronised by anybody"
		}
		all = append(all, judge(good, Warn, "clock", found, "certificates and tokens are checked by it, and it drifts", "run chrony or systemd-timesyncd (in a container, on its host)"))
	}
	if control == nil {
		return all
	}
	before := time.Now()
	there, err := control()
	if err != nil {
		return append(all, Finding{Level: Warn, Name: "clock against control", Found: err.Error(), Means: "it could not be compared", Remedy: "start the control node, or name the fleet with --target"})
	}
	// The answer is of some moment in between, in whole seconds.
	middle := before.Add(time.Since(before) / 2)
	return append(all, skew(there.Add(time.Second/2).Sub(middle)))
}

func skew(off time.Duration) Finding {
	level := Warn
	if off.Abs() >= skewFail {
		level = Fail
	}
	return judge(off.Abs() < skewWarn, level, "clock against control", fmt.Sprintf("control's is %+.1f s from this one", off.Seconds()),
		"certificates, tokens and delegations are taken for expired or not valid yet", "set one of the two clocks right")
}
