package native

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/selvage-edge/selvage/sdk/abi"
)

// Pair is one name and value of a pair list.
type Pair struct{ Name, Value string }

// Head is the request head a guest reads; see sdk/abi for its layout.
type Head struct {
	Body          bool  // a body may follow
	ContentLength int64 // -1 if unknown
	Method        string
	Scheme        string
	Authority     string
	Target        string
	Protocol      string
	Metadata      []Pair
	Headers       []Pair
}

// FetchRequest is what a guest passes to fetch_start.
type FetchRequest struct {
	Method  string
	URL     string
	Headers []Pair
	Body    bool // fetch_write follows
}

// Append appends the head's encoding to b.
func (h *Head) Append(b []byte) []byte {
	var flags uint32
	if h.Body {
		flags = abi.FlagBody
	}
	b = binary.LittleEndian.AppendUint32(b, flags)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.ContentLength))
	for _, s := range [...]string{h.Method, h.Scheme, h.Authority, h.Target, h.Protocol} {
		b = AppendString(b, s)
	}
	return AppendPairs(AppendPairs(b, h.Metadata), h.Headers)
}

// DecodeHead reads a request head; b must hold nothing else.
func DecodeHead(b []byte) (Head, error) {
	r := reader{rest: string(b)}
	h := Head{Body: r.u32()&abi.FlagBody != 0, ContentLength: int64(r.u64())}
	for _, s := range [...]*string{&h.Method, &h.Scheme, &h.Authority, &h.Target, &h.Protocol} {
		*s = r.str()
	}
	h.Metadata, h.Headers = r.pairs(), r.pairs()
	return h, r.end("request head")
}

// AppendString appends a string: its length and its bytes.
func AppendString(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
}

// AppendPairs appends a pair list.
func AppendPairs(b []byte, pairs []Pair) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(pairs)))
	for _, p := range pairs {
		b = AppendString(AppendString(b, p.Name), p.Value)
	}
	return b
}

// DecodePairs reads a pair list; b must hold nothing else. Nothing in the
// result points into b.
func DecodePairs(b []byte) ([]Pair, error) {
	r := reader{rest: string(b)}
	pairs := r.pairs()
	return pairs, r.end("pair list")
}

// PairReader reads a pair list one by one, without keeping it.
type PairReader struct {
	r    reader
	left uint32
}

// ReadPairs begins to read a pair list; b must hold nothing else. It is copied
// once: nothing that comes out points into it.
func ReadPairs(b []byte) PairReader {
	p := PairReader{r: reader{rest: string(b)}}
	p.left = p.r.count()
	return p
}

// Len is how many pairs are to come, if the list is well-formed.
func (p *PairReader) Len() int { return int(p.left) }

// Next returns the next pair; false at the end of the list or where it breaks off.
func (p *PairReader) Next() (Pair, bool) {
	if p.left == 0 {
		return Pair{}, false
	}
	p.left--
	pair := Pair{p.r.str(), p.r.str()}
	if p.r.short {
		p.left = 0
		return Pair{}, false
	}
	return pair, true
}

// Err says what was wrong with the list, once Next has returned false.
func (p *PairReader) Err() error { return p.r.end("pair list") }

// DecodeFetchRequest reads the argument of fetch_start; b must hold nothing else.
func DecodeFetchRequest(b []byte) (FetchRequest, error) {
	r := reader{rest: string(b)}
	f := FetchRequest{Method: r.str(), URL: r.str(), Headers: r.pairs()}
	f.Body = r.u32()&abi.FlagBody != 0
	return f, r.end("fetch request")
}

// appendFetchHead appends a fetch response head.
func appendFetchHead(b []byte, status int, length int64, headers []Pair) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(status))
	b = binary.LittleEndian.AppendUint64(b, uint64(length))
	return AppendPairs(b, headers)
}

// reader takes values off the front of a string. The first value that is not
// there makes every later one zero; end reports it.
type reader struct {
	rest  string
	short bool
}

func (r *reader) take(n uint64) string {
	if n > uint64(len(r.rest)) {
		r.short, r.rest = true, ""
		return ""
	}
	s := r.rest[:n]
	r.rest = r.rest[n:]
	return s
}

func (r *reader) u32() uint32 {
	s := r.take(4)
	if len(s) < 4 {
		return 0
	}
	return uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
}

func (r *reader) u64() uint64 {
	low := uint64(r.u32())
	return low | uint64(r.u32())<<32
}

func (r *reader) str() string { return r.take(uint64(r.u32())) }

// minPair is the least a pair takes: two empty strings. A count that promises
// more pairs than can be there is refused before anything is allocated for it.
const minPair = 8

func (r *reader) count() uint32 {
	n := r.u32()
	if uint64(n)*minPair > uint64(len(r.rest)) {
		r.short = true
		return 0
	}
	return n
}

func (r *reader) pairs() []Pair {
	n := r.count()
	if r.short {
		return nil
	}
	pairs := make([]Pair, 0, n)
	for range n {
		pairs = append(pairs, Pair{r.str(), r.str()})
		if r.short {
			return nil
		}
	}
	return pairs
}

func (r *reader) end(what string) error {
	if r.short {
		return fmt.Errorf("native: %s: it ends before its last field", what)
	}
	if len(r.rest) > 0 {
		return fmt.Errorf("native: %s: %d bytes after its last field", what, len(r.rest))
	}
	return nil
}

// length is the i32 result of a call that copies n bytes out. No buffer of a
// 32-bit guest takes more than 2 GiB, so a longer one is said to be too large.
func length(n int) int64 {
	if n > math.MaxInt32 {
		return abi.StatusTooLarge
	}
	return int64(n)
}
