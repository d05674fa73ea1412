package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/selvage-edge/selvage/cmd/selvage/request"
	"github.com/selvage-edge/selvage/control/api"
	"github.com/selvage-edge/selvage/runtime/guesttest"
)

const greetAgain = `(data (i32.const 64) "again\n")
(func (export "handle") (drop (call $response_write (i32.const 64) (i32.const 6))))`

// What those who run a fleet do with it, on one that runs.
func TestOperations(t *testing.T) {
	w := openWorld(t, "127.0.0.100")
	dir := w.function(t, "good", guesttest.Guest(t, greet))
	w.selvage(t, "deploy", "--wait", dir).expect(t, exitOK, "live")
	t.Run("rollback", func(t *testing.T) { w.rollBack(t) })
	t.Run("token", func(t *testing.T) { w.tokens(t) })
}

func (w *world) rollBack(t *testing.T) {
	w.selvage(t, "rollback", "none").expect(t, exitRefused, "never was")
	w.selvage(t, "rollback", "good").expect(t, exitRefused, "no earlier release")
	w.selvage(t, "deploy", "--wait", w.function(t, "good", guesttest.Guest(t, greetAgain))).expect(t, exitOK, "live")
	if status, body := w.get(t, request.HTTP2, "good", "/"); status != 200 || body != "again\n" {
		t.Fatalf("deployed: %d %q", status, body)
	}
	w.selvage(t, "rollback", "--wait", "good").expect(t, exitOK, "release 3", "live", "cached")
	if status, body := w.get(t, request.HTTP2, "good", "/"); status != 200 || body != "woven\n" {
		t.Errorf("rolled back: %d %q", status, body)
	}
	w.selvage(t, "rollback", "good", "--to", "1", "--json").expect(t, exitOK, `"unchanged": true`)
	w.selvage(t, "rollback", "good", "--to", "7").expect(t, exitRefused, "selvage versions good")
	w.selvage(t, "versions", "good").expect(t, exitOK, "live, as release 1")
	var all []api.Release
	if err := json.Unmarshal([]byte(w.selvage(t, "versions", "good", "--json").out), &all); err != nil || len(all) != 3 || all[0].Bundle != all[2].Bundle || all[0].Limits.Concurrency == 0 {
		t.Errorf("versions: %+v, %v", all, err)
	}
}

func (w *world) tokens(t *testing.T) {
	w.selvage(t, "token", "create", "--life", "9000h").expect(t, exitUsage, "2160h")
	w.selvage(t, "token", "create", "--scope", "all").expect(t, exitRefused, "admin, deploy or read")
	secret := strings.TrimSpace(w.selvage(t, "token", "create", "--project", "default", "--note", "for the test").out)
	as := append(w.env, "SELVAGE_TOKEN="+secret)
	selvage(t, as, "versions", "good").expect(t, exitOK, "live")
	selvage(t, as, "rollback", "good").expect(t, exitRefused, "scope deploy")
	w.selvage(t, "token", "ls").expect(t, exitOK, "for the test", "read")
	id := strings.Split(secret, "_")[1]
	w.selvage(t, "token", "revoke", id).expect(t, exitOK, "revoked")
	selvage(t, as, "versions", "good").expect(t, exitRefused, "token")
	w.selvage(t, "token", "revoke", id).expect(t, exitRefused, "token")
}
