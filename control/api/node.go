package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/selvage-edge/selvage/control/changes"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/peer"
	"github.com/selvage-edge/selvage/control/report"
	"github.com/selvage-edge/selvage/control/store"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// Paths for nodes, on the peer listener. Keys in them are base64url without padding.
const (
	PeerBlobs = "/peer/v1/blobs" // GET /{digest}
	PeerKV    = "/peer/v1/kv"    // GET, PUT, DELETE, POST (increment) /{project}/{namespace}/{key}; GET, POST (read) /{project}/{namespace}
	PeerTrust = "/peer/v1/trust" // GET
)

func (a *API) peerRoutes() []*route {
	const ns = PeerKV + "/{project}/{namespace}"
	return []*route{
		{name: "peerChanges", method: "POST", pattern: changes.Path, summary: "Follow logs", who: aNode, status: 200, in: changes.Request{}, rawOut: "frames; see control/changes", stream: a.streamChanges},
		{name: "peerBlob", method: "GET", pattern: PeerBlobs + "/{digest}", summary: "Code or image that some live release names", who: aNode, status: 200, rawOut: "the blob", stream: a.streamBlob},
		{name: "peerReport", method: "POST", pattern: report.Path, summary: "What the node runs", who: aNode, limit: report.MaxBytes, status: 200, in: report.Report{}, out: report.Orders{}, do: a.takeReport},
		{name: "peerTrust", method: "GET", pattern: PeerTrust, summary: "The fleet's public trust material", who: aNode, status: 200, out: identity.Bundle{}, do: a.getTrust},
		{name: "peerRenew", method: "POST", pattern: identity.RenewPath, summary: "A new certificate for the node that asks", who: aNode, mutates: true, limit: jsonLimit, status: 200, in: identity.RenewRequest{}, out: identity.RenewResponse{}, do: a.renew},
		{name: "peerHeld", method: "GET", pattern: changes.HeldPath + "/{project}/{namespace}", summary: "What a namespace held at a position, signed", who: aNode, status: 200, query: heldQuery, rawOut: "changes.Held, sealed", do: a.peerHeld},
		{name: "peerListKeys", method: "GET", pattern: ns, summary: "Keys of a namespace that some live release binds", who: aNode, status: 200, query: pageQuery, out: KeyList{}, do: a.peerListKeys},
		{name: "peerGetKey", method: "GET", pattern: ns + "/{key}", summary: "A value", who: aNode, status: 200, rawOut: "the value", do: a.peerGetKey},
		{name: "peerPutKey", method: "PUT", pattern: ns + "/{key}", summary: "Write a value", who: aNode, limit: hostcall.MaxValueBytes, status: 200, query: []param{{"ttl_ms", "time to live"}, {"metadata", "in base64url"}, ifQuery}, raw: "the value", out: Written{}, do: a.peerPutKey},
		{name: "peerReadKeys", method: "POST", pattern: ns, summary: "Several values", who: aNode, limit: jsonLimit, status: 200, in: ReadRequest{}, out: ReadAnswer{}, do: a.peerReadKeys},
		{name: "peerIncrement", method: "POST", pattern: ns + "/{key}", summary: "Add to a number", who: aNode, status: 200, query: []param{byQuery}, out: Incremented{}, do: a.peerIncrement},
		{name: "peerDeleteKey", method: "DELETE", pattern: ns + "/{key}", summary: "Delete a value", who: aNode, status: 200, query: []param{ifQuery}, out: Written{}, do: a.peerDeleteKey},
	}
}

// mayFollow lets nodes follow the catalog and the namespaces some release binds.
func (a *API) mayFollow(ctx context.Context, log string) error {
	if log == store.CatalogLog {
		return nil
	}
	ns, err := store.ParseKVLog(log)
	if err != nil {
		return err
	}
	return a.bound(ctx, ns, false)
}

// labelsOf are those that a node's certificate proves.
func labelsOf(p identity.Peer) function.Labels {
	return function.LabelsOf(p.Name, p.PoP, p.Region, nil)
}

