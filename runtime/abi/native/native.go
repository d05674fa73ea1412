// Package native is the selvage_v1 imports: it decodes what a guest passes, asks
// the ports, and encodes the answer. Layouts and statuses are those of sdk/abi.
package native
