package jail

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// verdict is what becomes of a system call.
type verdict uint32

const (
	allow  = verdict(unix.SECCOMP_RET_ALLOW)
	refuse = verdict(unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM))
	absent = verdict(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)) // libraries fall back on an older call
	kill   = verdict(unix.SECCOMP_RET_KILL_PROCESS)
)

// rule is the verdict on one system call. With when, it holds only for arguments
// that one of them describes; with others the call is refused.
type rule struct {
	nr   uint32
	then verdict
	when []match
}

// match describes arguments; all of its parts must hold.
type match []argument

// argument says that the bits of mask in argument n are want. Of an int the
// kernel looks at the low half only, and so does a mask without high bits.
type argument struct {
	n          int
	mask, want uint64
}

// is says that the int argument n is one of the values.
func is(n int, values ...uint64) []match {
	var any []match
	for _, v := range values {
		any = append(any, match{{n, 1<<32 - 1, v}})
	}
	return any
}

// Where things are in the kernel's struct seccomp_data.
const (
	offsetCall         = 0
	offsetArchitecture = 4
	offsetArguments    = 16
)

// x32 is set in the numbers of x32 calls, which have the architecture of
// ordinary ones and numbers of their own.
const x32 = 0x4000_0000

// assemble writes the filter: rules are looked at in order, the first for a call
// decides. Calls by the numbers of another architecture end the process: they
// are made only to get around a filter. The kernel remembers calls that are
// allowed whatever their arguments, so the length costs those nothing.
func assemble(rules []rule, otherwise verdict) []unix.SockFilter {
	code := []unix.SockFilter{
		load(offsetArchitecture),
		jump(unix.BPF_JEQ, unix.AUDIT_ARCH_X86_64, 1, 0),
		conclude(kill),
		load(offsetCall),
		jump(unix.BPF_JGE, x32, 0, 1),
		conclude(kill),
	}
	for _, r := range rules {
		body := r.body()
		code = append(code, jump(unix.BPF_JEQ, r.nr, 0, len(body)))
		code = append(code, body...)
	}
	return append(code, conclude(otherwise))
}

// body is what is done once the call is known. It always answers.
func (r rule) body() []unix.SockFilter {
	if r.when == nil {
		return []unix.SockFilter{conclude(r.then)}
	}
	var code []unix.SockFilter
	for _, m := range r.when {
		code = append(code, m.code(r.then)...)
	}
	return append(code, conclude(refuse))
}

// code answers then if the arguments match, and falls through behind itself if not.
func (m match) code(then verdict) []unix.SockFilter {
	type word struct{ offset, mask, want uint32 }
	var words []word
	for _, a := range m {
		at := uint32(offsetArguments + 8*a.n)
		words = append(words, word{at, uint32(a.mask), uint32(a.want)})
		if a.mask>>32 != 0 {
			words = append(words, word{at + 4, uint32(a.mask >> 32), uint32(a.want >> 32)})
		}
	}
	var code []unix.SockFilter
	for i, w := range words {
		behind := 3*(len(words)-i-1) + 1
		code = append(code, load(w.offset),
			unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: w.mask},
			jump(unix.BPF_JEQ, w.want, 0, behind))
	}
	return append(code, conclude(then))
}

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func conclude(v verdict) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: uint32(v)}
}

// jump skips yes or no instructions.
func jump(how uint16, k uint32, yes, no int) unix.SockFilter {
	if yes > 255 || no > 255 {
		panic(fmt.Sprintf("jail: a rule of %d instructions is too long for one jump", max(yes, no)))
	}
	return unix.SockFilter{Code: unix.BPF_JMP | how | unix.BPF_K, Jt: uint8(yes), Jf: uint8(no), K: k}
}
