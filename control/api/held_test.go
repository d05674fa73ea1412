package api

import (
	"fmt"
	"testing"

	"github.com/selvage-edge/selvage/control/changes"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// What a namespace held is said, signed, to nodes that may hold it, and of positions that are known.
func TestHeldIsSaidToWhoMayHaveIt(t *testing.T) {
	f := start(t)
	node := f.node("n1", "lon")
	f.deploy("hello", "[[kv]]\nname = \"links\"\naccess = \"read\"\n", module)
	f.want(200, f.admin("PUT", "/v1/projects/default/kv/unbound", nil), nil)
	f.want(200, f.admin("PUT", keysOf+"/k", []byte("v")), nil)
	var w Written
	f.want(200, f.admin("PUT", keysOf+"/l", []byte("v")), &w)
	ask := func(ns string, epoch, seq uint64) answer {
		return f.send(node, "GET", fmt.Sprintf("%s/default/%s?epoch=%d&seq=%d", changes.HeldPath, ns, epoch, seq), nil)
	}
	epoch := f.store.Epoch()
	got := ask("links", epoch, w.Revision)
	h, err := changes.OpenHeld(f.id.Anchor, got.body)
	if err != nil || h.Log != "kv/default/links" || h.Position != (changes.Position{Epoch: epoch, Seq: w.Revision}) || h.Keys != 2 {
		t.Fatalf("%d %+v, %v", got.StatusCode, h, err)
	}
	if want, err := f.store.KV().Held(t.Context(), hostcall.Namespace{Project: "default", Name: "links"}, w.Revision); err != nil || want.Sum != h.Sum {
		t.Errorf("%x, %v; the store says %x", h.Sum, err, want.Sum)
	}
	f.refused(409, "unheld", ask("links", epoch, w.Revision-1)) // before it was asked for
	f.refused(409, "unheld", ask("links", epoch, w.Revision+1))
	f.refused(409, "unheld", ask("links", epoch-1, w.Revision))
	f.refused(403, "denied", ask("unbound", epoch, w.Revision))
	f.refused(403, "denied", ask("none", epoch, w.Revision))
}
