package tally

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"testing"
)

func entry(i int) *Entry {
	return &Entry{Key: fmt.Sprint("key ", i), Revision: uint64(i + 1), Sum: sha256.Sum256([]byte{byte(i)})}
}

// The order of what is added, and what was there meanwhile, leave no trace.
func TestOrderDoesNotCount(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var a, b Tally
	for i := range 100 {
		a.Add(entry(i))
	}
	for _, i := range r.Perm(150) {
		b.Add(entry(i))
	}
	for _, i := range r.Perm(50) {
		b.Remove(entry(100 + i))
	}
	if a.Sum() != b.Sum() || a.Entries() != 100 || b.Entries() != 100 {
		t.Errorf("%d and %d entries, %x and %x", a.Entries(), b.Entries(), a.Sum(), b.Sum())
	}
	for i := range 100 {
		a.Remove(entry(i))
	}
	if a.Sum() != new(Tally).Sum() {
		t.Error("what was emptied is not empty")
	}
}

// Every field counts, and where one ends.
func TestEveryFieldCounts(t *testing.T) {
	seen := map[[32]byte]string{}
	try := func(what string, list ...*Entry) {
		var s Tally
		for _, e := range list {
			s.Add(e)
		}
		if other, twice := seen[s.Sum()]; twice {
			t.Errorf("%s and %s have one digest", what, other)
		}
		seen[s.Sum()] = what
	}
	base := Entry{Key: "k", Revision: 1, Expires: 1, Metadata: []byte("m"), Sum: [32]byte{1}}
	with := func(change func(*Entry)) *Entry {
		e := base
		change(&e)
		return &e
	}
	try("nothing")
	try("one", &base)
	try("it twice", &base, &base)
	try("key", with(func(e *Entry) { e.Key = "l" }))
	try("revision", with(func(e *Entry) { e.Revision = 2 }))
	try("expiry", with(func(e *Entry) { e.Expires = 2 }))
	try("metadata", with(func(e *Entry) { e.Metadata = []byte("n") }))
	try("no metadata", with(func(e *Entry) { e.Metadata = nil }))
	try("value", with(func(e *Entry) { e.Sum = [32]byte{2} }))
	try("large", with(func(e *Entry) { e.Large = true }))
	try("key into metadata", with(func(e *Entry) { e.Key, e.Metadata = "km", nil }))
	var many []*Entry
	for range 1 << 16 { // what comes as often as a number has values must not vanish
		many = append(many, &base)
	}
	try("65536 times", many...)
}

func TestNumbersDoNotTouch(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 10_000 {
		a, b := r.Uint64(), r.Uint64()
		var sum, diff uint64
		for i := 0; i < 64; i += 16 {
			sum |= uint64(uint16(a>>i)+uint16(b>>i)) << i
			diff |= uint64(uint16(a>>i)-uint16(b>>i)) << i
		}
		if add(a, b) != sum || sub(a, b) != diff {
			t.Fatalf("%x and %x: %x, %x; want %x, %x", a, b, add(a, b), sub(a, b), sum, diff)
		}
	}
}

// A digest is compared between versions: it must stay as it is.
func TestDigestStays(t *testing.T) {
	var s Tally
	s.Add(&Entry{Key: "key", Revision: 7, Expires: 8, Metadata: []byte("meta"), Sum: sha256.Sum256([]byte("value"))})
	s.Add(&Entry{Key: "large", Revision: 9, Large: true})
	got := s.Sum()
	if want := "89b52ef74d124b116d9aa645cb796a1879a55b3ae86dd45272a16cf5c9fc9e5f"; hex.EncodeToString(got[:]) != want {
		t.Errorf("%x, want %s", got, want)
	}
}

func BenchmarkAdd(b *testing.B) {
	var s Tally
	e := entry(1)
	for b.Loop() {
		s.Add(e)
	}
}