// bound refuses what no live release binds that the node which asks may hold: it has
// no use for it.
func (a *API) bound(ctx context.Context, ns hostcall.Namespace, write bool) error {
	node, _ := peer.From(ctx)
	if a.Catalog().Binds(ns.Project, ns.Name, write, labelsOf(node)) {
		return nil
	}
	access := "binds"
	if write {
		access = "binds with write access"
	}
	return fmt.Errorf("api: no live release that %s may hold %s namespace %s/%s: %w", node.Name, access, ns.Project, ns.Name, hostcall.ErrDenied)
}

func (a *API) streamChanges(c *call) { peer.Stream(a.changes).ServeHTTP(c.w, c.r) }

// named reports whether a live release names d that the node may hold. A node may know of a release
// first: one whose append was never answered here, or another control node's.
func (a *API) named(ctx context.Context, node identity.Peer, d function.Digest) (bool, error) {
	if a.Catalog().Names(d, labelsOf(node)) {
		return true, nil
	}
	a.signed.Lock()
	defer a.signed.Unlock()
	if err := a.catchUp(ctx); err != nil {
		return false, err
	}
	return a.Catalog().Names(d, labelsOf(node)), nil
}

// blobWrite bounds the wait for a node to take the next piece of a blob.
const blobWrite = 30 * time.Second

func (a *API) streamBlob(c *call) {
	d, err := function.ParseDigest(c.param("digest"))
	if err != nil {
		c.fail(invalid("%v", err))
		return
	}
	named, err := a.named(c.r.Context(), c.peer, d)
	if err != nil {
		c.fail(err)
		return
	}
	if !named {
		c.fail(notFound("follow the catalog: what is live now has other blobs", "no live release that %s may hold names blob %s", c.peer.Name, d.Short()))
		return
	}
	r, size, err := a.cfg.Store.Blob(c.r.Context(), d)
	if err != nil {
		c.fail(err)
		return
	}
	defer r.Close()
	c.w.Header().Set("Content-Type", "application/octet-stream")
	c.w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	if err := copyPaced(c.w, r); err != nil {
		c.a.cfg.Log.Warn("api: a blob was cut short", "request", c.id, "node", c.peer.Name, "digest", d, "error", err)
		// The status is sent; only a broken stream can say that the bytes are not to be used.
		panic(http.ErrAbortHandler)
	}
}

