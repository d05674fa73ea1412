// Package scantest builds small, odd and hostile modules for tests.
package scantest

import "encoding/binary"

// U is n as an unsigned LEB128 number.
func U(n int) []byte { return binary.AppendUvarint(nil, uint64(n)) }

// S is n as a signed LEB128 number.
func S(n int64) (b []byte) {
	for {
		c := byte(n & 0x7f)
		n >>= 7
		if n == 0 && c&0x40 == 0 || n == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

// Join is all of them, one after the other.
func Join(parts ...[]byte) (b []byte) {
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// Sized is b with its length before it.
func Sized(b []byte) []byte { return append(U(len(b)), b...) }

// Name is a name.
func Name(s string) []byte { return Sized([]byte(s)) }

// Vec is a list: how many, and each.
func Vec(items ...[]byte) []byte { return Join(U(len(items)), Join(items...)) }

// Repeat is a list of n times the same.
func Repeat(n int, item []byte) []byte {
	b := U(n)
	for range n {
		b = append(b, item...)
	}
	return b
}

// Section is one section.
func Section(id byte, body []byte) []byte { return append([]byte{id}, Sized(body)...) }

// Custom is a custom section.
func Custom(name string, body []byte) []byte { return Section(0, Join(Name(name), body)) }

// Module is a core module of these sections.
func Module(sections ...[]byte) []byte {
	return append([]byte("\x00asm\x01\x00\x00\x00"), Join(sections...)...)
}

// Type is a function type of these value types.
func Type(params, results []byte) []byte { return Join([]byte{0x60}, Sized(params), Sized(results)) }

// ImportFunc imports a function of type t.
func ImportFunc(module, name string, t int) []byte {
	return Join(Name(module), Name(name), []byte{0}, U(t))
}

// Export exports a thing: kind 0 function, 1 table, 2 memory, 3 global.
func Export(name string, kind byte, index int) []byte {
	return Join(Name(name), []byte{kind}, U(index))
}

// Body is a function without locals that runs code.
func Body(code ...byte) []byte { return Sized(Join([]byte{0}, code, []byte{0x0b})) }

// The sections of the smallest function the platform takes.
var (
	Types   = Section(1, Vec(Type(nil, nil)))
	Funcs   = Section(3, Vec(U(0)))
	Memory  = Section(5, Vec([]byte{0, 1}))
	Exports = Section(7, Vec(Export("memory", 2, 0), Export("handle", 0, 0)))
)

// Handle is a module whose handle runs code, which may call no import.
func Handle(code ...byte) []byte {
	return Module(Types, Funcs, Memory, Exports, Section(10, Vec(Body(code...))))
}

// Table is a module as Handle's, with a table of n elements.
func Table(n int, code ...byte) []byte {
	return Module(Types, Funcs, Section(4, Vec(Join([]byte{0x70, 0}, U(n)))), Memory, Exports, Section(10, Vec(Body(code...))))
}

// WithFunctions is a module with n more functions, all with that body.
func WithFunctions(n int, body []byte) []byte {
	return Module(Types, Section(3, Repeat(n+1, U(0))), Memory, Exports,
		Section(10, Join(U(n+1), Body(), bytesRepeat(body, n))))
}

func bytesRepeat(b []byte, n int) []byte {
	all := make([]byte, 0, n*len(b))
	for range n {
		all = append(all, b...)
	}
	return all
}

// Nested is code of n blocks, each within the one before.
func Nested(n int) []byte {
	var code []byte
	for range n {
		code = append(code, 0x02, 0x40)
	}
	for range n {
		code = append(code, 0x0b)
	}
	return code
}

// Bomb is a module of about that many bytes that passes every limit of a scan
// and is as slow to compile as we know how: functions with many values alive
// at once, across many branches.
func Bomb(bytes int) []byte {
	const values = 200
	code := Join(U(1), U(values), []byte{0x7f}) // locals: values of i32
	for round := 0; len(code) < 256<<10; round++ {
		for v := range values {
			next := U((v*7 + round) % values)
			code = Join(code, []byte{0x20}, U(v), []byte{0x20}, next, []byte{0x6c, 0x20}, next, []byte{0x6a, 0x22}, U(v),
				[]byte{0x04, 0x40, 0x20}, next, []byte{0x21}, U((v+round)%values), []byte{0x0b}) // if: local = another
		}
	}
	body := Sized(append(code, 0x0b))
	return WithFunctions(max(1, bytes/len(body)), body)
}
