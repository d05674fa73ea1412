package guest_test

import (
	"testing"

	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/guesttest"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// getsText makes a call 900 times, of each of the two kinds.
var getsText = map[string]string{
	"get":   nineHundred(`(drop (call $kv_get (local.get $ns) (i32.const 100) (i32.const 1) (i32.const 1024) (i32.const 1024) (i32.const 512)))`),
	"empty": nineHundred(`(drop (call $sleep (i64.const 0)))`),
}

func nineHundred(call string) string {
	return kvText("k", `(i32.store (i32.const 900) (i32.const 900)) (loop $l `+call+`
		(i32.store (i32.const 900) (i32.sub (i32.load (i32.const 900)) (i32.const 1)))
		(br_if $l (i32.load (i32.const 900))))`)
}

// gets returns what runs such a guest once.
func gets(tb testing.TB, text string) func() {
	tb.Helper()
	prog := guesttest.Program(tb, guesttest.Guest(tb, text))
	s := &store{}
	if _, err := s.Put(tb.Context(), hostcall.Namespace{Project: "p", Name: "data"}, "k", make([]byte, 100), hostcall.PutOptions{IfRevision: hostcall.AnyRevision}); err != nil {
		tb.Fatal(err)
	}
	v, ports := version(), guest.Ports{KV: s}
	return func() {
		if _, err := runner.Run(tb.Context(), prog, v, ports, &exchange{}); err != nil {
			tb.Fatal(err)
		}
	}
}

func BenchmarkKVGets(b *testing.B) {
	for name, text := range getsText {
		b.Run(name, func(b *testing.B) {
			run := gets(b, text)
			b.ReportAllocs()
			for b.Loop() {
				run()
			}
		})
	}
}

// A call that the host answers at once allocates nothing, nor does a read of a short key.
func TestCallsAllocateNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("short runs are those under the race detector, which allocates")
	}
	for name, text := range getsText {
		if n := testing.AllocsPerRun(10, gets(t, text)); n > 100 {
			t.Errorf("%s: %v allocations in 900 calls", name, n)
		}
	}
}
