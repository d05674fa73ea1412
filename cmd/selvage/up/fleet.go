package up

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/cmd/selvage/target"
)

// Fleet runs the processes of a layout.
type Fleet struct {
	Layout
	Selvage string // the executable
	Control *Process
	Edges   map[string]*Process // by node name
	lock    *os.File            // of the folder, while the fleet runs
}

// stopGrace is how long a process may drain before it is killed.
const stopGrace = 15 * time.Second

// Boot starts the whole fleet and waits until every node serves. say is told
// each step. On an error, what was started is stopped.
func (f *Fleet) Boot(ctx context.Context, say func(format string, args ...any)) (err error) {
	defer func() {
		if err != nil {
			f.Stop()
		}
	}()
	if err := f.claim(); err != nil {
		return err
	}
	if err := f.Write(); err != nil {
		return err
	}
	for _, path := range f.Kept {
		say("%s was changed, and is used as it is; remove it to have it written anew", path)
	}
	if err := f.initControl(ctx); err != nil {
		return err
	}
	if err := f.StartControl(ctx); err != nil {
		return err
	}
	say("control-1 is up: API https://%s", f.API)
	for _, n := range f.Layout.Edges {
		if err := f.StartEdge(ctx, n); err != nil {
			return err
		}
	}
	for _, n := range f.Layout.Edges {
		if err := f.Edges[n.Name].Ready(ctx, "/readyz"); err != nil {
			return err
		}
		say("%s is up: PoP %s (%s), https://%s", n.Name, n.PoP, n.Region, n.Public)
	}
	return nil
}

// initControl makes the control node's keys once and the target file each time.
func (f *Fleet) initControl(ctx context.Context) error {
	made := filepath.Join(f.Layout.Control.State, "target.toml")
	if _, err := os.Stat(made); errors.Is(err, os.ErrNotExist) {
		_, err := f.Run(ctx, "control", "init", "--config", f.Layout.Control.Config, "--no-passphrase", "--json")
		if err != nil {
			return err
		}
	}
	t, err := target.Load(made)
	if err != nil {
		return err
	}
	t.EdgeCA = f.EdgeCA
	return t.Save(f.Target)
}

// StartControl starts the control node and waits until it answers.
func (f *Fleet) StartControl(ctx context.Context) error {
	p, err := Start(f.Selvage, f.Layout.Control, nil, "control", "--config", f.Layout.Control.Config)
	if err != nil {
		return err
	}
	f.Control = p
	return p.Ready(ctx, "/healthz")
}

// StartEdge starts one edge node; one that never joined gets a join token. It
// does not wait: call Ready on the process.
func (f *Fleet) StartEdge(ctx context.Context, n Node) error {
	var env []string
	// The last file of a join: one that was broken off has only the others.
	if _, err := os.Stat(filepath.Join(n.State, "identity", "node.pem")); errors.Is(err, os.ErrNotExist) {
		token, err := f.JoinToken(ctx)
		if err != nil {
			return err
		}
		env = append(env, "SELVAGE_JOIN_TOKEN="+token)
	}
	p, err := Start(f.Selvage, n, env, "edge", "--config", n.Config)
	if err != nil {
		return err
	}
	if f.Edges == nil {
		f.Edges = map[string]*Process{}
	}
	f.Edges[n.Name] = p
	return nil
}

// JoinToken has the control node make a token with which one node may join.
func (f *Fleet) JoinToken(ctx context.Context) (string, error) {
	out, err := f.Run(ctx, "join-token", "--json")
	if err != nil {
		return "", err
	}
	var v struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal(out, &v); err != nil || v.Token == "" {
		return "", fmt.Errorf("up: join token: %q: %w", out, err)
	}
	return v.Token, nil
}

// Run runs `selvage ARGS` against this fleet and returns what it printed.
func (f *Fleet) Run(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, f.Selvage, args...)
	cmd.Env = append(os.Environ(), "SELVAGE_TARGET="+f.Target)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("selvage %s: %w: %s%s", strings.Join(args, " "), err, out.Bytes(), errs.Bytes())
	}
	return out.Bytes(), nil
}

// Stop ends every process: the edges together, then control.
func (f *Fleet) Stop() {
	var wg sync.WaitGroup
	for _, p := range f.Edges {
		wg.Go(func() { p.Stop(stopGrace) })
	}
	wg.Wait()
	if f.Control != nil {
		f.Control.Stop(stopGrace)
	}
	if f.lock != nil {
		f.lock.Close()
	}
}

// Watch tells ended of each process that ends by itself, until no PoP is left or
// ctx ends. What is left goes on: PoPs need no control node to serve.
func (f *Fleet) Watch(ctx context.Context, ended func(p *Process)) {
	all := []*Process{f.Control}
	for _, p := range f.Edges {
		all = append(all, p)
	}
	ends := make(chan *Process, len(all))
	ctx, cancel := context.WithCancel(ctx)
	var waits sync.WaitGroup
	defer waits.Wait()
	defer cancel()
	for _, p := range all {
		waits.Go(func() {
			select {
			case <-p.Done():
				ends <- p
			case <-ctx.Done():
			}
		})
	}
	for left := len(f.Edges); left > 0; {
		select {
		case p := <-ends:
			ended(p)
			if p != f.Control {
				left--
			}
		case <-ctx.Done():
			return
		}
	}
}
