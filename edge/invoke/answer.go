package invoke

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"

	"github.com/selvage-edge/selvage/runtime/fault"
)

// settle makes a failed invocation the client's answer: a status if nothing was
// sent, else nothing more, and the caller breaks the answer off.
func (x *exchange) settle(f *fault.Error) {
	if f == nil || x.committed {
		return
	}
	x.committed, x.status = true, f.Kind.Status()
	body := fmt.Sprintf("%d %s\nfault: %s\nrequest: %s\n", x.status, statusText(x.status), f.Kind, x.meta.RequestID)
	h := x.w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if x.status == http.StatusServiceUnavailable {
		// Spread out, so that those refused together do not come back together.
		h.Set("Retry-After", strconv.Itoa(1+rand.IntN(5)))
	}
	x.w.WriteHeader(x.status)
	if x.r.Method != http.MethodHead {
		n, _ := x.w.Write([]byte(body)) // the client may be gone; the record says what happened
		x.out += int64(n)
	}
	x.finished = true
}

// statusText is http.StatusText with the one status net/http has no name for.
func statusText(status int) string {
	if status == fault.Canceled.Status() {
		return "Client Closed Request"
	}
	return http.StatusText(status)
}
