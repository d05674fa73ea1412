package peer

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/selvage-edge/selvage/control/identity"
)

type contextKey struct{}

// arrival is what the server knows of a request.
type arrival struct {
	peer    identity.Peer
	closing <-chan struct{}
}

// From returns the verified identity of the request's sender; false outside a
// Server.
func From(ctx context.Context) (identity.Peer, bool) {
	a, ok := ctx.Value(contextKey{}).(*arrival)
	if !ok {
		return identity.Peer{}, false
	}
	return a.peer, true
}

// ErrClosing is the cause of the end of a stream's context when its server closes.
var ErrClosing = errors.New("the peer server is closing")

// Stream marks a handler whose requests last as long as both sides do: their
// context ends as soon as the server begins to close, where other requests may finish.
func Stream(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, ok := r.Context().Value(contextKey{}).(*arrival)
		if !ok {
			h.ServeHTTP(w, r)
			return
		}
		ctx, cancel := context.WithCancelCause(r.Context())
		defer cancel(nil)
		done := make(chan struct{})
		go func() {
			defer close(done)
			select {
			case <-a.closing:
				cancel(ErrClosing)
			case <-ctx.Done():
			}
		}()
		defer func() { cancel(nil); <-done }()
		h.ServeHTTP(w, r.WithContext(ctx))
	})
}

// Only lets requests from peers of kind through and answers 403 to others.
func Only(kind identity.Kind, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p, ok := From(r.Context()); !ok || p.Kind != kind {
			refuse(w, http.StatusForbidden, "this call is for a "+string(kind)+" of the fleet")
			return
		}
		h.ServeHTTP(w, r)
	})
}

// refuse answers with a problem document (RFC 9457).
func refuse(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{ // the peer left; nobody to tell
		"type": "about:blank", "title": http.StatusText(status), "status": status, "detail": detail,
	})
}
