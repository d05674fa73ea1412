package main

import (
	"path/filepath"
	"testing"

	"github.com/selvage-edge/selvage/cmd/selvage/controlnode"
	"github.com/selvage-edge/selvage/cmd/selvage/request"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/runtime/guesttest"
)

// A second project has publishers of its own: the first project's key is refused
// for it, and its own key for the first.
func TestProjects(t *testing.T) {
	w := openWorld(t, "127.0.0.70")
	shop := w.function(t, "cart", guesttest.Guest(t, greet), `project = "shop"`)
	w.selvage(t, "deploy", shop).expect(t, exitRefused, "publisher key")

	key := filepath.Join(t.TempDir(), "shop.key")
	rootKey := filepath.Join(w.Layout.Control.State, controlnode.IdentityDir, identity.FileRootKey)
	w.selvage(t, "publisher", "add", "--project", "shop", "--root-key", rootKey, "-o", key).expect(t, exitOK, "shop")
	w.selvage(t, "publisher", "add", "--project", "shop", "--root-key", rootKey, "-o", key).expect(t, exitUsage, "is there already")
	w.selvage(t, "publisher", "add", "--project", "shop", "--root-key", key, "-o", key+"2").expect(t, exitFailed)
	tg := w.target(t)
	tg.Publisher = key
	own := w.saved(t, tg)
	selvage(t, own, "deploy", "--wait", shop).expect(t, exitOK, "shop/cart", "live")
	selvage(t, own, "deploy", w.function(t, "good", guesttest.Guest(t, greet))).expect(t, exitRefused, "publisher key")
	if status, body := w.get(t, request.HTTP3, "cart", "/"); status != 200 || body != "woven\n" {
		t.Errorf("shop/cart answers %d %q", status, body)
	}
	selvage(t, own, "status", "--project", "shop").expect(t, exitOK, "cart")
	selvage(t, own, "remove", "cart", "--project", "shop").expect(t, exitOK, "shop/cart is removed")
	selvage(t, own, "remove", "cart", "--project", "shop").expect(t, exitRefused)
	// The same name in two projects is two namespaces.
	w.selvage(t, "kv", "create", "links").expect(t, exitOK)
	w.selvage(t, "kv", "create", "links", "--project", "shop").expect(t, exitOK)
	w.selvage(t, "kv", "put", "links", "a", "1").expect(t, exitOK)
	w.selvage(t, "kv", "get", "links", "a", "--project", "shop").expect(t, exitRefused, `no key "a"`, "selvage kv ls links")
}
