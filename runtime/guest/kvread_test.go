package guest_test

import (
	"context"
	"testing"

	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// several is a store that answers for several keys.
type several struct{ *store }

func (s several) Read(ctx context.Context, ns hostcall.Namespace, keys []string, _ hostcall.ReadOptions) (out []hostcall.Result, err error) {
	for _, k := range keys {
		e, err := s.Get(ctx, ns, k)
		out = append(out, hostcall.Result{Entry: e, Err: err})
	}
	return out, nil
}

// An answer of kv_read that is kept for the next call is within the guest's memory
// limit; what is not, or is not any more once the guest has grown, is read anew.
func TestKeptAnswersCountAsMemory(t *testing.T) {
	const limit = 1 << 20 // the guest begins with 128 KiB
	for _, c := range []struct {
		name    string
		value   int
		between string
		want    int // operations
	}{
		{"there is room", 400 << 10, ``, 1},
		{"the guest grows for its buffer", 400 << 10, `(drop (memory.grow (i32.const 7)))`, 1},
		{"the guest grows beyond", 400 << 10, `(drop (memory.grow (i32.const 9))) (drop (call $response_flush))`, 2},
		{"there is none for the buffer too", 500 << 10, ``, 2},
		{"a little is kept always", 60 << 10, `(drop (memory.grow (i32.const 14))) (drop (call $response_flush))`, 1},
	} {
		kv := several{&store{}}
		if _, err := kv.Put(t.Context(), hostNamespace(version()), "k", make([]byte, c.value), putAny); err != nil {
			t.Fatal(err)
		}
		read := `(if (i32.lt_s (call $kv_read (i32.const 0) (i32.const 200) (i32.const 9) (i64.const 0) (i32.const 300) (i32.const 4)) (i32.const 0)) (then unreachable))`
		_, u, f := run(t, `(data (i32.const 200) "\01\00\00\00\01\00\00\00k")`+handle(status200+read+c.between+read),
			func(v *function.Version, p *guest.Ports, _ *exchange) { p.KV, v.Limits.MemoryBytes = kv, limit })
		if f != nil || u.KVOperations != c.want {
			t.Errorf("%s: charged for %d operations, want %d; %v", c.name, u.KVOperations, c.want, f)
		}
	}
}
