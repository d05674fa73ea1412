package logs

import (
	"context"
	"net/http"
	"time"

	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/peer"
	"github.com/selvage-edge/selvage/edge/telemetry"
)

// Path is where a node serves its log on its peer listener, to control.
const Path = "/peer/v1/logs"

const (
	writeLimit = 10 * time.Second // for the other side to take what was written
	aliveEvery = 10 * time.Second // an empty line, so that both sides notice the other's end
	media      = "application/x-ndjson"
)

// Handler serves a node's log to control.
func Handler(log *telemetry.Log) http.Handler {
	return peer.Only(identity.KindControl, peer.Stream(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q, err := ParseQuery(r.URL.Query())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		tap, err := log.Follow(q.filter(), time.Now().Add(-q.Since), tail(q))
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		defer tap.Close()
		w.Header().Set("Content-Type", media)
		_ = serve(r.Context(), w, tap, q.Follow) // the other side has left, or takes nothing
	})))
}

func tail(q Query) int {
	if q.Since == 0 {
		return 0
	}
	return q.Tail
}

var live = []byte(`{"kind":"` + string(telemetry.KindLive) + `"}` + "\n")

// serve writes the past, says so, and goes on with what comes.
func serve(ctx context.Context, w http.ResponseWriter, tap *telemetry.Tap, follow bool) error {
	out := http.NewResponseController(w)
	buf := append(tap.Past(nil), live...)
	for {
		_ = out.SetWriteDeadline(time.Now().Add(writeLimit)) // a writer without deadlines does not block
		if _, err := w.Write(buf); err != nil {
			return err
		}
		if err := out.Flush(); err != nil || !follow {
			return err
		}
		wait, cancel := context.WithTimeout(ctx, aliveEvery)
		var err error
		buf, err = tap.Next(wait, buf[:0])
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			buf = append(buf, '\n') // nothing was told: both are still there
		}
	}
}
