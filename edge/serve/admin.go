package serve

import (
	"io"
	"net/http"
)

// Admin returns the handler of the node's admin port: /metrics, /healthz (the
// process answers) and /readyz (it has routes, is not draining, and Config.Unready says nothing). The port is
// for operators: it must not be public.
func (h *Handler) Admin() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", h.cfg.Telemetry)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok\n")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why := h.notReady(); why != "" {
			http.Error(w, why, http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ready\n")
	})
	return mux
}

// notReady says why new traffic should go elsewhere, or nothing.
func (h *Handler) notReady() string {
	switch {
	case h.draining.Load():
		return "draining"
	case h.routes.Load() == nil:
		return "no route table yet"
	case h.cfg.Unready != nil:
		return h.cfg.Unready()
	}
	return ""
}
