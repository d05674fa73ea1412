package load

import (
	"math/bits"
	"time"
)

// A power of two is divided into 2^subBits buckets, so that a value is known to
// within 1/128 of itself, from a nanosecond to over an hour.
const (
	subBits  = 7
	maxBits  = 42
	nBuckets = (maxBits - subBits + 1) << subBits
)

// Histogram counts durations with a relative error below 1 %. The zero value is
// empty. It is for one goroutine; join several with Merge.
type Histogram struct {
	counts []uint64 // nil until the first value
	n      uint64
	sum    time.Duration
	lo, hi time.Duration
}

// bucketOf finds the bucket of v: the position of its highest bit chooses the
// power of two, the subBits below it the bucket within.
func bucketOf(v uint64) int {
	shift := max(bits.Len64(v)-subBits-1, 0)
	return min(shift<<subBits+int(v>>shift), nBuckets-1)
}

// upper is the largest value of a bucket.
func upper(bucket int) time.Duration {
	shift := max(bucket>>subBits-1, 0)
	return time.Duration((uint64(bucket-shift<<subBits)+1)<<shift - 1)
}

// Record counts d; what is below zero counts as zero.
func (h *Histogram) Record(d time.Duration) {
	d = max(d, 0)
	if h.counts == nil {
		h.counts = make([]uint64, nBuckets)
		h.lo = d
	}
	h.counts[bucketOf(uint64(d))]++
	h.n++
	h.sum += d
	h.lo, h.hi = min(h.lo, d), max(h.hi, d)
}

// Merge adds all of o.
func (h *Histogram) Merge(o *Histogram) {
	if o.n == 0 {
		return
	}
	if h.counts == nil {
		h.counts = make([]uint64, nBuckets)
		h.lo = o.lo
	}
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.n += o.n
	h.sum += o.sum
	h.lo, h.hi = min(h.lo, o.lo), max(h.hi, o.hi)
}

// Count is how many durations were recorded.
func (h *Histogram) Count() uint64 { return h.n }

// Min is the exact smallest, 0 if there is none.
func (h *Histogram) Min() time.Duration { return h.lo }

// Max is the exact largest.
func (h *Histogram) Max() time.Duration { return h.hi }

// Mean is the exact mean.
func (h *Histogram) Mean() time.Duration {
	if h.n == 0 {
		return 0
	}
	return h.sum / time.Duration(h.n)
}

// Quantile returns a duration that at least the fraction q (0 to 1) of the
// recorded ones do not exceed: Quantile(0.99) is the 99th percentile.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := max(uint64(q*float64(h.n)+0.5), 1)
	var seen uint64
	for i, n := range h.counts {
		if seen += n; seen >= rank {
			return min(max(upper(i), h.lo), h.hi)
		}
	}
	return h.hi
}
