package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/selvage-edge/selvage/control/bundle"
	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/hostcall"
	"github.com/selvage-edge/selvage/runtime/quota"
)

// signatureBucket keeps the publisher's statement beside each bundle, by
// project, function and digest.
const signatureBucket = "signatures"

func signatureKey(id function.ID, d function.Digest) string {
	return id.Project + "/" + id.Name + "/" + string(d)
}

// putBundle stores a bundle that a publisher of the project vouches for.
func (a *API) putBundle(ctx context.Context, c *call) (*reply, error) {
	var sig identity.Envelope
	text := c.r.Header.Get(bundle.SignatureHeader)
	if text == "" {
		return nil, problem(http.StatusForbidden, "not-signed", "sign the bundle with the project's publisher key ('selvage deploy' does)", "the header %s is missing", bundle.SignatureHeader)
	}
	if err := sig.UnmarshalText([]byte(text)); err != nil {
		return nil, invalid("%s: %v", bundle.SignatureHeader, err)
	}
	b, err := a.openBundle(c.body)
	if err != nil {
		return nil, err
	}
	c.note("digest", string(b.Digest))
	c.note("function", b.Manifest.ID().String())
	if b.Manifest.Project != c.project {
		return nil, problem(http.StatusUnprocessableEntity, "other-project", "deploy it to the project its manifest names, or change the manifest",
			"the manifest is of project %s, this is %s", b.Manifest.Project, c.project)
	}
	key, err := bundle.Verify(a.cfg.Identity.Anchor, sig, b.Manifest.Project, b.Manifest.Name, b.Digest)
	if err != nil {
		return nil, err
	}
	if err := a.cfg.Store.PutBlob(ctx, b.Digest, bytes.NewReader(c.body), int64(len(c.body))); err != nil {
		return nil, err
	}
	err = a.saveRecord(ctx, signatureBucket, signatureKey(b.Manifest.ID(), b.Digest), sig, hostcall.PutOptions{IfRevision: hostcall.AnyRevision})
	if err != nil {
		return nil, err
	}
	return &reply{json: BundleInfo{
		Digest: b.Digest, Project: c.project, Function: b.Manifest.Name, Routes: append([]string{}, b.Manifest.Routes...), Bytes: int64(len(c.body)), Publisher: key,
	}}, nil
}

// openBundle opens a bundle; what is wrong with it is the sender's.
func (a *API) openBundle(packed []byte) (*bundle.Bundle, error) {
	b, err := bundle.Open(packed, a.cfg.Bundle)
	var faults *bundle.Faults
	if err == nil || errors.Is(err, bundle.ErrTooLarge) || errors.As(err, &faults) {
		return b, err
	}
	return nil, problem(http.StatusUnprocessableEntity, "bad-bundle", "make the bundle with 'selvage build' and do not change it", "%v", err)
}

// createRelease makes an uploaded bundle live.
func (a *API) createRelease(ctx context.Context, c *call) (*reply, error) {
	var req DeployRequest
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	if _, err := function.ParseDigest(string(req.Bundle)); err != nil {
		return nil, invalid("bundle: %v", err)
	}
	id := function.ID{Project: c.project, Name: c.param("function")}
	c.note("function", id.String())
	c.note("digest", string(req.Bundle))
	if r, ok := a.liveAs(id, req.Bundle); ok {
		return unchanged(r), nil
	}
	b, publisher, err := a.uploaded(ctx, id, req.Bundle)
	if err != nil {
		return nil, err
	}
	// Who will be refused for a route should not wait for the module first.
	if _, err := a.decide(a.Catalog(), releaseOf(b, publisher)); err != nil {
		return nil, err
	}
	rel := releaseOf(b, publisher)
	placed, err := a.checkPlacement(rel.Placement)
	if err != nil {
		return nil, err
	}
	notes, err := a.prepareModule(ctx, b, rel)
	if err != nil {
		return nil, err
	}
	return a.publish(ctx, c, rel, append(notes, placed...))
}

// unchanged answers who asked for what is live already.
func unchanged(r Release) *reply {
	return &reply{status: http.StatusOK, json: Deployed{Release: shown(r.Position, r.Release), Unchanged: true}}
}

// liveAs returns the function's live release if it is of this very bundle.
func (a *API) liveAs(id function.ID, d function.Digest) (Release, bool) {
	snap := a.Catalog()
	r, ok := snap.Release(id)
	return Release{snap.ReleasePosition(id), r}, ok && !r.Removed && r.Bundle == d
}

