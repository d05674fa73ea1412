// Package geodns answers DNS for the fleet's zones with the nearest PoPs that
// serve: an authoritative server over UDP and TCP whose choice is a pure function
// of an immutable table of the fleet, swapped whole when the fleet changes.
package geodns
