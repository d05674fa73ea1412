package scan

import (
	"fmt"
	"unicode/utf8"
)

// reader takes a module apart. After its first error every read gives zero and
// nothing moves, so only loops must look at err.
type reader struct {
	b   []byte
	at  int // in b
	end int // of the section or body being read; len(b) if 0
	err error
}

func (r *reader) fail(kind error, format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", kind, fmt.Sprintf(format, args...))
	}
}

// broken is fail for what no toolchain writes.
func (r *reader) broken(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s at byte %d", ErrMalformed, what, r.at)
	}
}

func (r *reader) limit() int {
	if r.end == 0 {
		return len(r.b)
	}
	return r.end
}

func (r *reader) left() int { return r.limit() - r.at }

func (r *reader) byte() byte {
	if r.err != nil || r.at >= r.limit() {
		r.broken("it ends early")
		return 0
	}
	c := r.b[r.at]
	r.at++
	return c
}

// u32 reads an unsigned LEB128 number of at most 32 bits.
func (r *reader) u32() uint32 {
	if r.err == nil && r.at < r.limit() && r.b[r.at] < 0x80 { // nearly always
		r.at++
		return uint32(r.b[r.at-1])
	}
	return uint32(r.unsigned(32))
}

func (r *reader) unsigned(bits uint) uint64 {
	var v uint64
	for shift := uint(0); shift < bits; shift += 7 {
		c := r.byte()
		if left := bits - shift; left < 7 && c>>left != 0 {
			break
		}
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return v
		}
	}
	r.broken("a number is too large")
	return 0
}

// signed reads a signed LEB128 number of at most bits bits.
func (r *reader) signed(bits uint) int64 {
	var v int64
	for shift := uint(0); shift < bits; shift += 7 {
		c := r.byte()
		if left := bits - shift; left < 7 {
			// The unused bits repeat the sign, and the number ends here.
			if sign := int8(c<<1) >> left; c >= 0x80 || sign != 0 && sign != -1 {
				break
			}
		}
		v |= int64(c&0x7f) << shift
		if c < 0x80 {
			return v << (57 - min(57, shift)) >> (57 - min(57, shift))
		}
	}
	r.broken("a number is too large")
	return 0
}

func (r *reader) skip(n int) {
	if r.err != nil || n < 0 || n > r.left() {
		r.broken("it ends early")
		return
	}
	r.at += n
}

// bytes returns n bytes of the module itself.
func (r *reader) bytes(n int) []byte {
	at := r.at
	if r.skip(n); r.err != nil {
		return nil
	}
	return r.b[at : at+n]
}

// sized returns bytes with their length before them.
func (r *reader) sized() []byte { return r.bytes(int(r.u32())) }

func (r *reader) name() string {
	n := int(r.u32())
	if r.err == nil && n > MaxName {
		r.fail(ErrLimit, "a name has %d bytes; at most %d are taken", n, MaxName)
	}
	b := r.bytes(n)
	if !utf8.Valid(b) {
		r.broken("a name is not UTF-8")
	}
	return string(b)
}

// count reads how many things follow and holds it against a limit. Each takes
// at least one byte, so a count above what is left is broken.
func (r *reader) count(limit int, things string) int {
	n := int(r.u32())
	switch {
	case r.err != nil:
		return 0
	case n > limit:
		r.fail(ErrLimit, "it has %d %s; at most %d are taken", n, things, limit)
		return 0
	case n > r.left():
		r.broken("a count is too large")
		return 0
	}
	return n
}

// more is the condition of a loop over n things.
func (r *reader) more(i, n int) bool { return r.err == nil && i < n }
