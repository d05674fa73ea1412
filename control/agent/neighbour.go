package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/selvage-edge/selvage/control/changes"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/peer"
	"github.com/selvage-edge/selvage/runtime/function"
)

// blobsPath is where control, and each node for its PoP, serves blobs: blobsPath/DIGEST.
const blobsPath = "/peer/v1/blobs"

// What a node does for its neighbours at most.
const (
	maxServed = 32               // blobs sent at once; more get 429 and ask control
	holdAsk   = 8 * time.Second  // how long an ask for a blob that is being fetched is held
	unknown   = 2 * time.Second  // and one for a blob that this node's catalog does not name yet
	sendLimit = 30 * time.Second // for a neighbour to take the next piece
)

// PeerHandler is what this node serves to the other nodes of its PoP: change
// streams, the keys it looks after, and the blobs that its catalog names. To be served by control/peer.
func (a *Agent[F]) PeerHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST "+changes.Path, peer.Stream(a.relay))
	mux.HandleFunc("GET "+blobsPath+"/{digest}", a.sendBlob)
	mux.Handle("GET "+copyPath+"/{project}/{namespace}", peer.Stream(http.HandlerFunc(a.lendCopy)))
	mux.HandleFunc("GET "+kvPath+"/{project}/{namespace}/{key}", a.answerKey)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := a.neighbour(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// neighbour refuses who is not a node of this PoP, by its certificate.
func (a *Agent[F]) neighbour(ctx context.Context) error {
	p, ok := peer.From(ctx)
	if !ok || p.Kind != identity.KindNode || p.PoP != a.config.Self.PoP {
		return fmt.Errorf("this is for nodes of PoP %s: ask control", a.config.Self.PoP)
	}
	return nil
}

// mayFollow holds what control holds: a node may follow the catalog, and a
// namespace's log while some live release binds it. The catalog is signed, so a relay can
// tell by its own, and which nodes may hold what of it.
func (a *Agent[F]) mayFollow(ctx context.Context, log string) error {
	if err := a.neighbour(ctx); err != nil {
		return err
	}
	if log == catalogLog {
		return nil
	}
	if project, name, ok := namespaceOf(log); ok && a.catalog.Snapshot().Binds(project, name, false, a.labelsOf(ctx)) {
		return nil
	}
	return fmt.Errorf("no live release that this node knows binds %s", log)
}

// labelsOf are what the neighbour that asks is, by its certificate.
func (a *Agent[F]) labelsOf(ctx context.Context) function.Labels {
	p, _ := peer.From(ctx)
	return function.LabelsOf(p.Name, p.PoP, p.Region, nil)
}

// namespaceOf reads what logOf writes.
func namespaceOf(log string) (project, name string, ok bool) {
	rest, isKV := strings.CutPrefix(log, "kv/")
	project, name, both := strings.Cut(rest, "/")
	return project, name, isKV && both
}

// serves reports why this node does not serve log now.
func (a *Agent[F]) serves(log string) error {
	if log == catalogLog {
		return a.follower.Leads(log)
	}
	return a.spaces.follower.Leads(log)
}

// sendBlob answers 200 with the blob, 503 with Retry-After while this node fetches it,
// and 404 where control has to be asked.
func (a *Agent[F]) sendBlob(w http.ResponseWriter, r *http.Request) {
	d, err := function.ParseDigest(r.PathValue("digest"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if a.serving.Add(1) > maxServed {
		a.serving.Add(-1)
		http.Error(w, "this node sends as many blobs as it may: ask control", http.StatusTooManyRequests)
		return
	}
	defer a.serving.Add(-1)
	f, err := a.await(r.Context(), d)
	switch {
	case errors.Is(err, errFetching):
		w.Header().Set("Retry-After", "1")
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	case err != nil:
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	defer f.Close()
	if err := send(w, f); err != nil {
		panic(http.ErrAbortHandler) // the status is sent; a broken stream says that the bytes are not to be used
	}
	a.blobs.sent.Add(1)
}

func send(w http.ResponseWriter, f *os.File) error {
	i, err := f.Stat()
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(i.Size(), 10))
	rc := http.NewResponseController(w)
	for {
		_ = rc.SetWriteDeadline(time.Now().Add(sendLimit)) // a writer without deadlines does not block
		if n, err := io.CopyN(w, f, 256<<10); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("after %d bytes: %w", n, err)
		}
	}
}

var (
	errFetching = errors.New("this node is fetching it: ask again")
	errNotHere  = errors.New("this node does not have it: ask control")
)

// await opens a blob that a live release names, checked. It waits a little: the
// neighbour may have heard of the release first, and this node fetches it for both.
func (a *Agent[F]) await(ctx context.Context, d function.Digest) (*os.File, error) {
	begin := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		waited := time.Since(begin)
		state := blobAbsent
		if a.catalog.Snapshot().Names(d, a.labelsOf(ctx)) {
			f, st, err := a.blobs.open(d)
			if f != nil || err != nil {
				return f, err
			}
			state = st
		}
		switch {
		case state == blobFetched && waited > holdAsk:
			return nil, errFetching
		case state == blobAbsent && waited > unknown:
			return nil, errNotHere
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// blobState is where a blob is.
type blobState uint8

const (
	blobAbsent  blobState = iota
	blobFetched           // being fetched from control
)

// open returns the file of d, checked; nil where there is none, with what is done about it.
func (b *blobs) open(d function.Digest) (*os.File, blobState, error) {
	b.mu.Lock()
	state := blobAbsent
	if b.mu.direct[d] {
		state = blobFetched
	}
	b.mu.Unlock()
	f, err := os.Open(b.path(d))
	if errors.Is(err, os.ErrNotExist) {
		return nil, state, nil
	}
	if err != nil {
		return nil, state, errNotHere
	}
	sum := sha256.New()
	if _, err = io.Copy(sum, f); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err == nil && hex.EncodeToString(sum.Sum(nil)) != d.Hex() {
		err = errBlob // the next to read it here fetches it again
	}
	if err != nil {
		f.Close()
		b.rotten(d, err)
		return nil, state, errNotHere
	}
	return f, state, nil
}
