package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-edge/selvage/cmd/selvage/term"
	"github.com/selvage-edge/selvage/control/bundle"
	"github.com/selvage-edge/selvage/runtime/function"
)

// built is a bundle made from a folder.
type built struct {
	Manifest *bundle.Manifest
	Packed   []byte
	Digest   function.Digest
	Module   int // bytes
	Took     time.Duration
}

func buildCommand(o *options) *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "build [DIR]",
		Short: "build a function and pack its bundle",
		Long: `Runs the manifest's build command in DIR (default: here), checks the module and
packs both as a bundle: NAME.bundle in DIR, or --output.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			dir := folder(args)
			b, err := buildBundle(c.Context(), o.out(), dir)
			if err != nil {
				return err
			}
			if out == "" {
				out = filepath.Join(dir, b.Manifest.Name+".bundle")
			}
			if err := os.WriteFile(out, b.Packed, 0o644); err != nil {
				return err
			}
			return printBuilt(o, b, out)
		},
	}
	c.Flags().StringVarP(&out, "output", "o", "", "where the bundle goes")
	return c
}

func printBuilt(o *options, b *built, path string) error {
	v := struct {
		Project  string          `json:"project"`
		Function string          `json:"function"`
		Digest   function.Digest `json:"digest"`
		Bundle   string          `json:"bundle"`
		Bytes    int             `json:"bytes"`
		Module   int             `json:"module_bytes"`
	}{b.Manifest.Project, b.Manifest.Name, b.Digest, path, len(b.Packed), b.Module}
	return o.out().Result(v, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s, %d KiB (module %d KiB), built in %v\n", path, b.Digest, len(b.Packed)>>10, b.Module>>10, b.Took.Round(10*time.Millisecond))
	})
}

func folder(args []string) string {
	if len(args) == 0 {
		return "."
	}
	return args[0]
}

// buildBundle builds and packs the function in dir.
func buildBundle(ctx context.Context, out *term.Out, dir string) (*built, error) {
	path := filepath.Join(dir, bundle.ManifestName)
	source, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usagef("%s: there is no %s; make a function with 'selvage init'", dir, bundle.ManifestName)
	}
	if err != nil {
		return nil, err
	}
	m, err := bundle.ParseManifest(path, source)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if err := runBuild(ctx, out, dir, m); err != nil {
		return nil, err
	}
	module, err := os.ReadFile(filepath.Join(dir, m.Build.Output))
	if err != nil {
		return nil, fmt.Errorf("%s: build.output: %w; does build.command write it?", path, err)
	}
	packed, digest, err := bundle.Pack(source, module)
	if err != nil {
		return nil, err
	}
	return &built{Manifest: m, Packed: packed, Digest: digest, Module: len(module), Took: time.Since(start)}, nil
}

func runBuild(ctx context.Context, out *term.Out, dir string, m *bundle.Manifest) error {
	if m.Build.Command == "" {
		return nil
	}
	out.Progress("building %s: %s", m.Name, m.Build.Command)
	defer out.Beat(ctx, func(since time.Duration) string { return fmt.Sprintf("still building %s, %v", m.Name, since) })()
	cmd := exec.CommandContext(ctx, "sh", "-c", m.Build.Command)
	cmd.Dir = dir
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build.command of %s: %w\n%s", m.Name, err, text.Bytes())
	}
	return nil
}
