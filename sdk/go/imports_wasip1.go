package edge

import "unsafe"

// The native calls, as sdk/abi states them. Pointers are borrowed for the call.

//go:wasmimport selvage_v1 request_head
//go:noescape
func hostRequestHead(buf unsafe.Pointer, size uint32) int32

//go:wasmimport selvage_v1 request_read
//go:noescape
func hostRequestRead(buf unsafe.Pointer, size uint32) int32

//go:wasmimport selvage_v1 response_head
//go:noescape
func hostResponseHead(status uint32, headers unsafe.Pointer, size uint32) int32

//go:wasmimport selvage_v1 response_write
//go:noescape
func hostResponseWrite(p unsafe.Pointer, size uint32) int32

//go:wasmimport selvage_v1 response_flush
func hostResponseFlush() int32

//go:wasmimport selvage_v1 request_trailers
//go:noescape
func hostRequestTrailers(buf unsafe.Pointer, size uint32) int32

//go:wasmimport selvage_v1 response_trailers
//go:noescape
func hostResponseTrailers(p unsafe.Pointer, size uint32) int32

//go:wasmimport selvage_v1 log
//go:noescape
func hostLog(level int32, p unsafe.Pointer, size uint32) int32

//go:wasmimport selvage_v1 random
//go:noescape
func hostRandom(p unsafe.Pointer, size uint32) int32

//go:wasmimport selvage_v1 environment
//go:noescape
func hostEnvironment(buf unsafe.Pointer, size uint32) int32

//go:wasmimport selvage_v1 kv_open
//go:noescape
func hostKVOpen(name unsafe.Pointer, size uint32) int32

//go:wasmimport selvage_v1 kv_get
//go:noescape
func hostKVGet(ns int32, key unsafe.Pointer, keySize uint32, buf unsafe.Pointer, size uint32, entry unsafe.Pointer) int32

//go:wasmimport selvage_v1 kv_ask
//go:noescape
func hostKVAsk(ns int32, key unsafe.Pointer, keySize uint32) int32

//go:wasmimport selvage_v1 kv_take
//go:noescape
func hostKVTake(handle int32, buf unsafe.Pointer, size uint32, entry unsafe.Pointer) int32

//go:wasmimport selvage_v1 kv_read
//go:noescape
func hostKVRead(ns int32, keys unsafe.Pointer, keysSize uint32, atLeast int64, buf unsafe.Pointer, size uint32) int32

//go:wasmimport selvage_v1 kv_write
//go:noescape
func hostKVWrite(ns int32, key unsafe.Pointer, keySize uint32, value unsafe.Pointer, size uint32, metadata unsafe.Pointer, metadataSize uint32, ttlMS, ifRevision int64) int64

//go:wasmimport selvage_v1 kv_increment
//go:noescape
func hostKVIncrement(ns int32, key unsafe.Pointer, keySize uint32, delta int64, sum unsafe.Pointer) int64

//go:wasmimport selvage_v1 kv_delete
//go:noescape
func hostKVDelete(ns int32, key unsafe.Pointer, keySize uint32, ifRevision int64) int64

//go:wasmimport selvage_v1 kv_keys
//go:noescape
func hostKVKeys(ns int32, prefix unsafe.Pointer, prefixSize uint32, cursor unsafe.Pointer, cursorSize uint32, limit uint32, buf unsafe.Pointer, size uint32) int32

//go:wasmimport selvage_v1 fetch_start
//go:noescape
func hostFetchStart(request unsafe.Pointer, size uint32) int32

//go:wasmimport selvage_v1 fetch_write
//go:noescape
func hostFetchWrite(handle int32, p unsafe.Pointer, size uint32) int32

//go:wasmimport selvage_v1 fetch_head
//go:noescape
func hostFetchHead(handle int32, buf unsafe.Pointer, size uint32) int32

//go:wasmimport selvage_v1 fetch_read
//go:noescape
func hostFetchRead(handle int32, buf unsafe.Pointer, size uint32) int32

//go:wasmimport selvage_v1 fetch_trailers
//go:noescape
func hostFetchTrailers(handle int32, buf unsafe.Pointer, size uint32) int32

//go:wasmimport selvage_v1 wait
//go:noescape
func hostWait(list unsafe.Pointer, count uint32, nanoseconds int64) int32

//go:wasmimport selvage_v1 fetch_close
func hostFetchClose(handle int32) int32

// of returns a call's pointer and length for b.
func of(b []byte) (unsafe.Pointer, uint32) {
	return unsafe.Pointer(unsafe.SliceData(b)), uint32(len(b))
}

// ofString is of for a string.
func ofString(s string) (unsafe.Pointer, uint32) {
	return unsafe.Pointer(unsafe.StringData(s)), uint32(len(s))
}

// scratch is where the host puts what is copied out at once. There is one thread
// and no call yields between the host's write and the copy.
var scratch = make([]byte, 8<<10)

// gather makes a call that answers with the length it needs, and writes nothing
// when that is more than it was given.
func gather(call func(buf unsafe.Pointer, size uint32) int32) (string, error) {
	for {
		n := call(of(scratch))
		if err := failure(n); err != nil {
			return "", err
		}
		if int(n) <= len(scratch) {
			return string(scratch[:n]), nil
		}
		scratch = make([]byte, n)
	}
}
