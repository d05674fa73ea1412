package guest_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/runtime/abi/wasip1"
	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/guesttest"
)

const (
	lastErrno = 76                   // notcapable, of typenames.witx
	wasiStep  = 1 + 8*engine.MaxArgs // a call's number and its arguments, 8 bytes each
	wasiInput = 4096                 // where the guest reads its body to
)

// wasiCalls is the call of preview 1 that is numbered $op, with the arguments at
// $p; with wraps the errno.
func wasiCalls(with string) string {
	var calls strings.Builder
	for i, im := range wasip1.Imports() {
		call := "(call $wasi_" + im.Name
		for k, kind := range im.Params {
			call += fmt.Sprintf(" (%s.load offset=%d (local.get $p))", kind, 1+8*k)
		}
		call += ")"
		if len(im.Results) > 0 {
			call = fmt.Sprintf(with, call)
		}
		fmt.Fprintf(&calls, "(if (i32.eq (local.get $op) (i32.const %d)) (then %s))\n", i, call)
	}
	return calls.String()
}

// caller is a guest that does the calls of preview 1 in its request's body, and
// traps when one answers no errno of the specification.
func caller() string {
	check := fmt.Sprintf("(if (i32.gt_u %%s (i32.const %d)) (then (unreachable)))", lastErrno)
	return handle(fmt.Sprintf(`(local $p i32) (local $end i32) (local $op i32)
		(local.set $p (i32.const %d))
		(local.set $end (i32.add (local.get $p) (call $request_read (local.get $p) (i32.const 8192))))
		(loop $next
			(if (i32.gt_u (i32.add (local.get $p) (i32.const %d)) (local.get $end)) (then (return)))
			(local.set $op (i32.load8_u (local.get $p)))
			%s
			(local.set $p (i32.add (local.get $p) (i32.const %d)))
			(br $next))`, wasiInput, wasiStep, wasiCalls(check), wasiStep))
}

// answerer is a guest that does one call and answers its errno, 4 bytes.
func answerer() string {
	return handle(fmt.Sprintf(`(local $p i32) (local $op i32)
		(local.set $p (i32.const %d))
		(drop (call $request_read (local.get $p) (i32.const 8192)))
		(local.set $op (i32.load8_u (local.get $p)))
		%s
		(drop (call $response_head (i32.const 200) (i32.const 0) (i32.const 0)))
		(drop (call $response_write (i32.const 16) (i32.const 4)))`, wasiInput, wasiCalls("(i32.store (i32.const 16) %s)")))
}

// wasiCall is one call as caller reads it.
func wasiCall(op int, args ...uint64) []byte {
	b := append(make([]byte, 0, wasiStep), byte(op))
	for _, a := range args {
		b = binary.LittleEndian.AppendUint64(b, a)
	}
	return b[:wasiStep]
}

// FuzzPreview1 has a guest make any calls of preview 1 with any arguments, over
// a memory that the input fills: each answers an errno or ends the guest for a
// reason of the catalogue that is the guest's.
func FuzzPreview1(f *testing.F) {
	for i := range wasip1.Imports() {
		f.Add(wasiCall(i))
		f.Add(wasiCall(i, 1, wasiInput, 1, wasiInput+64, 8))
		f.Add(wasiCall(i, wasiInput, 8, 1, 131072-4, 1<<63))
	}
	prog := guesttest.Program(f, guesttest.Guest(f, caller()))
	none := fetcher(func(context.Context, *http.Request) (*http.Response, error) {
		return respond(strings.NewReader("")), nil
	})
	f.Fuzz(func(t *testing.T, calls []byte) {
		v := version()
		v.Limits = function.Limits{CPU: 20 * time.Millisecond, Wall: 50 * time.Millisecond, HostCalls: 500}
		x := &exchange{target: "/", body: bytes.NewReader(calls)}
		_, err := runner.Run(t.Context(), prog, v, guest.Ports{KV: &store{}, Fetch: none, Log: &lines{}}, x)
		f := fault.Of(err)
		if f == nil {
			return
		}
		switch f.Kind {
		case fault.CPU, fault.Wall, fault.Calls, fault.Exit, fault.NoResponse:
		default:
			t.Fatalf("%x: %v", calls, f)
		}
	})
}

