package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/selvage-edge/selvage/edge/replica"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// copyPath is where a node gives its copy of a namespace to the others of its PoP: GET
// copyPath/PROJECT/NAMESPACE. The answer is the copy as it was at the position that headerEpoch and headerAsOf say: pages (edge/replica),
// each after its length in a little-endian u32, and a length of 0 after the last. 404: it has no copy; 503: not yet.
const copyPath = "/peer/v1/copy"

// headerEpoch is of the position that headerAsOf says.
const headerEpoch = "Selvage-Epoch"

// What a node does at most for neighbours that want its copies.
const (
	maxLent  = 2                // at once; more get 429
	lentRate = 64 << 20         // bytes a second of each
	lentFor  = 10 * time.Minute // each: what has changed since is kept on disk meanwhile
)

var (
	errNoCopy = errors.New("this node has no copy of it: ask control")
	errMaking = errors.New("this node's copy is not whole yet: ask again")
)

// lend returns the copy of a namespace as it is.
func (s *spaces) lend(ns hostcall.Namespace) (*replica.Shot, error) {
	s.mu.Lock()
	b := s.mu.byLog[logOf(ns)]
	var c *replica.Copy
	switch {
	case b == nil || !b.replicated || b.lacks > 0 || s.mu.db == nil:
		s.mu.Unlock()
		return nil, errNoCopy
	case b.attached:
		c = b.copy
	}
	s.mu.Unlock()
	if c == nil {
		return nil, errMaking
	}
	shot, err := c.Shot()
	if errors.Is(err, replica.ErrPartial) {
		return nil, errMaking
	}
	return shot, err
}

// lendCopy answers a neighbour that may hold the namespace.
func (a *Agent[F]) lendCopy(w http.ResponseWriter, r *http.Request) {
	ns := hostcall.Namespace{Project: r.PathValue("project"), Name: r.PathValue("namespace")}
	if err := a.mayFollow(r.Context(), logOf(ns)); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	if a.lending.Add(1) > maxLent {
		a.lending.Add(-1)
		http.Error(w, "this node gives as many copies as it may: ask control", http.StatusTooManyRequests)
		return
	}
	defer a.lending.Add(-1)
	shot, err := a.spaces.lend(ns)
	switch {
	case errors.Is(err, errMaking):
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	case err != nil:
		http.Error(w, errNoCopy.Error(), http.StatusNotFound)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), lentFor)
	defer cancel()
	err = errors.Join(a.sendCopy(ctx, w, ns, shot), shot.Close())
	if err != nil {
		panic(http.ErrAbortHandler) // the status is sent; a broken stream says that it is not all
	}
	a.spaces.given.Add(1)
}

func (a *Agent[F]) sendCopy(ctx context.Context, w http.ResponseWriter, ns hostcall.Namespace, shot *replica.Shot) error {
	h, at := w.Header(), shot.Position()
	h.Set("Content-Type", "application/octet-stream")
	h.Set(headerEpoch, strconv.FormatUint(at.Epoch, 10))
	h.Set(headerAsOf, strconv.FormatUint(at.Seq, 10))
	rc := http.NewResponseController(w)
	begin, sent, frame := time.Now(), 0, make([]byte, 4, 4+replica.MaxPageBytes)
	// Who asked waits for the position, to ask control of it while it is new.
	_ = rc.SetWriteDeadline(time.Now().Add(sendLimit)) // a writer without deadlines does not block
	if err := rc.Flush(); err != nil {
		return fmt.Errorf("send the position: %w", err)
	}
	for {
		page, err := shot.Next(frame[4:4])
		if err != nil {
			return err
		}
		frame = append(frame[:4], page...)
		binary.LittleEndian.PutUint32(frame, uint32(len(page)))
		_ = rc.SetWriteDeadline(time.Now().Add(sendLimit))
		if _, err := w.Write(frame); err != nil || len(page) == 0 {
			return err
		}
		sent += len(frame)
		if err := pace(ctx, begin, sent); err != nil {
			return err
		}
		if err := a.mayFollow(ctx, logOf(ns)); err != nil {
			return err
		}
	}
}

// pace waits until so many bytes may have been sent since begin.
func pace(ctx context.Context, begin time.Time, sent int) error {
	early := time.Duration(float64(sent)/lentRate*float64(time.Second)) - time.Since(begin)
	if early <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(early)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
