package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// startRedis starts redis-server, which keeps nothing on disk, with the hot value under k.
func startRedis(ctx context.Context) (addr string, stop func(), err error) {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return "", nil, errors.New("no redis-server is installed: apt-get install redis-server")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	addr = l.Addr().String()
	l.Close() // for redis-server, which cannot be given a socket
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	cmd := exec.CommandContext(ctx, program, "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--dir", os.TempDir())
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill() // it may have ended with ctx
		_ = cmd.Wait()
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if err = setRedis(addr); err == nil {
			return addr, stop, nil
		}
		if time.Now().After(end) {
			stop()
			return "", nil, fmt.Errorf("redis-server did not start: %w", err)
		}
	}
}

// command is how Redis is asked (RESP, arrays of bulk strings).
func command(words ...string) []byte {
	b := fmt.Appendf(nil, "*%d\r\n", len(words))
	for _, w := range words {
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(w), w)
	}
	return b
}

func setRedis(addr string) error {
	return onRedis(addr, func(c net.Conn) error {
		return askRedis(c, bufio.NewReader(c), command("SET", "k", string(hotValue)), []byte("+OK\r\n"), nil)
	})
}

func onRedis(addr string, do func(net.Conn) error) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	return do(c)
}

// askRedis asks and compares the answer; buf is room for it, or nil.
func askRedis(c net.Conn, r *bufio.Reader, ask, want, buf []byte) error {
	if _, err := c.Write(ask); err != nil {
		return err
	}
	if buf == nil {
		buf = make([]byte, len(want))
	}
	if _, err := io.ReadFull(r, buf); err != nil {
		return err
	}
	if !bytes.Equal(buf, want) {
		return fmt.Errorf("redis answers %.120q, want %.120q", buf, want)
	}
	return nil
}

// driveRedis gets the value on so many connections, on each as fast as answers come, and counts them.
func driveRedis(ctx context.Context, addr string, connections int, d time.Duration) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	ask, want := command("GET", "k"), fmt.Appendf(nil, "$%d\r\n%s\r\n", len(hotValue), hotValue)
	var total atomic.Int64
	var all sync.WaitGroup
	errs := make([]error, connections)
	for i := range connections {
		all.Go(func() {
			errs[i] = onRedis(addr, func(c net.Conn) error {
				r, buf := bufio.NewReader(c), make([]byte, len(want))
				for ; ctx.Err() == nil; total.Add(1) {
					if err := askRedis(c, r, ask, want, buf); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
	all.Wait()
	return int(total.Load()), errors.Join(errs...)
}
