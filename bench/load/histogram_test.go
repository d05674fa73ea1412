package load

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestHistogram(t *testing.T) {
	var h Histogram
	if h.Quantile(.5) != 0 || h.Mean() != 0 || h.Max() != 0 {
		t.Error("an empty histogram is not zero")
	}
	for i := 1; i <= 10_000; i++ {
		h.Record(time.Duration(i) * time.Microsecond)
	}
	for q, want := range map[float64]time.Duration{0: time.Microsecond, .5: 5 * time.Millisecond, .99: 9900 * time.Microsecond, 1: 10 * time.Millisecond} {
		if got := h.Quantile(q); math.Abs(float64(got-want)) > .01*float64(want) {
			t.Errorf("quantile %g is %v, want %v within 1 %%", q, got, want)
		}
	}
	if h.Min() != time.Microsecond || h.Max() != 10*time.Millisecond || h.Mean() != 5000500*time.Nanosecond || h.Count() != 10_000 {
		t.Errorf("min %v, max %v, mean %v, count %d", h.Min(), h.Max(), h.Mean(), h.Count())
	}
}

// TestBuckets checks that a bucket's bound is at least the value, and within 1 %.
func TestBuckets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.Uint64Range(0, 1<<maxBits-1).Draw(t, "v")
		b := bucketOf(v)
		if up := uint64(upper(b)); up < v || float64(up-v) > .01*float64(v) {
			t.Fatalf("%d is in bucket %d, which ends at %d", v, b, up)
		}
		if next := bucketOf(uint64(upper(b)) + 1); next != min(b+1, nBuckets-1) {
			t.Fatalf("bucket %d ends at %d, but the next value is in %d", b, upper(b), next)
		}
	})
}

func TestMerge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOf(rapid.Int64Range(-5, 1<<45)).Draw(t, "values")
		var whole, joined Histogram
		var parts [3]Histogram
		for i, v := range values {
			whole.Record(time.Duration(v))
			parts[i%3].Record(time.Duration(v))
		}
		for i := range parts {
			joined.Merge(&parts[i])
		}
		for _, q := range []float64{0, .1, .5, .9, 1} {
			if whole.Quantile(q) != joined.Quantile(q) {
				t.Fatalf("quantile %g: %v in one, %v merged", q, whole.Quantile(q), joined.Quantile(q))
			}
		}
		if whole.Count() != joined.Count() || whole.Mean() != joined.Mean() || whole.Min() != joined.Min() || whole.Max() != joined.Max() {
			t.Fatal("merged differs")
		}
	})
}
