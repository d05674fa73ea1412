// Package peer owns the mTLS HTTP/2 connections between the processes of a fleet.
//
// Both sides present a certificate of the fleet's CA and check the other's down
// from the root key (identity.Member). A peer is known by the name in its
// certificate, never by its address. Connections are few and long-lived and carry many
// streams; pings find the dead ones. There is no overall timeout: a stream may
// last for days, and who wants a bound puts it in the request's context.
package peer
