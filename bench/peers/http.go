package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/selvage-edge/selvage/bench/load"
)

// The hosts that the server answers, all behind one listener.
const (
	bareHost    = "bare.edge.localhost"
	helloHost   = "hello.edge.localhost"
	goHost      = "go.edge.localhost"
	httpbinHost = "httpbin.edge.localhost"
)

// sites are the guests behind the hosts.
var sites = map[string]string{helloHost: helloGuest, goHost: handlerGuest, httpbinHost: httpbinGuest}

// paths are what is asked of a host; "/" if it is not here.
var paths = map[string]string{httpbinHost: "/get"}

// httpRows measures requests per second against a bare handler, in a process of
// its own so that the loader's work is not the server's.
func httpRows(ctx context.Context, s size, all guests, profile, only string) ([]row, error) {
	server, err := startServer(ctx, all, profile)
	if err != nil {
		return nil, err
	}
	defer server.stop()
	var rows []row
	for _, c := range []struct {
		protocol load.Protocol
		goal     float64
		hosts    []string
	}{{load.H1, 0.75, []string{bareHost, helloHost, goHost, httpbinHost}}, {load.H2, 0.8, []string{bareHost, helloHost}}, {load.H3, 0.8, []string{bareHost, helloHost}}} {
		name := "http/" + string(c.protocol)
		if !wanted(only, name) {
			continue
		}
		hosts := make([]host, len(c.hosts))
		for i, name := range c.hosts {
			hosts[i] = server.host(name)
		}
		sides, err := ratesInTurn(ctx, s, c.protocol, hosts)
		if err != nil {
			return rows, err
		}
		bare := sides[0]
		for i, side := range sides[1:] {
			r := row{Name: name, Value: side.rate, Unit: "rps", Against: "bare", Ratio: side.against, N: side.requests}
			if i == 0 {
				r.goal, r.met = fmt.Sprintf(">= %.2gx", c.goal), r.Ratio >= c.goal
			} else {
				r.Name += "-" + strings.TrimSuffix(c.hosts[i+1], ".edge.localhost")
			}
			rows = append(rows, r,
				row{Name: r.Name + ":server", Value: side.server, Unit: "us", Against: "bare", Ratio: side.server / bare.server, N: side.requests},
				row{Name: r.Name + ":loader", Value: side.loader, Unit: "us", Against: "bare", Ratio: side.loader / bare.loader, N: side.requests})
		}
	}
	return rows, nil
}

// driven is one host's median rate, the median of its rate over the first host's in
// the same round (a machine that is slower for a while is so for both), its requests,
// and the processor time of one of them, in us: the server's and the loader's, which
// share the machine.
type driven struct {
	rate, against, server, loader float64
	requests                      int
}

// ratesInTurn drives the hosts in turn. Each round begins with another host: what
// a host's requests leave behind, in caches and heap, is felt by whoever comes next.
func ratesInTurn(ctx context.Context, s size, p load.Protocol, hosts []host) ([]driven, error) {
	type figures struct{ rate, server, loader []float64 }
	rounds, sides := make([]figures, len(hosts)), make([]driven, len(hosts))
	for round := range s.rounds {
		for turn := range hosts {
			i := (round + turn) % len(hosts)
			if _, err := hosts[i].drive(ctx, p, s.load/5); err != nil { // warms
				return nil, err
			}
			before, mine := processorTime(hosts[i].pid), processorTime(os.Getpid())
			res, err := hosts[i].drive(ctx, p, s.load)
			if err != nil {
				return nil, err
			}
			f, n := &rounds[i], float64(res.OK)
			f.rate = append(f.rate, res.Rate())
			f.server = append(f.server, float64((processorTime(hosts[i].pid)-before).Nanoseconds())/1000/n)
			f.loader = append(f.loader, float64((processorTime(os.Getpid())-mine).Nanoseconds())/1000/n)
			sides[i].requests += int(res.OK)
		}
	}
	for i, f := range rounds {
		against := make([]float64, s.rounds)
		for round := range against {
			against[round] = f.rate[round] / rounds[0].rate[round]
		}
		sides[i].rate, sides[i].against, sides[i].server, sides[i].loader = median(f.rate), median(against), median(f.server), median(f.loader)
	}
	return sides, nil
}

// processorTime is what a process's threads have had of the processors; of those alive.
func processorTime(pid int) (sum time.Duration) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid)) // the pattern is well formed
	for _, t := range tasks {
		text, err := os.ReadFile(t)
		if err != nil {
			continue // it has ended
		}
		ns, _, _ := strings.Cut(string(text), " ")
		n, _ := strconv.ParseInt(ns, 10, 64) // digits: the kernel's
		sum += time.Duration(n)
	}
	return sum
}

// benchServer is this program as a server, in a process of its own.
type benchServer struct {
	addr string
	conf *tls.Config
	pid  int
	stop func()
}

// host is what requests are made of, and the process that answers them.
type host struct {
	url, addr string
	conf      *tls.Config
	pid       int
}

func (b *benchServer) host(name string) host {
	path := paths[name]
	if path == "" {
		path = "/"
	}
	return host{url: "https://" + name + path, addr: b.addr, conf: b.conf, pid: b.pid}
}

// drive loads the host for so long; every answer must be right.
func (h host) drive(ctx context.Context, p load.Protocol, d time.Duration) (res load.Result, err error) {
	res, err = load.Run(ctx, load.Config{URL: h.url, Address: h.addr, Protocol: p, TLS: h.conf,
		Connections: 4, Workers: 32, Duration: d})
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return res, err
	}
	if res.Failed > 0 || res.OK == 0 || res.Statuses[200] != res.OK {
		return res, fmt.Errorf("%s over %s: %s; statuses %v", h.url, p, res.String(), res.Statuses)
	}
	return res, nil
}

// startServer starts this program again as the server and waits for its address.
func startServer(ctx context.Context, all guests, profile string) (*benchServer, error) {
	input, err := encodeSites(all)
	if err != nil {
		return nil, err
	}
	return startSelf(ctx, bytes.NewReader(input), "-serve", "-profile", profile)
}

// startSelf starts this program again, as a server that listenAndServe prints the address of.
func startSelf(ctx context.Context, input io.Reader, args ...string) (*benchServer, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stdin, cmd.Stderr = input, os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, err
	}
	stop := func() {
		cancel()
		_ = cmd.Wait() // it was killed
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		return nil, errors.Join(errors.New("the server did not start"), err)
	}
	// The certificate is made for this run and dies with it: nothing is kept from the server that it could prove.
	return &benchServer{addr: strings.TrimSpace(line), conf: &tls.Config{InsecureSkipVerify: true}, pid: cmd.Process.Pid, stop: stop}, nil
}