// copyPaced copies with a deadline for each piece.
func copyPaced(w http.ResponseWriter, r io.Reader) error {
	rc := http.NewResponseController(w)
	buf := make([]byte, 256<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			_ = rc.SetWriteDeadline(time.Now().Add(blobWrite)) // a writer without deadlines does not block
			if _, werr := w.Write(buf[:n]); werr != nil {
				return werr
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// reportBucket keeps each node's last report over a restart of control.
const reportBucket = "reports"

// reportEvery is how often an unchanged report is written down.
const reportEvery = time.Minute

func (a *API) takeReport(ctx context.Context, c *call) (*reply, error) {
	var r report.Report
	// A node of a later version may say more; it is not away because of that.
	if err := json.Unmarshal(c.body, &r); err != nil {
		return nil, invalid("the body is no report: %v", err)
	}
	if err := r.Validate(); err != nil {
		return nil, invalid("%v", err)
	}
	if r.Node != c.peer.Name || r.PoP != c.peer.PoP {
		return nil, problem(http.StatusForbidden, "not-you", "report for yourself: node and pop of the certificate", "the report is of %s/%s, the certificate of %s/%s", r.PoP, r.Node, c.peer.PoP, c.peer.Name)
	}
	r.Region = c.peer.Region // what its certificate says
	now := a.cfg.Now()
	before := a.board.post(posted{r, now})
	if sameReport(before.Report, r) && now.Truncate(reportEvery).Equal(before.received.Truncate(reportEvery)) {
		return a.answerReport(ctx, r.Node)
	}
	err := a.saveRecord(ctx, reportBucket, r.Node, r, hostcall.PutOptions{IfRevision: hostcall.AnyRevision, TTL: 30 * 24 * time.Hour})
	if errors.Is(err, store.ErrFull) {
		err = nil // it is on the board; the node can do nothing about the disk
	}
	if err != nil {
		return nil, err
	}
	return a.answerReport(ctx, r.Node)
}

// answerReport tells the node what is wanted of it.
func (a *API) answerReport(ctx context.Context, node string) (*reply, error) {
	o, err := a.orders(ctx, node)
	return &reply{json: o.Orders}, err
}

func sameReport(a, b report.Report) bool {
	a.At, b.At = time.Time{}, time.Time{}
	a.KV, b.KV = nil, nil // counts change with each, and are told again with the next
	a.Copies, b.Copies = nil, nil
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// loadReports puts what was reported before a restart on the board, as of then.
func (a *API) loadReports(ctx context.Context) error {
	records, err := a.cfg.Store.Bucket(reportBucket).All(ctx)
	if err != nil {
		return err
	}
	for node, e := range records {
		var r report.Report
		if err := json.Unmarshal(e.Value, &r); err != nil {
			return fmt.Errorf("api: report of %s: %w", node, err)
		}
		received := r.At
		if now := a.cfg.Now(); received.After(now) {
			received = now // a node whose clock is ahead is not there for longer than others
		}
		a.board.post(posted{r, received})
	}
	return nil
}

func (a *API) renew(_ context.Context, c *call) (*reply, error) {
	var req identity.RenewRequest
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	resp, err := a.cfg.Identity.Renew(c.peer, req)
	if err != nil {
		return nil, invalid("%v", err)
	}
	return &reply{json: resp}, nil
}

// peerKey returns the namespace and key of a node's call, if it may make it.
func (a *API) peerKey(c *call, write bool) (hostcall.Namespace, string, error) {
	ns := hostcall.Namespace{Project: c.project, Name: c.param("namespace")}
	if err := a.bound(c.r.Context(), ns, write); err != nil {
		return ns, "", err
	}
	key, err := base64.RawURLEncoding.Strict().DecodeString(c.param("key"))
	if err != nil {
		return ns, "", invalid("the key is not base64url without padding")
	}
	return ns, string(key), nil
}

func (a *API) peerGetKey(ctx context.Context, c *call) (*reply, error) {
	ns, key, err := a.peerKey(c, false)
	if err != nil {
		return nil, err
	}
	return a.readKey(ctx, c, ns, key)
}

func (a *API) peerPutKey(ctx context.Context, c *call) (*reply, error) {
	ns, key, err := a.peerKey(c, true)
	if err != nil {
		return nil, err
	}
	ms, err := queryUint(c.r, "ttl_ms", 0)
	if err != nil {
		return nil, err
	}
	if ms > uint64(store.MaxTTL.Milliseconds()) {
		return nil, invalid("ttl_ms=%d: want at most %d", ms, store.MaxTTL.Milliseconds())
	}
	o := hostcall.PutOptions{TTL: time.Duration(ms) * time.Millisecond}
	if o.IfRevision, err = ifRevision(c.r); err != nil {
		return nil, err
	}
	if o.Metadata, err = base64.RawURLEncoding.DecodeString(c.r.URL.Query().Get("metadata")); err != nil {
		return nil, invalid("the metadata is not base64url without padding")
	}
	return a.writeKey(ctx, c, ns, key, o)
}

func (a *API) peerReadKeys(ctx context.Context, c *call) (*reply, error) {
	ns, _, err := a.peerKey(c, false)
	if err != nil {
		return nil, err
	}
	return a.readKeys(ctx, c, ns)
}

func (a *API) peerIncrement(ctx context.Context, c *call) (*reply, error) {
	ns, key, err := a.peerKey(c, true)
	if err != nil {
		return nil, err
	}
	return a.increment(ctx, c, ns, key)
}

func (a *API) peerDeleteKey(ctx context.Context, c *call) (*reply, error) {
	ns, key, err := a.peerKey(c, true)
	if err != nil {
		return nil, err
	}
	at, err := ifRevision(c.r)
	if err != nil {
		return nil, err
	}
	return a.removeKey(ctx, c, ns, key, at)
}

func (a *API) peerListKeys(ctx context.Context, c *call) (*reply, error) {
	ns, _, err := a.peerKey(c, false)
	if err != nil {
		return nil, err
	}
	q := c.r.URL.Query()
	prefix, err := base64.RawURLEncoding.Strict().DecodeString(q.Get("prefix"))
	if err != nil {
		return nil, invalid("the prefix is not base64url without padding")
	}
	cursor, err := base64.RawURLEncoding.Strict().DecodeString(q.Get("cursor"))
	if err != nil {
		return nil, invalid("the cursor is not base64url without padding")
	}
	return a.pageOfKeys(ctx, c, ns, string(prefix), string(cursor))
}