// uploaded returns a stored bundle, with its signature verified again: the
// publisher may have been revoked since.
func (a *API) uploaded(ctx context.Context, id function.ID, d function.Digest) (*bundle.Bundle, identity.KeyID, error) {
	e, err := a.cfg.Store.Bucket(signatureBucket).Get(ctx, signatureKey(id, d))
	if errors.Is(err, hostcall.ErrNotFound) {
		return nil, "", notFound("upload it first: PUT /v1/projects/"+id.Project+"/bundles", "no bundle %s was uploaded for %s", d.Short(), id)
	}
	if err != nil {
		return nil, "", err
	}
	var sig identity.Envelope
	if err := json.Unmarshal(e.Value, &sig); err != nil {
		return nil, "", fmt.Errorf("api: signature of bundle %s: %w", d.Short(), err)
	}
	key, err := bundle.Verify(a.cfg.Identity.Anchor, sig, id.Project, id.Name, d)
	if err != nil {
		return nil, "", err
	}
	packed, err := a.cfg.Store.BlobBytes(ctx, d, a.cfg.Bundle.PackedBytes)
	if err != nil {
		return nil, "", err
	}
	b, err := a.openBundle(packed)
	return b, key, err
}

func releaseOf(b *bundle.Bundle, publisher identity.KeyID) *catalog.Release {
	m := b.Manifest
	return &catalog.Release{
		Project: m.Project, Function: m.Name, Bundle: b.Digest,
		Routes: m.Routes, Limits: m.Limits, Bindings: m.Bindings, Placement: m.Placement, Publisher: publisher,
	}
}

// newPreparing is so many modules that are prepared at once: a project that deploys
// without end leaves a place to others.
func newPreparing(n int) *quota.Pool { return quota.New(int64(n), max(1, int64(n)-1)) }

// prepareModule splits b's module, stores its parts and sets them in rel.
func (a *API) prepareModule(ctx context.Context, b *bundle.Bundle, rel *catalog.Release) (notes []string, err error) {
	seat, err := a.prepare.Take(ctx, rel.Project, 1)
	if err != nil {
		return nil, problem(http.StatusServiceUnavailable, "busy", "try again in a moment", "too many modules are being prepared")
	}
	defer seat.Release()
	p, err := a.cfg.Prepare(ctx, b.Module, b.Manifest.Snapshot)
	if err != nil {
		return nil, err
	}
	if rel.Code, err = a.cfg.Store.PutBlobBytes(ctx, p.Code); err != nil {
		return nil, err
	}
	if rel.Image, err = a.cfg.Store.PutBlobBytes(ctx, p.Image); err != nil {
		return nil, err
	}
	rel.Started = p.Started
	return p.Notes, nil
}

// decide returns the records that make rel live in the catalog of now: namespaces
// it binds that are not there, and itself.
func (a *API) decide(snap *catalog.Snapshot, rel *catalog.Release) ([]*catalog.Record, error) {
	now := a.cfg.Now().UTC()
	last, _ := snap.Release(rel.ID())
	rel.Number, rel.CreatedAt = last.Number+1, now
	var records []*catalog.Record
	made := make(map[string]bool)
	for _, k := range rel.Bindings.KV {
		if _, ok := snap.Namespace(rel.Project, k.Namespace); !ok && !made[k.Namespace] {
			made[k.Namespace] = true
			records = append(records, &catalog.Record{Namespace: &catalog.Namespace{
				Project: rel.Project, Name: k.Namespace, Mode: catalog.ModeCached, CreatedAt: now,
			}})
		}
	}
	// Its namespaces are not in this snapshot yet: only the routes can be in the way here.
	alone := *rel
	alone.Bindings.KV = nil
	if err := snap.Admit(&catalog.Record{Release: &alone}); err != nil {
		return nil, err
	}
	return append(records, &catalog.Record{Release: rel}), nil
}

// publish signs and appends the release.
func (a *API) publish(ctx context.Context, c *call, rel *catalog.Release, notes []string) (*reply, error) {
	out := Deployed{Notes: notes}
	var records []*catalog.Record
	err := a.change(ctx, func(snap *catalog.Snapshot) (_ []*catalog.Record, err error) {
		records, err = a.decide(snap, rel)
		return records, err
	})
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		if r.Namespace != nil {
			out.CreatedNamespaces = append(out.CreatedNamespaces, r.Namespace.Name)
		}
		out.Release = Release{Position: r.Position}
	}
	out.Release = shown(out.Release.Position, *rel)
	c.note("release", strconv.FormatUint(rel.Number, 10))
	c.note("revision", out.Release.Position.String())
	return &reply{json: out}, nil
}

// deleteFunction takes a function away from every node.
func (a *API) deleteFunction(ctx context.Context, c *call) (*reply, error) {
	id := function.ID{Project: c.project, Name: c.param("function")}
	var rec *catalog.Record
	err := a.change(ctx, func(snap *catalog.Snapshot) ([]*catalog.Record, error) {
		last, ok := snap.Release(id)
		if !ok || last.Removed {
			return nil, notFound("list the functions: GET /v1/projects/"+id.Project+"/functions", "no function %s is live", id)
		}
		rec = &catalog.Record{Release: &catalog.Release{
			Project: id.Project, Function: id.Name, Number: last.Number + 1, CreatedAt: a.cfg.Now().UTC(), Removed: true,
		}}
		return []*catalog.Record{rec}, nil
	})
	if err != nil {
		return nil, err
	}
	c.note("release", strconv.FormatUint(rec.Release.Number, 10))
	return &reply{json: Release{rec.Position, *rec.Release}}, nil
}
