package guest_test

import (
	"testing"

	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/guesttest"
)

func BenchmarkRun(b *testing.B) {
	for name, body := range map[string]string{
		"hello":   handle(status200),
		"kv_open": handle(`(drop (call $kv_open (i32.const 0) (i32.const 1)))` + status200),
	} {
		b.Run(name, func(b *testing.B) {
			prog := guesttest.Program(b, guesttest.Guest(b, body))
			v, ports := version(), guest.Ports{KV: &store{}}
			b.ReportAllocs()
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					if _, err := runner.Run(b.Context(), prog, v, ports, &exchange{}); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}
