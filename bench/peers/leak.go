package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/selvage-edge/selvage/bench/load"
)

// memoryHost answers with the server's resident memory, in bytes, once it has
// given back what it does not need.
const memoryHost = "memory.edge.localhost"

// The leak row compares memory after so many requests.
const (
	leakFew  = 10_000
	leakMany = 1_000_000
)

// leakRows sends a million requests to a server and compares its memory with
// what it was after ten thousand.
func leakRows(ctx context.Context, many int, all guests) ([]row, error) {
	server, err := startServer(ctx, all, "")
	if err != nil {
		return nil, err
	}
	defer server.stop()
	c := load.Config{URL: "https://" + helloHost + "/", Address: server.addr, Protocol: load.H1, TLS: server.conf, Connections: 8}
	memory := func(requests int) (int64, error) {
		c.Requests = requests
		res, err := load.Run(ctx, c)
		if err != nil {
			return 0, err
		}
		if res.Failed > 0 || res.Statuses[http.StatusOK] != res.OK {
			return 0, fmt.Errorf("%s: %s; statuses %v", helloHost, res.String(), res.Statuses)
		}
		return residentOf(ctx, c)
	}
	before, err := memory(leakFew)
	if err != nil {
		return nil, err
	}
	after, err := memory(many - leakFew)
	if err != nil {
		return nil, err
	}
	ratio := float64(after) / float64(before)
	return []row{{Name: "leak/1m", Value: float64(after), Unit: "bytes", Against: "10,000 requests", Ratio: ratio, N: many,
		goal: "<= 1.1", met: ratio <= 1.1}}, nil
}

// residentOf asks the server.
func residentOf(ctx context.Context, c load.Config) (bytes int64, err error) {
	c.URL, c.Requests, c.Connections = "https://"+memoryHost+"/", 1, 1
	c.Check = func(_ int, body []byte) (err error) {
		bytes, err = strconv.ParseInt(strings.TrimSpace(string(body)), 10, 64)
		return err
	}
	res, err := load.Run(ctx, c)
	if err == nil && res.OK != 1 {
		err = fmt.Errorf("%s: %s", memoryHost, res.String())
	}
	return bytes, err
}

// serveMemory answers for memoryHost.
func serveMemory(w http.ResponseWriter) {
	debug.FreeOSMemory()
	n, err := resident()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = io.WriteString(w, strconv.FormatInt(n, 10)) // the loader says what it did not get
}

// resident is this process's memory that is not files'.
func resident() (int64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("no RssAnon in /proc/self/status")
}
