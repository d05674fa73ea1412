package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/selvage-edge/selvage/bench/load"
)

// sites are the hosts the server answers, all behind one listener.
const (
	bareHost  = "bare.edge.localhost"
	helloHost = "hello.edge.localhost"
	goHost    = "go.edge.localhost"
)

// httpRows measures requests per second against a bare handler, in a process of
// its own so that the loader's work is not the server's.
func httpRows(ctx context.Context, s size, template *prepared, profile, only string) ([]row, error) {
	addr, conf, stop, err := startServer(ctx, template, profile)
	if err != nil {
		return nil, err
	}
	defer stop()
	var rows []row
	for _, c := range []struct {
		protocol load.Protocol
		goal     float64
		hosts    []string
	}{{load.H1, 0.6, []string{bareHost, helloHost, goHost}}, {load.H2, 0.7, []string{bareHost, helloHost}}, {load.H3, 0.7, []string{bareHost, helloHost}}} {
		name := "http/" + string(c.protocol)
		if !wanted(only, name) {
			continue
		}
		rates, n, err := ratesInTurn(ctx, s, c.protocol, addr, conf, c.hosts)
		if err != nil {
			return rows, err
		}
		ratio := rates[1] / rates[0]
		rows = append(rows, row{Name: name, Value: rates[1], Unit: "rps", Against: "bare", Ratio: ratio, N: n[1], goal: fmt.Sprintf(">= %.1f", c.goal), met: ratio >= c.goal})
		if len(rates) > 2 {
			rows = append(rows, row{Name: name + "-go", Value: rates[2], Unit: "rps", Against: "bare", Ratio: rates[2] / rates[0], N: n[2]})
		}
	}
	return rows, nil
}

// ratesInTurn drives the hosts in turn and returns each one's median rate and its
// requests. Each round begins with another host: what a host's requests leave
// behind, in caches and heap, is felt by whoever comes next.
func ratesInTurn(ctx context.Context, s size, p load.Protocol, addr string, conf *tls.Config, hosts []string) ([]float64, []int, error) {
	rounds := make([][]float64, len(hosts))
	n := make([]int, len(hosts))
	for round := range s.rounds {
		for turn := range hosts {
			i := (round + turn) % len(hosts)
			host := hosts[i]
			res, err := load.Run(ctx, load.Config{URL: "https://" + host + "/", Address: addr, Protocol: p, TLS: conf,
				Connections: 4, Workers: 32, Warmup: s.load / 5, Duration: s.load})
			if err != nil {
				return nil, nil, err
			}
			if err := ctx.Err(); err != nil {
				return nil, nil, err
			}
			if res.Failed > 0 || res.OK == 0 || res.Statuses[200] != res.OK {
				return nil, nil, fmt.Errorf("%s over %s: %s; statuses %v", host, p, res.String(), res.Statuses)
			}
			rounds[i] = append(rounds[i], res.Rate())
			n[i] += int(res.OK)
		}
	}
	rates := make([]float64, len(hosts))
	for i := range hosts {
		rates[i] = median(rounds[i])
	}
	return rates, n, nil
}

// startServer starts this program again as the server and waits for its address.
func startServer(ctx context.Context, template *prepared, profile string) (addr string, conf *tls.Config, stop func(), err error) {
	input, err := encodePrepared(template)
	if err != nil {
		return "", nil, nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return "", nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, exe, "-serve", "-profile", profile)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stdin, cmd.Stderr = bytes.NewReader(input), os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		return "", nil, nil, err
	}
	stop = func() {
		cancel()
		_ = cmd.Wait() // it was killed
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		return "", nil, nil, errors.Join(errors.New("the server did not start"), err)
	}
	// The certificate is made for this run and dies with it: nothing is kept from the server that it could prove.
	return strings.TrimSpace(line), &tls.Config{InsecureSkipVerify: true}, stop, nil
}
