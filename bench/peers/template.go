package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/selvage-edge/selvage/cmd/selvage/template"
	"github.com/selvage-edge/selvage/runtime/abi/native"
	"github.com/selvage-edge/selvage/runtime/compile"
	"github.com/selvage-edge/selvage/runtime/image"
	"github.com/selvage-edge/selvage/runtime/jail"
	"github.com/selvage-edge/selvage/sdk/abi"
)

// prepared is a module split and, where it may be, snapshotted, as a deploy does it.
type prepared struct {
	code    []byte
	encoded []byte // the image
	image   *image.Image
	started bool
	entries []string
	head    []byte // a GET /, in the guest's layout
}

// buildTemplate builds what `selvage init` makes, with the Go toolchain, and prepares it in a helper.
func buildTemplate(ctx context.Context) (*prepared, error) {
	dir, err := os.MkdirTemp("", "selvage-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	sdk, err := filepath.Abs("sdk/go")
	if err != nil {
		return nil, err
	}
	fn := filepath.Join(dir, "greeter")
	if _, err := template.Write(fn, "greeter", sdk); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", "greeter.wasm", ".")
	cmd.Dir = fn
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the template: %w\n%s", err, out)
	}
	module, err := os.ReadFile(filepath.Join(fn, "greeter.wasm"))
	if err != nil {
		return nil, err
	}
	return prepare(ctx, module)
}

func prepare(ctx context.Context, module []byte) (*prepared, error) {
	helpers, err := jail.Open(jail.Config{})
	if err != nil {
		return nil, err
	}
	defer helpers.Close()
	p, err := compile.Prepare(ctx, helpers, module)
	if err != nil {
		return nil, err
	}
	img, err := image.Decode(p.Image, 1<<30)
	if err != nil {
		return nil, err
	}
	entries := []string{abi.ExportHandle}
	if !p.Started {
		entries = []string{abi.ExportInitialize, abi.ExportStart, abi.ExportHandle}
	}
	return &prepared{code: p.Code, encoded: p.Image, image: img, started: p.Started, entries: entries, head: requestHead()}, nil
}

// requestHead is a plain GET / as a node hands it over.
func requestHead() []byte {
	h := native.Head{
		Method: "GET", Scheme: "https", Authority: "greeter.edge.localhost", Target: "/", Protocol: "HTTP/2.0",
		Metadata: []native.Pair{{Name: abi.MetaPoP, Value: "bench"}},
		Headers:  []native.Pair{{Name: "Accept", Value: "*/*"}},
	}
	return h.Append(nil)
}
