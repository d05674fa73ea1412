package guest_test

import (
	"context"
	"strings"
	"testing"

	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/sdk/abi"
)

// TestKVAsk: the keys at 90 and 91 are "k", which is there, and "v", which is not.
func TestKVAsk(t *testing.T) {
	kv := &store{}
	if _, err := kv.Put(t.Context(), hostNamespace(version()), "k", []byte("value"), putAny); err != nil {
		t.Fatal(err)
	}
	x, u, f := run(t, strings.Replace(waitText(`
		(local.set $a (call $kv_ask (i32.const 0) (i32.const 90) (i32.const 1)))
		(local.set $b (call $kv_ask (i32.const 0) (i32.const 91) (i32.const 1)))
		(call $keep (i32.const 0) (call $wait1 (local.get $a) (i32.const 4) (i64.const -1)))
		(call $keep (i32.const 1) (call $kv_take (local.get $a) (i32.const 3000) (i32.const 4) (i32.const 4000)))
		(call $keep (i32.const 2) (i32.load (i32.const 4016)))
		(call $keep (i32.const 3) (call $kv_take (local.get $a) (i32.const 3000) (i32.const 5) (i32.const 4000)))
		(call $keep (i32.const 4) (i32.load8_u (i32.const 3004)))
		(call $keep (i32.const 5) (call $kv_take (local.get $a) (i32.const 3000) (i32.const 5) (i32.const 4000)))
		(call $keep (i32.const 6) (call $kv_take (local.get $b) (i32.const 3000) (i32.const 5) (i32.const 4000)))
		(call $keep (i32.const 7) (call $fetch_close (call $kv_ask (i32.const 0) (i32.const 90) (i32.const 1))))
		(call $keep (i32.const 8) (call $kv_ask (i32.const 7) (i32.const 90) (i32.const 1)))
		(call $keep (i32.const 9) (call $kv_ask (i32.const 0) (i32.const 90) (i32.const 0)))`),
		`(data (i32.const 100)`, `(data (i32.const 90) "kv") (data (i32.const 100)`, 1),
		func(_ *function.Version, p *guest.Ports, _ *exchange) { p.KV = kv })
	expect(t, x, f, 0, abi.StatusTooSmall, 5, 0, 'e', abi.StatusInvalid, abi.StatusNotFound, 0, abi.StatusInvalid, abi.StatusInvalid)
	if u.KVOperations != 4 {
		t.Errorf("charged for %d calls", u.KVOperations)
	}
}

// TestKVAskEndsWithItsGuest: nobody takes the answer, which never comes.
func TestKVAskEndsWithItsGuest(t *testing.T) {
	ended := false
	_, _, f := run(t, waitText(`(call $keep (i32.const 0) (call $kv_ask (i32.const 0) (i32.const 100) (i32.const 1)))`),
		func(_ *function.Version, p *guest.Ports, _ *exchange) {
			p.KV = &store{wait: func(ctx context.Context) error {
				<-ctx.Done()
				ended = true
				return ctx.Err()
			}}
		})
	if f != nil || !ended {
		t.Errorf("ended %t, %v", ended, f)
	}
}