// TestPreview1 asks every call that answers by its arguments alone, through a
// guest over the real import table. Numbers are of typenames.witx.
func TestPreview1(t *testing.T) {
	const (
		success, badf, fault_, inval, notdir, notsock, notsup, spipe, notcapable = 0, 8, 21, 28, 54, 57, 58, 70, 76
		free, outside                                                            = 16384, 131072
	)
	op := map[string]int{}
	for i, im := range wasip1.Imports() {
		op[im.Name] = i
	}
	asked := map[string]bool{"proc_exit": true} // it has no answer
	type row struct {
		name  string
		args  []uint64
		errno uint32
	}
	rows := []row{
		{"args_get", []uint64{free, free + 64}, success}, {"args_sizes_get", []uint64{free, free + 4}, success},
		{"args_sizes_get", []uint64{outside, free}, fault_},
		{"environ_get", []uint64{free, free + 4096}, success}, {"environ_sizes_get", []uint64{free, free + 4}, success},
		{"clock_res_get", []uint64{0, free}, success}, {"clock_res_get", []uint64{1, free}, success},
		{"clock_res_get", []uint64{2, free}, success}, {"clock_res_get", []uint64{3, free}, success},
		{"clock_res_get", []uint64{4, free}, inval}, {"clock_res_get", []uint64{0, outside - 7}, fault_},
		{"clock_time_get", []uint64{0, 1, free}, success}, {"clock_time_get", []uint64{3, 0, free}, success},
		{"clock_time_get", []uint64{4, 0, free}, inval}, {"clock_time_get", []uint64{1, 0, outside}, fault_},
		{"random_get", []uint64{free, 64}, success}, {"random_get", []uint64{free, 0}, success},
		{"random_get", []uint64{outside - 1, 2}, fault_},
		{"poll_oneoff", []uint64{free, free, 0, free}, inval}, {"poll_oneoff", []uint64{outside - 47, free, 1, free}, fault_},
		{"sched_yield", nil, success}, {"proc_raise", []uint64{6}, notsup},
		{"fd_write", []uint64{1, free, 0, free}, success}, {"fd_write", []uint64{0, free, 0, free}, badf}, {"fd_write", []uint64{3, free, 0, free}, badf},
		{"fd_read", []uint64{0, free, 0, free}, success}, {"fd_read", []uint64{1, free, 0, free}, badf},
		{"fd_close", []uint64{1}, success}, {"fd_close", []uint64{3}, badf},
		{"fd_prestat_get", []uint64{1, free}, badf}, {"fd_prestat_get", []uint64{3, free}, badf},
		{"fd_prestat_dir_name", []uint64{3, free, 8}, badf},
		{"fd_fdstat_set_flags", []uint64{1, 31}, success}, {"fd_fdstat_set_flags", []uint64{1, 32}, inval},
		{"fd_fdstat_set_rights", []uint64{3, 0, 0}, badf}, {"fd_fdstat_set_rights", []uint64{1, 1 << 6, 0}, success},
		{"fd_fdstat_set_rights", []uint64{1, 1 << 1, 0}, notcapable}, {"fd_fdstat_set_rights", []uint64{1, 0, 1}, notcapable},
		{"fd_renumber", []uint64{3, 1}, badf}, {"fd_renumber", []uint64{1, 3}, badf}, {"fd_renumber", []uint64{1, 2}, success}, {"fd_renumber", []uint64{2, 2}, success},
		{"fd_filestat_set_times", []uint64{3, 0, 0, 0}, badf}, {"fd_filestat_set_times", []uint64{1, 0, 0, 0}, notcapable},
		{"path_symlink", []uint64{free, 1, 3, free, 1}, badf}, {"path_symlink", []uint64{free, 1, 0, free, 1}, notdir},
	}
	for errno, names := range map[uint32]string{
		success: "fd_fdstat_get fd_filestat_get fd_fdstat_set_flags",
		spipe:   "fd_seek fd_tell fd_pread fd_pwrite fd_advise fd_allocate",
		inval:   "fd_sync fd_datasync fd_filestat_set_size",
		notdir: "fd_readdir path_create_directory path_filestat_get path_filestat_set_times path_link path_open " +
			"path_readlink path_remove_directory path_rename path_unlink_file",
		notsock: "sock_accept sock_recv sock_send sock_shutdown",
	} {
		for _, name := range strings.Fields(names) {
			second := uint64(free)
			if name == "fd_fdstat_set_flags" {
				second = 0
			}
			rows = append(rows, row{name, []uint64{0, second}, errno}, row{name, []uint64{2, second}, errno},
				row{name, []uint64{3, second}, badf}, row{name, []uint64{1<<32 - 1, second}, badf})
		}
	}
	answering := guesttest.Program(t, guesttest.Guest(t, answerer()))
	for _, r := range rows {
		asked[r.name] = true
		x := &exchange{target: "/", body: bytes.NewReader(wasiCall(op[r.name], r.args...))}
		if _, err := runner.Run(t.Context(), answering, version(), guest.Ports{KV: &store{}, Log: &lines{}}, x); err != nil {
			t.Errorf("%s%v: %v", r.name, r.args, err)
		} else if got := binary.LittleEndian.Uint32(x.out.Bytes()); got != r.errno {
			t.Errorf("%s%v: errno %d, want %d", r.name, r.args, got, r.errno)
		}
	}
	for name := range op {
		if !asked[name] {
			t.Errorf("%s is not asked", name)
		}
	}
}
