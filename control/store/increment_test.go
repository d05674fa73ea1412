package store

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

func TestIncrementCountsEveryone(t *testing.T) {
	s := open(t)
	const counters, each = 16, 25
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[int64]bool{}
	for range counters {
		wg.Go(func() {
			for range each {
				n, _, err := s.KV().Increment(t.Context(), links, "n", 3)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if seen[n] {
					t.Errorf("%d was answered twice", n)
				}
				seen[n] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	e, err := s.KV().Get(t.Context(), links, "n")
	if err != nil || string(e.Value) != strconv.Itoa(3*counters*each) {
		t.Fatalf("%q, %v; want %d", e.Value, err, 3*counters*each)
	}
}

// A put between an increment's read and its write is not undone.
func TestIncrementAmongWriters(t *testing.T) {
	s := open(t)
	mustPut(t, s, links, "n", "0", whenever)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 50 {
			mustPut(t, s, links, "n", strconv.Itoa(1000*(i+1)), whenever)
		}
	})
	for range 50 {
		if _, _, err := s.KV().Increment(t.Context(), links, "n", 1); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	e, err := s.KV().Get(t.Context(), links, "n")
	if n, _ := strconv.Atoi(string(e.Value)); err != nil || n < 50000 || n > 50050 {
		t.Fatalf("%q, %v", e.Value, err)
	}
}

func TestIncrementKeepsWhatIsBesideTheNumber(t *testing.T) {
	s := open(t)
	o := hostcall.PutOptions{TTL: time.Hour, Metadata: []byte("about"), IfRevision: hostcall.AnyRevision}
	mustPut(t, s, links, "n", "-7", o)
	before, err := s.KV().Get(t.Context(), links, "n")
	if err != nil {
		t.Fatal(err)
	}
	n, rev, err := s.KV().Increment(t.Context(), links, "n", -3)
	after, err2 := s.KV().Get(t.Context(), links, "n")
	if err != nil || err2 != nil || n != -10 || string(after.Value) != "-10" || after.Revision != rev ||
		string(after.Metadata) != "about" || !after.Expires.Equal(before.Expires) {
		t.Fatalf("%d, %v; %+v, %v; was %+v", n, err, after, err2, before)
	}
}

func TestIncrementRefuses(t *testing.T) {
	s := open(t)
	for value, c := range map[string]struct {
		delta int64
		want  error
	}{
		"":                        {1, hostcall.ErrNotNumber},
		"1.5":                     {1, hostcall.ErrNotNumber},
		" 1":                      {1, hostcall.ErrNotNumber},
		"1e3":                     {1, hostcall.ErrNotNumber},
		fmt.Sprint(math.MaxInt64): {1, hostcall.ErrOverflow},
		fmt.Sprint(math.MinInt64): {-1, hostcall.ErrOverflow},
	} {
		mustPut(t, s, links, "n", value, whenever)
		if n, _, err := s.KV().Increment(t.Context(), links, "n", c.delta); !errors.Is(err, c.want) || !errors.Is(err, hostcall.ErrInvalid) {
			t.Errorf("%q and %d: %d, %v; want %v", value, c.delta, n, err, c.want)
		}
		if e, _ := s.KV().Get(t.Context(), links, "n"); string(e.Value) != value {
			t.Errorf("%q became %q", value, e.Value)
		}
	}
	if _, err := s.KV().Delete(t.Context(), links, "n", hostcall.AnyRevision); err != nil {
		t.Fatal(err)
	}
	if n, _, err := s.KV().Increment(t.Context(), links, "n", 5); n != 5 || err != nil {
		t.Errorf("after a deletion: %d, %v", n, err)
	}
}

func TestMetadataGoesWithItsValue(t *testing.T) {
	s := open(t)
	metadata := bytes.Repeat([]byte{0, 255, '\r', '\n'}, hostcall.MaxMetadataBytes/4)
	rev := mustPut(t, s, links, "k", "v", hostcall.PutOptions{Metadata: metadata, IfRevision: hostcall.AnyRevision})
	if e, err := s.KV().Get(t.Context(), links, "k"); err != nil || !bytes.Equal(e.Metadata, metadata) {
		t.Errorf("get: %q, %v", e.Metadata, err)
	}
	if keys, _, err := s.KV().List(t.Context(), links, "", "", 10); err != nil || len(keys) != 1 || !bytes.Equal(keys[0].Metadata, metadata) {
		t.Errorf("list: %v, %v", keys, err)
	}
	if p, err := s.Read(t.Context(), KVLog(links), rev-1, page); err != nil || len(p.Changes) != 1 || !bytes.Equal(p.Changes[0].Metadata, metadata) {
		t.Errorf("its change: %+v, %v", p, err)
	}
	mustPut(t, s, links, "k", "v", whenever)
	if e, err := s.KV().Get(t.Context(), links, "k"); err != nil || e.Metadata != nil {
		t.Errorf("a value put without: %q, %v", e.Metadata, err)
	}
	_, err := s.KV().Put(t.Context(), links, "k", nil, hostcall.PutOptions{Metadata: append(metadata, 0), IfRevision: hostcall.AnyRevision})
	if !errors.Is(err, hostcall.ErrTooLarge) {
		t.Errorf("a byte more: %v", err)
	}
}

func TestReadAnswersForEachKey(t *testing.T) {
	s := open(t)
	kv, ctx := s.KV(), t.Context()
	one, three := mustPut(t, s, links, "1", "one", whenever), mustPut(t, s, links, "3", "three", whenever)
	got, err := kv.Read(ctx, links, []string{"3", "2", "1", "3"}, hostcall.ReadOptions{Strong: true, AtLeast: three})
	if err != nil || len(got) != 4 || string(got[0].Value) != "three" || !errors.Is(got[1].Err, hostcall.ErrNotFound) ||
		string(got[2].Value) != "one" || got[2].Revision != one || got[3].Revision != three || got[1].AsOf < three {
		t.Fatalf("%+v, %v", got, err)
	}
	many := make([]string, hostcall.MaxReadKeys+1)
	for i := range many {
		many[i] = "k"
	}
	for name, err := range map[string]error{
		"no keys":  second(kv.Read(ctx, links, nil, hostcall.ReadOptions{})),
		"101 keys": second(kv.Read(ctx, links, many, hostcall.ReadOptions{})),
		"a future": second(kv.Read(ctx, links, []string{"1"}, hostcall.ReadOptions{AtLeast: three + 1000})),
	} {
		if !errors.Is(err, hostcall.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	mustPut(t, s, links, "big", string(make([]byte, hostcall.MaxValueBytes)), whenever)
	if _, err := kv.Read(ctx, links, []string{"big", "big"}, hostcall.ReadOptions{}); !errors.Is(err, hostcall.ErrTooLarge) {
		t.Errorf("over the bound: %v", err)
	}
}

func second[A any](_ A, err error) error { return err }
