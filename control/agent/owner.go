package agent

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/selvage-edge/selvage/edge/kv"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// Owner returns the node of this PoP that looks after a key, nil if it is this one:
// kv.Config's. Each node works it out for itself; where two see it differently, the origin is asked once more.
func (a *Agent[F]) Owner(ns hostcall.Namespace, key string) kv.Owner {
	n, other := a.pop.first("kv " + ns.Project + "/" + ns.Name + "/" + key)
	if !other {
		return nil
	}
	return owner{n, a.pop}
}

// owner asks a neighbour: GET kvPath/PROJECT/NAMESPACE/KEY with epoch and at_least.
type owner struct {
	node Neighbour
	pop  *pop
}

// Ask implements kv.Owner.
func (o owner) Ask(ctx context.Context, ns hostcall.Namespace, key string, q kv.Question) (hostcall.Entry, error) {
	query := url.Values{"epoch": {strconv.FormatUint(q.Epoch, 10)}, "at_least": {strconv.FormatUint(q.AtLeast, 10)}}
	e, err := NewOrigin(o.node.Node).entry(ctx, keyPath(ns, key), query)
	var refused *statusError
	if err != nil && !errors.Is(err, hostcall.ErrNotFound) && !errors.As(err, &refused) && !errors.Is(err, kv.ErrRoom) && !errors.Is(ctx.Err(), context.Canceled) {
		o.pop.Blame(o.node.Name, err) // it was not reached, was silent, or what it said is no answer
	}
	e.At = time.Time{} // a neighbour is not believed about the store's clock
	return e, err
}

// maxAnswered is how many neighbours' questions about keys this node answers at once.
const maxAnswered = 256

// answerKey is what this node says of a key that another takes it to look after.
func (a *Agent[F]) answerKey(w http.ResponseWriter, r *http.Request) {
	ns := hostcall.Namespace{Project: r.PathValue("project"), Name: r.PathValue("namespace")}
	key, err := base64.RawURLEncoding.Strict().DecodeString(r.PathValue("key"))
	epoch, err2 := strconv.ParseUint(r.FormValue("epoch"), 10, 64)
	atLeast, err3 := strconv.ParseUint(r.FormValue("at_least"), 10, 64)
	if err := errors.Join(err, err2, err3); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := a.mayFollow(r.Context(), logOf(ns)); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	if a.answering.Add(1) > maxAnswered {
		a.answering.Add(-1)
		http.Error(w, "this node answers as many as it may: ask control", http.StatusTooManyRequests)
		return
	}
	defer a.answering.Add(-1)
	e, err := a.config.KV.Own(r.Context(), ns, string(key), kv.Question{Epoch: epoch, AtLeast: atLeast})
	writeEntry(w, e)
	switch {
	case err == nil:
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(sendLimit))
		_, _ = w.Write(e.Value) // who did not get all of it asks control
	case errors.Is(err, hostcall.ErrNotFound):
		http.Error(w, err.Error(), http.StatusNotFound)
	default:
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
}

// writeEntry sets the headers that entryOf and asOf read.
func writeEntry(w http.ResponseWriter, e hostcall.Entry) {
	h := w.Header()
	h.Set(headerAsOf, strconv.FormatUint(e.AsOf, 10))
	h.Set(headerStale, strconv.FormatInt(e.Stale.Milliseconds()+1, 10))
	h.Set(headerRevision, strconv.FormatUint(e.Revision, 10))
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.Itoa(len(e.Value)))
	if !e.Expires.IsZero() {
		h.Set(headerExpires, strconv.FormatInt(e.Expires.UnixMilli(), 10))
	}
	if len(e.Metadata) > 0 {
		h.Set(headerMetadata, base64.StdEncoding.EncodeToString(e.Metadata))
	}
}

// about reads what an answer of any status says of its own age.
func about(resp *http.Response) (e hostcall.Entry, err error) {
	if s := resp.Header.Get(headerAsOf); s != "" {
		if e.AsOf, err = strconv.ParseUint(s, 10, 64); err != nil {
			return e, fmt.Errorf("header %s: %w", headerAsOf, err)
		}
	}
	if s := resp.Header.Get(headerStale); s != "" {
		ms, err := strconv.ParseUint(s, 10, 40)
		if err != nil {
			return e, fmt.Errorf("header %s: %w", headerStale, err)
		}
		e.Stale = time.Duration(ms) * time.Millisecond
	}
	if s := resp.Header.Get(headerTime); s != "" {
		ms, err := strconv.ParseUint(s, 10, 48)
		if err != nil {
			return e, fmt.Errorf("header %s: %w", headerTime, err)
		}
		e.At = time.UnixMilli(int64(ms))
	}
	return e, nil
}
