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

	"github.com/selvage-edge/selvage/runtime/abi/wasip1"
	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/guesttest"
)

const (
	lastErrno = 76                   // notcapable, of typenames.witx
	wasiStep  = 1 + 8*engine.MaxArgs // a call's number and its arguments, 8 bytes each
	wasiInput = 4096                 // where the guest reads its body to
)

// caller is a guest that does the calls of preview 1 in its request's body, and
// traps when one answers no errno of the specification.
func caller() string {
	var calls strings.Builder
	for i, im := range wasip1.Imports() {
		call := "(call $wasi_" + im.Name
		for k, kind := range im.Params {
			call += fmt.Sprintf(" (%s.load offset=%d (local.get $p))", kind, 1+8*k)
		}
		call += ")"
		if len(im.Results) > 0 {
			call = fmt.Sprintf("(if (i32.gt_u %s (i32.const %d)) (then (unreachable)))", call, lastErrno)
		}
		fmt.Fprintf(&calls, "(if (i32.eq (local.get $op) (i32.const %d)) (then %s))\n", i, call)
	}
	return handle(fmt.Sprintf(`(local $p i32) (local $end i32) (local $op i32)
		(local.set $p (i32.const %d))
		(local.set $end (i32.add (local.get $p) (call $request_read (local.get $p) (i32.const 8192))))
		(loop $next
			(if (i32.gt_u (i32.add (local.get $p) (i32.const %d)) (local.get $end)) (then (return)))
			(local.set $op (i32.load8_u (local.get $p)))
			%s
			(local.set $p (i32.add (local.get $p) (i32.const %d)))
			(br $next))`, wasiInput, wasiStep, calls.String(), wasiStep))
}

// wasiCall is one call as caller reads it.
func wasiCall(op int, args ...uint64) []byte {
	b := append(make([]byte, 0, wasiStep), byte(op))
	for _, a := range args {
		b = binary.LittleEndian.AppendUint64(b, a)
	}
	return b[:wasiStep]
}

// FuzzPreview1 has a guest make any calls of preview 1 with any arguments, over
// a memory that the input fills: each answers an errno or ends the guest for a
// reason of the catalogue that is the guest's.
func FuzzPreview1(f *testing.F) {
	for i := range wasip1.Imports() {
		f.Add(wasiCall(i))
		f.Add(wasiCall(i, 1, wasiInput, 1, wasiInput+64, 8))
		f.Add(wasiCall(i, wasiInput, 8, 1, 131072-4, 1<<63))
	}
	prog := guesttest.Program(f, guesttest.Guest(f, caller()))
	none := fetcher(func(context.Context, *http.Request) (*http.Response, error) {
		return respond(strings.NewReader("")), nil
	})
	f.Fuzz(func(t *testing.T, calls []byte) {
		v := version()
		v.Limits = function.Limits{CPU: 20 * time.Millisecond, Wall: 50 * time.Millisecond, HostCalls: 500}
		x := &exchange{target: "/", body: bytes.NewReader(calls)}
		_, err := runner.Run(t.Context(), prog, v, guest.Ports{KV: &store{}, Fetch: none, Log: &lines{}}, x)
		f := fault.Of(err)
		if f == nil {
			return
		}
		switch f.Kind {
		case fault.CPU, fault.Wall, fault.Calls, fault.Exit, fault.NoResponse:
		default:
			t.Fatalf("%x: %v", calls, f)
		}
	})
}
