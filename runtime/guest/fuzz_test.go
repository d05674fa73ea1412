package guest_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/guesttest"
)

// step is one call of the fuzzed guest: which import, and its arguments.
const step = 1 + 4*engine.MaxArgs

// obedient is a guest that reads steps from its request's body and does them.
func obedient() string {
	var calls strings.Builder
	for i, im := range guest.Imports() {
		name := "$" + im.Name
		if im.Module == "wasi_snapshot_preview1" {
			name = "$wasi_" + im.Name
		}
		call := "(call " + name
		for k, kind := range im.Params {
			arg := fmt.Sprintf("(i32.load offset=%d (local.get $p))", 1+4*k)
			if kind == engine.I64 {
				arg = "(i64.extend_i32_s " + arg + ")"
			}
			call += " " + arg
		}
		call += ")"
		if len(im.Results) > 0 {
			call = "(drop " + call + ")"
		}
		fmt.Fprintf(&calls, "(if (i32.eq (local.get $op) (i32.const %d)) (then %s))\n", i, call)
	}
	return handle(fmt.Sprintf(`(local $p i32) (local $end i32) (local $op i32)
		(local.set $p (i32.const 4096))
		(local.set $end (i32.add (i32.const 4096) (call $request_read (i32.const 4096) (i32.const 4096))))
		(loop $next
			(if (i32.gt_u (i32.add (local.get $p) (i32.const %d)) (local.get $end)) (then (return)))
			(local.set $op (i32.load8_u (local.get $p)))
			%s
			(local.set $p (i32.add (local.get $p) (i32.const %d)))
			(br $next))`, step, calls.String(), step))
}

// FuzzHostCalls has a guest call whatever there is with whatever arguments: it
// ends in good order or in a fault of its own, soon, and never in one of ours.
func FuzzHostCalls(f *testing.F) {
	for i := range guest.Imports() {
		for _, fill := range []byte{0, 1, 0x7f, 0xff} {
			one := bytes.Repeat([]byte{fill}, step)
			one[0] = byte(i)
			f.Add(one)
		}
	}
	f.Add(binary.LittleEndian.AppendUint64(nil, 1))
	prog := guesttest.Program(f, guesttest.Guest(f, obedient()))
	answers := fetcher(func(context.Context, *http.Request) (*http.Response, error) {
		return respond(strings.NewReader("hello")), nil
	})
	f.Fuzz(func(t *testing.T, steps []byte) {
		v := version()
		v.Limits = function.Limits{CPU: 20 * time.Millisecond, Wall: 50 * time.Millisecond, HostCalls: 500}
		x := &exchange{target: "/", body: bytes.NewReader(steps)}
		_, err := runner.Run(t.Context(), prog, v, guest.Ports{KV: &store{}, Fetch: answers, Log: &lines{}}, x)
		if f := fault.Of(err); f != nil && (f.Kind == fault.Internal || f.Kind == fault.Start) {
			t.Fatalf("%x: %v", steps, f)
		}
	})
}
