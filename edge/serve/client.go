package serve

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// clientOf is who asks: who the connection comes from, or, where that is a proxy
// that is trusted, whom it says it asks for.
func (h *Handler) clientOf(r *http.Request) netip.AddrPort {
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.AddrPort{}
	}
	client := netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	if len(h.cfg.Proxies) == 0 || !h.proxy(client.Addr().WithZone("")) {
		return client
	}
	if ip := h.behind(r.Header["X-Forwarded-For"]); ip.IsValid() {
		return netip.AddrPortFrom(ip, 0) // its port is not told
	}
	return client
}

// proxy reports whether what comes from ip is believed.
func (h *Handler) proxy(ip netip.Addr) bool {
	return slices.ContainsFunc(h.cfg.Proxies, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// behind reads the list from its end, where the nearest proxy wrote who it was
// asked by, on through proxies that are trusted as well: the first that is none is
// the client, and whatever stands before it is only its own word. An entry that is no
// address ends it: the last one that was read stands for what lies behind it.
func (h *Handler) behind(fields []string) (client netip.Addr) {
	for _, field := range slices.Backward(fields) {
		for rest, more := field, true; more; {
			last := rest
			if comma := strings.LastIndexByte(rest, ','); comma < 0 {
				more = false
			} else {
				rest, last = rest[:comma], rest[comma+1:]
			}
			ip, ok := forwarded(strings.Trim(last, " \t"))
			if !ok {
				return client
			}
			if client = ip; !h.proxy(ip) {
				return client
			}
		}
	}
	return client
}

// forwarded reads one entry: an address, as some proxies write it with a port.
func forwarded(s string) (netip.Addr, bool) {
	ip, err := netip.ParseAddr(strings.Trim(s, "[]"))
	if err != nil {
		ap, err := netip.ParseAddrPort(s)
		if err != nil {
			return netip.Addr{}, false
		}
		ip = ap.Addr()
	}
	ip = ip.Unmap()
	return ip, ip.Zone() == "" && !ip.IsUnspecified() && !ip.IsMulticast()
}
