// A guest in standard Go without the SDK: net/http on both sides of it, so that
// it imports what real guests import.
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
	"unsafe"
)

//go:wasmimport selvage_v1 request_head
func requestHead(buf unsafe.Pointer, n int32) int32

//go:wasmimport selvage_v1 request_read
func requestRead(buf unsafe.Pointer, n int32) int32

//go:wasmimport selvage_v1 response_head
func responseHead(status int32, headers unsafe.Pointer, n int32) int32

//go:wasmimport selvage_v1 response_write
func responseWrite(p unsafe.Pointer, n int32) int32

//go:wasmimport selvage_v1 response_flush
func responseFlush() int32

func main() {}

func ptr(b []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(b)) }

// body is the request's.
type body struct{}

func (body) Read(p []byte) (int, error) {
	n := requestRead(ptr(p), int32(len(p)))
	if n == 0 {
		return 0, io.EOF
	}
	return int(n), nil
}

// answer is an http.ResponseWriter over the calls.
type answer struct {
	header http.Header
	sent   bool
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	a.sent = true
	var b bytes.Buffer
	write := func(n int) { _ = binary.Write(&b, binary.LittleEndian, uint32(n)) }
	write(len(a.header))
	for name, v := range a.header {
		write(len(name))
		b.WriteString(name)
		write(len(v[0]))
		b.WriteString(v[0])
	}
	responseHead(int32(status), ptr(b.Bytes()), int32(b.Len()))
}

func (a *answer) Write(p []byte) (int, error) {
	if !a.sent {
		a.WriteHeader(200)
	}
	return int(responseWrite(ptr(p), int32(len(p)))), nil
}

func (a *answer) Flush() { responseFlush() }

// head takes method, target and headers from the request head.
func head() (method, target string) {
	b := make([]byte, 4096)
	b = b[:requestHead(ptr(b), int32(len(b)))]
	b = b[12:]
	str := func() string {
		n := binary.LittleEndian.Uint32(b)
		s := string(b[4 : 4+n])
		b = b[4+n:]
		return s
	}
	method = str()
	str()
	str()
	return method, str()
}

var mux = http.NewServeMux()

func init() {
	mux.HandleFunc("/hello", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "hello %s", r.URL.Query().Get("name")) })
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.CopyBuffer(struct{ io.Writer }{w}, r.Body, make([]byte, 64<<10))
	})
	mux.HandleFunc("/sleep", func(w http.ResponseWriter, _ *http.Request) {
		done := make(chan time.Duration)
		for i := range 4 { // four goroutines wait at once: poll_oneoff has several clocks
			go func() {
				start := time.Now()
				time.Sleep(time.Duration(i+1) * 10 * time.Millisecond)
				done <- time.Since(start)
			}()
		}
		var last time.Duration
		for range 4 {
			last = <-done
		}
		fmt.Fprint(w, last >= 40*time.Millisecond)
	})
	mux.HandleFunc("/files", func(w http.ResponseWriter, _ *http.Request) {
		_, open := os.ReadFile("/etc/passwd")
		_, dir := os.ReadDir("/")
		n, stdin := os.Stdin.Read(make([]byte, 1))
		fmt.Fprint(w, open != nil, dir != nil, n, stdin == io.EOF, os.Args, os.Getenv("COLOUR"))
	})
	mux.HandleFunc("/log", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Println("one")
		fmt.Print("tw")
		fmt.Println("o")
		fmt.Fprint(os.Stderr, "oops")
		fmt.Fprint(w, "ok")
	})
	mux.HandleFunc("/client", func(w http.ResponseWriter, _ *http.Request) {
		_, err := http.DefaultClient.Get("http://192.0.2.1/") // no sockets: refused, not hung
		fmt.Fprint(w, err != nil)
	})
	mux.HandleFunc("/panic", func(http.ResponseWriter, *http.Request) { panic("on purpose") })
	mux.HandleFunc("/exit", func(http.ResponseWriter, *http.Request) { os.Exit(3) })
	mux.HandleFunc("/spin", func(http.ResponseWriter, *http.Request) {
		for i := 0; ; i++ {
			sink = i
		}
	})
	mux.HandleFunc("/grow", func(http.ResponseWriter, *http.Request) {
		var all [][]byte
		for {
			all = append(all, bytes.Repeat([]byte{1}, 1<<20))
			sink = len(all)
		}
	})
	mux.HandleFunc("/recurse", func(http.ResponseWriter, *http.Request) { sink = recurse(1) })
	mux.HandleFunc("/nothing", func(http.ResponseWriter, *http.Request) {})
}

var sink int

func recurse(n int) int { return recurse(n+1) + n }

//go:wasmexport handle
func handle() {
	method, target := head()
	r, err := http.NewRequestWithContext(context.Background(), method, strings.TrimSpace(target), body{})
	if err != nil {
		panic(err)
	}
	mux.ServeHTTP(&answer{header: http.Header{}}, r)
}
