package nameserver

import (
	"encoding/json"
	"net/http"
	"net/netip"

	"github.com/selvage-edge/selvage/control/geodns"
)

// ExplainPath is where the admin port says what a client is answered, and why.
const ExplainPath = "/geo/explain"

// Explaining adds ExplainPath to an admin port's handler; dns is nil where
// nothing answers DNS.
func Explaining(dns *geodns.Server, next http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", next)
	mux.HandleFunc("GET "+ExplainPath, func(w http.ResponseWriter, r *http.Request) {
		if dns == nil {
			http.Error(w, "this node answers no DNS: set dns.listen and dns.zones in its configuration, or ask another", http.StatusNotFound)
			return
		}
		client, err := netip.ParseAddr(r.FormValue("client"))
		if err != nil {
			http.Error(w, "client: want an IP address", http.StatusBadRequest)
			return
		}
		e, err := dns.Explain(client, r.FormValue("host"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(e) // who asked has left
	})
	return mux
}
