package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/store"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// maxRecordBytes keeps every record small enough to travel inside its change.
const maxRecordBytes = 60 << 10

var catalogPage = store.ReadOptions{Changes: 4096, Bytes: 64 << 20, Inline: 1 << 20}

// loadCatalog builds the catalog from the store's log, verifying every record.
func (a *API) loadCatalog(ctx context.Context) error {
	state := catalog.NewState(kept{a.cfg.Identity.Anchor})
	again, err := state.Rebuild(a.cfg.Store.Epoch())
	if err != nil {
		return err
	}
	head, err := a.cfg.Store.CatalogHead(ctx)
	if err != nil {
		return err
	}
	for page := (store.Page{}); ; {
		if page, err = a.cfg.Store.Read(ctx, store.CatalogLog, page.To, catalogPage); err != nil {
			return err
		}
		if err := again.Apply(a.position(page.To), values(page)...); err != nil {
			return err
		}
		if page.To >= head {
			break
		}
	}
	if err := again.Commit(); err != nil {
		return err
	}
	a.state = state
	return nil
}

// kept is the trust in what the store holds: it was verified before it was appended, so a
// delegation that has ended since still counts. A revoked one does not.
type kept struct{ *identity.Anchor }

func (k kept) Verify(p identity.Purpose, project, payloadType string, e identity.Envelope) ([]byte, identity.KeyID, error) {
	return k.VerifyKept(p, project, payloadType, e)
}

func (a *API) position(revision uint64) catalog.Position {
	return catalog.Position{Epoch: a.cfg.Store.Epoch(), Revision: revision}
}

func values(p store.Page) [][]byte {
	records := make([][]byte, len(p.Changes))
	for i, c := range p.Changes {
		records[i] = c.Value
	}
	return records
}

// catchUp applies what another control node appended, or this one without being told; a.signed is held.
func (a *API) catchUp(ctx context.Context) error {
	head, err := a.cfg.Store.CatalogHead(ctx)
	if err != nil {
		return err
	}
	sub, err := a.cfg.Store.Subscribe([]string{store.CatalogLog})
	if err != nil {
		return err
	}
	defer sub.Close()
	for {
		at := a.Head().Revision
		if at >= head {
			return nil
		}
		page, err := a.cfg.Store.Read(ctx, store.CatalogLog, at, catalogPage)
		if err != nil {
			return err
		}
		if page.To > at {
			if err := a.state.Apply(a.position(page.To), values(page)...); err != nil {
				return err
			}
			continue
		}
		select {
		case <-sub.C:
		case <-ctx.Done():
			return fmt.Errorf("api: catch up with the catalog: %w: %w", hostcall.ErrUnavailable, ctx.Err())
		}
	}
}

// changeLimit bounds one change of the catalog.
const changeLimit = time.Minute

// change admits, signs and appends records that decide makes from the catalog of
// now. decide may be called again when another control node was faster. Once
// begun it goes on when the caller leaves: a record whose fate nobody waited for
// would be live on nodes and unknown here.
func (a *API) change(ctx context.Context, decide func(*catalog.Snapshot) ([]*catalog.Record, error)) error {
	a.signed.Lock()
	defer a.signed.Unlock()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("api: change the catalog: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeLimit)
	defer cancel()
	for range 5 {
		records, err := decide(a.state.Snapshot())
		if err != nil {
			return err
		}
		err = a.append(ctx, records)
		if !errors.Is(err, hostcall.ErrConflict) {
			return err
		}
		if err := a.catchUp(ctx); err != nil {
			return err
		}
	}
	return fmt.Errorf("api: change the catalog: other control nodes are always faster: %w", hostcall.ErrUnavailable)
}

// append signs and appends records one after the other; a.signed is held.
func (a *API) append(ctx context.Context, records []*catalog.Record) error {
	for _, r := range records {
		snap := a.state.Snapshot()
		r.Position = a.position(snap.Position().Revision + 1)
		if err := snap.Admit(r); err != nil {
			return err
		}
		signed, err := r.Sign(a.cfg.Identity.Catalog)
		if err != nil {
			return err
		}
		if len(signed) > maxRecordBytes {
			return problem(422, "release-too-large", "move data from variables to KV, or split the function",
				"the catalog's record of it has %d bytes, over %d", len(signed), maxRecordBytes)
		}
		// A record that nodes refuse would end the log for all of them, and for this node at its next start.
		if _, err := catalog.Open(a.cfg.Identity.Anchor, signed); err != nil {
			return problem(503, "catalog-key", "have the root key delegate a catalog key", "this control node's catalog key may not sign now: %v", err)
		}
		if _, err := a.cfg.Store.AppendCatalog(ctx, r.Key(), signed, r.Revision-1); err != nil {
			return err
		}
		if err := a.state.Apply(r.Position, signed); err != nil {
			return err
		}
	}
	return nil
}
