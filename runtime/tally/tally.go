// Package tally digests what a KV namespace holds, entry by entry and in any order.
//
// Two holders of the same entries have the same count and digest, however they came by them, and an
// entry that changes costs as much as one entry. It is a lattice hash (LtHash, 16 bits by 1024:
// Bellare and Micciancio 1997; Lewi et al. 2019): each entry's digest is spread over 1024 numbers,
// and those of all entries are added. To find another set with the same sum is to solve a lattice
// problem that is taken to be beyond 2^128; sums of fewer bits, or exclusive or, are not safe here, because
// whoever forges may choose what he adds.
package tally

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
)

// Inline is the longest value, in bytes, that is told with its change, and that copies have. Of
// longer ones a copy knows that they are there.
const Inline = 64 << 10

// Entry is a key and what it has.
type Entry struct {
	Key      string
	Revision uint64
	Expires  int64 // Unix milliseconds; 0: never
	Metadata []byte
	Sum      [32]byte // SHA-256 of the value; zero for one over Inline
	Large    bool     // the value is over Inline
}

// Bytes is how much of the entry a copy has: key, metadata, and a value of so many bytes, if that is not Large.
func (e *Entry) Bytes(value int) uint64 {
	if e.Large {
		value = 0
	}
	return uint64(len(e.Key) + len(e.Metadata) + value)
}

const words = 256 // of four numbers each

// Tally is a set of entries; the zero Tally is the empty one. It is not for several goroutines at once.
type Tally struct {
	sums    [words]uint64
	entries uint64
	spread  [8 * words]byte // of the entry at hand
	encoded []byte
}

// Add takes an entry in. One that is there already counts twice.
func (t *Tally) Add(e *Entry) {
	t.expand(e)
	t.entries++
	for i := range t.sums {
		t.sums[i] = add(t.sums[i], binary.LittleEndian.Uint64(t.spread[8*i:]))
	}
}

// Remove takes an entry out that was added.
func (t *Tally) Remove(e *Entry) {
	t.expand(e)
	t.entries--
	for i := range t.sums {
		t.sums[i] = sub(t.sums[i], binary.LittleEndian.Uint64(t.spread[8*i:]))
	}
}

// Entries is how many there are.
func (t *Tally) Entries() uint64 { return t.entries }

// Sum is the digest of the entries, and of how many they are.
func (t *Tally) Sum() [32]byte {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, 8+8*words), t.entries)
	for _, s := range t.sums {
		b = binary.LittleEndian.AppendUint64(b, s)
	}
	return sha256.Sum256(b)
}

// high is the upper bit of each of the four numbers of a word: what it carries must not reach the next.
const high = 0x8000_8000_8000_8000

func add(a, b uint64) uint64 { return (a&^high + b&^high) ^ (a^b)&high }
func sub(a, b uint64) uint64 { return (a | high - b&^high) ^ (a^^b)&high }

// expand spreads the entry. AES in counter mode under the digest as key stands for the random
// function that LtHash wants: it takes a quarter of SHAKE128's time, and a catch-up has a million entries.
func (t *Tally) expand(e *Entry) {
	t.encoded = e.append(t.encoded[:0])
	key := sha256.Sum256(t.encoded)
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // 32 bytes are a key
	}
	clear(t.spread[:])
	var zero [aes.BlockSize]byte
	cipher.NewCTR(block, zero[:]).XORKeyStream(t.spread[:], t.spread[:])
}

// append writes the entry in the one way that it has.
func (e *Entry) append(b []byte) []byte {
	b = append(b, "selvage tally 1\x00"...)
	b = binary.LittleEndian.AppendUint64(b, e.Revision)
	b = binary.LittleEndian.AppendUint64(b, uint64(e.Expires))
	if e.Large {
		b = append(b, 1)
	} else {
		b = append(append(b, 0), e.Sum[:]...)
	}
	b = append(binary.LittleEndian.AppendUint32(b, uint32(len(e.Key))), e.Key...)
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(e.Metadata))), e.Metadata...)
}
