package guard

import (
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// MayTrail reports whether a field of that canonical name may come after a body:
// not one that frames, routes, authenticates or says how to read what came
// before it (RFC 9110 §6.5.1), nor one that nobody must trust (see Request).
func MayTrail(name string) bool {
	return httpguts.ValidTrailerHeader(name) && !strings.HasPrefix(name, "Proxy-") && name != "Upgrade" && name != "Set-Cookie" &&
		!strings.HasPrefix(name, PrivatePrefix) && !strings.Contains(name, "_") && !strings.HasPrefix(name, http.TrailerPrefix)
}
