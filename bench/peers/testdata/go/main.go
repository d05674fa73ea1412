// A guest in standard Go without net/http: what Go itself costs.
package main

import (
	"fmt"
	"unsafe"
)

//go:wasmimport selvage_v1 response_head
func responseHead(status uint32, p unsafe.Pointer, n uint32) int32

//go:wasmimport selvage_v1 response_write
func responseWrite(p unsafe.Pointer, n uint32) int32

//go:wasmimport selvage_v1 request_read
func requestRead(p unsafe.Pointer, n uint32) int32

var seen = map[string]int{}

// start runs once, at deploy.
//
//go:wasmexport selvage_start
func start() {
	for i := range 1000 {
		seen[fmt.Sprint(i)] = i
	}
}

// pairs is one header, content-type: text/plain, as response_head takes it.
const pairs = "\x01\x00\x00\x00\x0c\x00\x00\x00content-type\x0a\x00\x00\x00text/plain"

//go:wasmexport handle
func handle() {
	var body [64]byte
	requestRead(unsafe.Pointer(&body[0]), uint32(len(body)))
	answer := fmt.Sprintf("hello, world %d\n", len(seen))
	responseHead(200, unsafe.Pointer(unsafe.StringData(pairs)), uint32(len(pairs)))
	responseWrite(unsafe.Pointer(unsafe.StringData(answer)), uint32(len(answer)))
}

func main() {}
