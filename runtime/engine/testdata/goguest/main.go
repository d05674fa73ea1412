// The standard Go guest of the engine's tests.
package main

import (
	"fmt"
	"os"
	"strings"
	"time"
	"unsafe"
)

//go:wasmimport selvage_v1 request_head
func requestHead(p unsafe.Pointer, n uint32) int32

//go:wasmimport selvage_v1 response_write
func responseWrite(p unsafe.Pointer, n uint32) int32

//go:wasmimport test wait
func wait(n uint32) uint32

var seen = map[string]int{}

func init() {
	for i := range 1000 {
		seen[fmt.Sprint(i)] = i
	}
}

//go:wasmexport handle
func handle() {
	head := make([]byte, 64)
	n := requestHead(unsafe.Pointer(&head[0]), uint32(len(head)))
	verb, rest, _ := strings.Cut(string(head[:n]), " ")
	switch verb {
	case "panic":
		panic(rest)
	case "exit":
		os.Exit(3)
	case "sleep":
		from := time.Now()
		time.Sleep(3 * time.Millisecond)
		rest = fmt.Sprint(time.Since(from) >= 3*time.Millisecond)
	case "alloc":
		var all [][]byte
		for range 1 << 20 {
			all = append(all, make([]byte, 1<<20))
		}
		rest = fmt.Sprint(len(all))
	case "deep":
		rest = fmt.Sprint(deep(1 << 30))
	case "wait":
		rest = fmt.Sprint(wait(7))
	}
	fmt.Println("args", os.Args, os.Getenv("NAME"))
	body := fmt.Sprintf("%s %d", rest, len(seen))
	responseWrite(unsafe.Pointer(unsafe.StringData(body)), uint32(len(body)))
}

func deep(n int) int {
	if n == 0 {
		return 0
	}
	return deep(n-1) + n
}

func main() {}
