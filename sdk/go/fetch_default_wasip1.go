//go:build !edge_noclient

package edge

import "net/http"

// Naming http.DefaultTransport makes the linker keep net/http's own transport
// and crypto/tls: 2.7 MB. The tag edge_noclient leaves both out.
func init() { http.DefaultTransport = Transport{} }
