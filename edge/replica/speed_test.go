package replica

import (
	"bytes"
	"fmt"
	"testing"
)

// BenchmarkCatchUp takes batches as large as the log's: keys/s of a copy that is not whole.
func BenchmarkCatchUp(b *testing.B) {
	c, list := benchCopy(b), make([]Change, 4096)
	value := bytes.Repeat([]byte{'v'}, 100)
	seq := uint64(0)
	for b.Loop() {
		for i := range list {
			seq++
			list[i] = Change{Key: fmt.Sprintf("key-%012d", seq), Value: Value{Revision: seq, Value: value}}
		}
		if err := c.ApplyPage(Position{1, seq}, list, 1<<40); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(seq)/b.Elapsed().Seconds(), "keys/s")
}

// BenchmarkGet reads keys of a copy that has a hundred thousand of 100 B.
func BenchmarkGet(b *testing.B) {
	const keys = 100_000
	c := benchCopy(b)
	var list []Change
	for i := range keys {
		list = append(list, Change{Key: fmt.Sprintf("key-%012d", i), Value: Value{Revision: uint64(i + 1), Value: make([]byte, 100)}})
	}
	if err := c.Apply(Position{1, keys}, list, true); err != nil {
		b.Fatal(err)
	}
	if err := c.db.db.Flush(); err != nil {
		b.Fatal(err)
	}
	i := 0
	for b.Loop() {
		i = (i + 7919) % keys
		if _, _, found, ok := c.Get(list[i].Key); !found || !ok {
			b.Fatal(list[i].Key)
		}
	}
}

func benchCopy(b *testing.B) *Copy {
	d, _, err := Open(Config{Dir: b.TempDir(), Spare: 1})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { d.Close() })
	return d.Copy(words)
}
