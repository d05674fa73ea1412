package node

import (
	"fmt"
	"net"
	"net/netip"
)

// asConfigured holds an address of the configuration against the socket that the keeper opened when it was
// started, and keeps through upgrades and crashes. A server beside another does not take over with an address that it is
// not reached at; a lone one serves where it can be reached, and says so.
func (n *node) asConfigured(key, configured string, socket net.Addr) error {
	if sameAddress(configured, socket) {
		return nil
	}
	err := fmt.Errorf("%s is %s, and the keeper holds %s: sockets stay through an upgrade; stop the node and start it, or give the address back", key, configured, socket)
	if !n.att.Beside() {
		n.log.Error("the configuration was changed, the socket was not", "err", err)
		return nil
	}
	return err
}

// sameAddress reports whether a TCP socket's address is the one of the configuration, as far as that says it.
func sameAddress(configured string, socket net.Addr) bool {
	host, port, err := net.SplitHostPort(configured)
	is, ok := socket.(*net.TCPAddr)
	if err != nil || !ok {
		return err == nil
	}
	if port != "0" && port != fmt.Sprint(is.Port) {
		return false
	}
	want, err := netip.ParseAddr(host)
	has := is.AddrPort().Addr().Unmap()
	if host == "" || err == nil && want.IsUnspecified() {
		return has.IsUnspecified()
	}
	return err != nil || want.Unmap().WithZone("") == has.WithZone("") // a name is not looked up
}
