package cshim

// #include "shim.h"
import "C"

import (
	"fmt"
	"os"
)

// Thread is a thread of C's own that polls one instance at a time.
type Thread struct {
	p    *C.sv_thread
	done *os.File
	buf  [8]byte
}

// OpenThread starts a thread.
func OpenThread() (*Thread, error) {
	t := new(Thread)
	var done C.int
	if err := take(C.sv_thread_new(&t.p, &done)); err != nil {
		return nil, err
	}
	t.done = os.NewFile(uintptr(done), "eventfd")
	return t, nil
}

// Poll runs the guest until it does not just yield, or has used so much
// processor time in all. No thread of Go's is held meanwhile.
func (t *Thread) Poll(in Inst, cpuNanoseconds uint64) int {
	C.sv_thread_poll(t.p, in.p, C.uint64_t(cpuNanoseconds))
	t.wait()
	return int(C.sv_thread_event(t.p))
}

// End ends the guest. Free the instance all the same.
func (t *Thread) End(in Inst) {
	C.sv_thread_end(t.p, in.p)
	t.wait()
}

func (t *Thread) wait() {
	if n, err := t.done.Read(t.buf[:]); n != len(t.buf) {
		// Its guest's memory may be in use: nobody may recover from this, and give it to another.
		go func() { panic(fmt.Sprintf("a guest's thread cannot be heard: %v", err)) }()
		select {}
	}
}

// Close ends the thread.
func (t *Thread) Close() {
	C.sv_thread_free(t.p)
	_ = t.done.Close()
}
