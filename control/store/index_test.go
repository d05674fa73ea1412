package store

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The index is a map with an order: checked against a map.
func TestIndexIsAMap(t *testing.T) {
	now := time.UnixMilli(1000)
	rapid.Check(t, func(t *rapid.T) {
		x, model := newIndex(), map[string]*item{}
		key := rapid.StringOfN(rapid.SampledFrom([]rune("ab/")), 1, 4, -1)
		for seq := range uint64(rapid.IntRange(0, 60).Draw(t, "changes")) {
			it := &item{
				key: key.Draw(t, "key"), seq: seq + 1, at: int64(seq),
				op:      rapid.SampledFrom([]Op{OpPut, OpPut, OpDelete, OpExpire}).Draw(t, "op"),
				expires: rapid.SampledFrom([]int64{0, 999, 1000, 1001}).Draw(t, "expires"),
			}
			x.apply(it)
			model[it.key] = it
			if old := rapid.SampledFrom(slices.Collect(maps.Values(model))).Draw(t, "old"); true {
				x.apply(&item{key: old.key, seq: old.seq - 1}) // late: ignored
			}
		}
		checkLog(t, x, model)
		checkList(t, x, model, key.Draw(t, "prefix")[:1], key.Draw(t, "cursor"), rapid.IntRange(1, 10).Draw(t, "limit"), now)
	})
}

func checkLog(t *rapid.T, x *index, model map[string]*item) {
	after := uint64(rapid.IntRange(0, 60).Draw(t, "after"))
	var want []*item
	for _, it := range model {
		if it.seq > after {
			want = append(want, it)
		}
	}
	slices.SortFunc(want, func(a, b *item) int { return int(a.seq) - int(b.seq) })
	got, more := x.after(after, 1000, 1<<30, 0)
	if more || !slices.Equal(got, want) {
		t.Fatalf("after %d: %v (more %v), want %v", after, got, more, want)
	}
}

func checkList(t *rapid.T, x *index, model map[string]*item, prefix, cursor string, limit int, now time.Time) {
	var want []string
	for _, k := range slices.Sorted(maps.Keys(model)) {
		if it := model[k]; strings.HasPrefix(k, prefix) && k > cursor && it.op == OpPut && (it.expires == 0 || it.expires > now.UnixMilli()) {
			want = append(want, k)
		}
	}
	items, more := x.list(prefix, cursor, limit, now)
	var got []string
	for _, it := range items {
		got = append(got, it.key)
	}
	if more != (len(want) > limit) || !slices.Equal(got, want[:min(limit, len(want))]) {
		t.Fatalf("prefix %q after %q, %d: %q (more %v), want %q", prefix, cursor, limit, got, more, want)
	}
}
