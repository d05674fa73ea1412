package artifact

import (
	"fmt"
	"os"
	"testing"

	"github.com/selvage-edge/selvage/runtime/function"
)

// What it costs to keep one more artifact beside many.
func BenchmarkPutBesideMany(b *testing.B) {
	for _, n := range []int{0, 5000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := open(b, nil)
			for i := range n {
				if err := os.WriteFile(file(b, s, function.DigestOf(fmt.Append(nil, i))), nil, 0o600); err != nil {
					b.Fatal(err)
				}
			}
			for i := 0; b.Loop(); i++ {
				put(b, s, function.DigestOf(fmt.Append(nil, "x", i)), contents)
			}
		})
	}
}
