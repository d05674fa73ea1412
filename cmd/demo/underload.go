package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/selvage-edge/selvage/bench/load"
	"github.com/selvage-edge/selvage/cmd/selvage/request"
)

// What the two versions of the greeter say.
const (
	firstGreeting  = "hello from "
	secondGreeting = "hello again from "
)

// upgradeUnderLoad deploys a second version while every PoP is driven over every
// protocol at a fixed rate: each answer must be the first or the second
// version's, none may fail.
func (d *demo) upgradeUnderLoad(ctx context.Context) error {
	if err := d.editGreeter(); err != nil {
		return err
	}
	conf, err := d.trust()
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	var total, second atomic.Int64
	var wg sync.WaitGroup
	protocols := []load.Protocol{load.H1, load.H2, load.H3}
	errs := make([]error, len(d.fleet.Layout.Edges))
	for i, n := range d.fleet.Layout.Edges {
		wg.Go(func() {
			res, err := load.Run(running, load.Config{
				URL: d.url(greeter, "/"), Address: n.Public, Protocol: protocols[i%len(protocols)], TLS: conf,
				Connections: 2, Workers: 8, Rate: 100, Duration: limit,
				Check: func(status int, body []byte) error {
					total.Add(1)
					if bytes.HasPrefix(body, []byte(secondGreeting)) {
						second.Add(1)
					} else if !bytes.HasPrefix(body, []byte(firstGreeting)) {
						return fmt.Errorf("status %d, body %.100q", status, body)
					}
					return nil
				},
			})
			errs[i] = errors.Join(err, failures(n.PoP, res))
		})
	}
	v, err := d.deploy(ctx, filepath.Join(d.work, greeter))
	if err != nil {
		stop()
		wg.Wait()
		return err
	}
	live := total.Load()
	more := until(ctx, 30*time.Second, func() error {
		if n := total.Load() - live; n < 300 {
			return fmt.Errorf("%d requests since", n)
		}
		return nil
	})
	stop()
	wg.Wait()
	if second.Load() == 0 {
		more = errors.Join(more, errors.New("no request saw the second version"))
	}
	d.checks.add("second version under load", errors.Join(append(errs, more)...),
		"release %d; %d requests over h1, h2 and h3, none failed; %d answered by the second version", v.Release, total.Load(), second.Load())
	var after []error
	for _, n := range d.fleet.Layout.Edges {
		after = append(after, d.ask(ctx, n, request.HTTP2, greeter, get("/", secondGreeting+greeter)))
	}
	d.checks.add("second version everywhere", errors.Join(after...), "once deploy --wait returned")
	return ctx.Err()
}

func failures(pop string, r load.Result) error {
	if r.Failed == 0 {
		return nil
	}
	return fmt.Errorf("%s: %d of %d requests failed: %v", pop, r.Failed, r.Failed+r.OK, r.Errors)
}

func (d *demo) editGreeter() error {
	path := filepath.Join(d.work, greeter, "main.go")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	edited := bytes.Replace(text, []byte(firstGreeting), []byte(secondGreeting), 1)
	if bytes.Equal(text, edited) {
		return fmt.Errorf("%s does not say %q", path, firstGreeting)
	}
	return os.WriteFile(path, edited, 0o644)
}

func (d *demo) trust() (*tls.Config, error) {
	pem, err := os.ReadFile(d.fleet.EdgeCA)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", d.fleet.EdgeCA)
	}
	return &tls.Config{RootCAs: roots}, nil
}
