package load

import (
	"fmt"
	"sort"
	"strings"
	"time"
)

// Result is what came of a load.
type Result struct {
	OK      uint64
	Failed  uint64
	Redials uint64 // connections that had to be opened again, and that could not be at first
	Bytes   uint64 // of answers' bodies

	Elapsed  time.Duration     // without the warm-up
	Statuses map[int]uint64    // of complete answers
	Errors   map[string]uint64 // by text; the distinct ones beyond maxErrors together as "others"

	Latency Histogram // of good answers, from when the request was due
	Service Histogram // of good answers, from when it was sent
}

const maxErrors = 16

// Rate is good answers in a second.
func (r *Result) Rate() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.OK) / r.Elapsed.Seconds()
}

// String is one line for people, and one for each error.
func (r *Result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d ok, %d failed, %.0f/s, p50 %v, p99 %v, max %v", r.OK, r.Failed, r.Rate(),
		r.Latency.Quantile(.5).Round(time.Microsecond), r.Latency.Quantile(.99).Round(time.Microsecond),
		r.Latency.Max().Round(time.Microsecond))
	if r.Redials > 0 {
		fmt.Fprintf(&b, ", %d redials", r.Redials)
	}
	texts := make([]string, 0, len(r.Errors))
	for text := range r.Errors {
		texts = append(texts, text)
	}
	sort.Strings(texts)
	for _, text := range texts {
		fmt.Fprintf(&b, "\n  %d times: %s", r.Errors[text], text)
	}
	return b.String()
}

// tally is one worker's part of the result.
type tally struct {
	Result
}

func (t *tally) add(a answer, err error, latency, service time.Duration) {
	t.Redials += a.redials
	if a.status > 0 {
		if t.Statuses == nil {
			t.Statuses = map[int]uint64{}
		}
		t.Statuses[a.status]++
	}
	if err != nil {
		t.Failed++
		t.fail(err.Error(), 1)
		return
	}
	t.OK++
	t.Bytes += uint64(a.bytes)
	t.Latency.Record(latency)
	t.Service.Record(service)
}

func (r *Result) fail(text string, n uint64) {
	if r.Errors == nil {
		r.Errors = map[string]uint64{}
	}
	if _, known := r.Errors[text]; !known && len(r.Errors) >= maxErrors {
		text = "others"
	}
	r.Errors[text] += n
}

// collect joins the workers' parts.
func collect(tallies []tally, elapsed time.Duration) Result {
	r := Result{Elapsed: elapsed, Statuses: map[int]uint64{}, Errors: map[string]uint64{}}
	for i := range tallies {
		t := &tallies[i]
		r.OK += t.OK
		r.Failed += t.Failed
		r.Redials += t.Redials
		r.Bytes += t.Bytes
		for status, n := range t.Statuses {
			r.Statuses[status] += n
		}
		for text, n := range t.Errors {
			r.fail(text, n)
		}
		r.Latency.Merge(&t.Latency)
		r.Service.Merge(&t.Service)
	}
	return r
}
