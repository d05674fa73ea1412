package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-edge/selvage/cmd/selvage/dev"
	"github.com/selvage-edge/selvage/cmd/selvage/term"
	"github.com/selvage-edge/selvage/control/bundle"
	"github.com/selvage-edge/selvage/edge/telemetry"
)

func devCommand(o *options) *cobra.Command {
	addr, state := "127.0.0.1:8787", ""
	c := &cobra.Command{
		Use:   "dev [DIR]",
		Short: "serve a function on this machine while you write it: each save is live",
		Long: `Builds the function in DIR (default: here), serves it on one address over HTTP/1.1, 2
and 3, whatever host and path is asked for, and builds and reloads it whenever a
file in DIR changes. What it logs, each request and each fault is shown as it
comes. While a build fails, the version before goes on serving.

A fault shows the calls it happened in, with file and line where the toolchain says
them: always for Go, for others if the build keeps DWARF (-g). A Go panic prints its
own stack besides.

A save that changes no code is live as soon as build.command is through; changed code is
compiled anew, all of it, on all processors.

It runs on the runtime that nodes have, with three differences, for speed: code is
compiled without optimization (the limit of processor time is ten times what the
manifest says), start-up runs for each request instead of once at deploy, and nothing
is signed or kept. KV namespaces are the folder's own; backends may be on this machine.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			a, err := netip.ParseAddrPort(addr)
			if err != nil {
				return usagef("--listen: %w", err)
			}
			d := &developing{dir: folder(args), out: o.out()}
			if state == "" {
				state = filepath.Join(d.dir, ".selvage", "dev")
			}
			return d.run(c.Context(), dev.Config{Addr: a, State: state, Lines: lineWriter{o}})
		},
	}
	c.Flags().StringVar(&addr, "listen", addr, "address to serve on, IP:port, TCP and UDP")
	c.Flags().StringVar(&state, "state", "", "folder for KV, the certificate and compiled code (default DIR/.selvage/dev)")
	return c
}

// lineWriter shows the log as 'selvage logs' does.
type lineWriter struct{ o *options }

func (w lineWriter) Write(p []byte) (int, error) {
	if w.o.json {
		return os.Stdout.Write(p)
	}
	for line := range bytes.Lines(p) {
		l, err := telemetry.ParseLine(line)
		if err != nil {
			return 0, err
		}
		if err := printLine(os.Stdout, &l); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// developing is one run of the command.
type developing struct {
	dir    string
	out    *term.Out
	server *dev.Server
	output string // what the build writes, relative to dir
	live   bool   // some version is served
}

func (d *developing) run(ctx context.Context, cfg dev.Config) (err error) {
	if _, err := os.Stat(filepath.Join(d.dir, bundle.ManifestName)); err != nil {
		return usagef("%s: there is no %s; make a function with 'selvage init'", d.dir, bundle.ManifestName)
	}
	if d.server, err = dev.Open(cfg); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.server.Close()) }()
	d.out.Say("serving https://localhost:%d/ over h1, h2, h3 from the first build on; curl --cacert %s%s", cfg.Addr.Port(), d.server.CAFile, resolve(cfg.Addr))
	files := dev.Watch(d.dir)
	defer func() { err = errors.Join(err, files.Close()) }()
	for was := files.Mark(d.outputs()...); ; {
		d.reload(ctx)
		// The build may have told what it writes only now.
		if was, err = files.Changed(ctx, was, d.outputs()...); err != nil {
			return nil // interrupted
		}
	}
}

// resolve is what curl needs besides, to find localhost at another address.
func resolve(a netip.AddrPort) string {
	if ip := a.Addr(); ip.IsUnspecified() || ip == netip.MustParseAddr("127.0.0.1") || ip == netip.IPv6Loopback() {
		return ""
	}
	return fmt.Sprintf(" --resolve localhost:%d:%s", a.Port(), a.Addr())
}

// outputs are the files that a build writes.
func (d *developing) outputs() []string {
	path := filepath.Join(d.dir, bundle.ManifestName)
	if source, err := os.ReadFile(path); err == nil {
		if m, err := bundle.ParseManifest(path, source); err == nil && m.Build.Command != "" {
			d.output = m.Build.Output
		}
	}
	return []string{filepath.Clean(d.output)}
}

// reload builds and loads; what fails is said, and the version before stays.
func (d *developing) reload(ctx context.Context) {
	begin := time.Now()
	m, module, err := d.build(ctx)
	built := time.Since(begin)
	var loaded dev.Loaded
	if err == nil {
		loaded, err = d.load(ctx, m, module)
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		what := "nothing is served yet"
		if d.live {
			what = "the version before goes on serving"
		}
		d.out.Say("-- %s --\n%v\n-- save a change to try again --", what, err)
		return
	}
	d.live = true
	d.out.Say("live: %s, %.2f s (build %.2f s, compile %.2f s)", loaded.Digest.Short(), time.Since(begin).Seconds(), built.Seconds(), loaded.Compile.Seconds())
}

// load says that it compiles: of a Go program that takes some seconds.
func (d *developing) load(ctx context.Context, m *bundle.Manifest, module []byte) (dev.Loaded, error) {
	d.out.Progress("compiling %s, %d KiB of WebAssembly", m.Name, len(module)>>10)
	defer d.out.Beat(ctx, func(since time.Duration) string { return fmt.Sprintf("still compiling %s, %v", m.Name, since) })()
	return d.server.Load(ctx, m, module)
}

func (d *developing) build(ctx context.Context) (*bundle.Manifest, []byte, error) {
	path := filepath.Join(d.dir, bundle.ManifestName)
	source, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	m, err := bundle.ParseManifest(path, source)
	if err != nil {
		return nil, nil, err
	}
	if err := runBuild(ctx, d.out, d.dir, m); err != nil {
		return nil, nil, err
	}
	module, err := os.ReadFile(filepath.Join(d.dir, m.Build.Output))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: build.output: %w; does build.command write it?", path, err)
	}
	return m, module, nil
}
