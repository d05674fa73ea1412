package main

import (
	"context"
	"os"
	"path/filepath"

	"github.com/selvage-edge/selvage/cmd/selvage/template"
	"github.com/selvage-edge/selvage/runtime/abi/native"
	"github.com/selvage-edge/selvage/runtime/compile"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/image"
	"github.com/selvage-edge/selvage/runtime/jail"
	"github.com/selvage-edge/selvage/sdk/abi"
)

// prepared is a module split and, where it may be, snapshotted, as a deploy does it.
type prepared struct {
	module  []byte // as its toolchain made it
	code    []byte
	encoded []byte // the image
	image   *image.Image
	started bool
	head    []byte // a GET /, in the guest's layout
}

// buildTemplate builds what `selvage init` makes.
func buildTemplate(ctx context.Context) ([]byte, error) {
	return buildFromTemplate(ctx, func(string) error { return nil })
}

// buildFromTemplate builds it after change has changed its folder.
func buildFromTemplate(ctx context.Context, change func(dir string) error) ([]byte, error) {
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
	if err := change(fn); err != nil {
		return nil, err
	}
	return buildGo(ctx, fn)
}

// prepare does to a module what a deploy does, in a helper; head is a GET of target.
func prepare(ctx context.Context, module []byte, target string) (*prepared, error) {
	helpers, err := jail.Open(jail.Config{})
	if err != nil {
		return nil, err
	}
	defer helpers.Close()
	p, err := compile.Prepare(ctx, helpers, module, function.SnapshotAuto)
	if err != nil {
		return nil, err
	}
	img, err := image.Decode(p.Image, 1<<30)
	if err != nil {
		return nil, err
	}
	return &prepared{module: module, code: p.Code, encoded: p.Image, image: img, started: p.Started, head: requestHead(target)}, nil
}

// requestHead is a plain GET as a node hands it over.
func requestHead(target string) []byte {
	h := native.Head{
		Method: "GET", Scheme: "https", Authority: "greeter.edge.localhost", Target: target, Protocol: "HTTP/2.0",
		Metadata: []native.Pair{{Name: abi.MetaPoP, Value: "bench"}},
		Headers:  []native.Pair{{Name: "Accept", Value: "*/*"}},
	}
	return h.Append(nil)
}
