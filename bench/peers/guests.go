package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	wasmtime "github.com/bytecodealliance/wasmtime-go/v39"
)

// The guests that are measured, by the names their rows have.
const (
	helloGuest   = "hello"      // a minimal native guest
	cGuest       = "c"          // C with its library
	goGuest      = "go"         // standard Go without net/http
	handlerGuest = "go-handler" // what `selvage init` makes, an http.Handler
	httpbinGuest = "httpbin"    // a public http.Handler of some size
)

// guests are built once, with their own toolchains, as a developer builds them.
type guests map[string]*prepared

// errNoToolchain is why a guest is left out: the bench needs Go, gcc and make only.
var errNoToolchain = errors.New("toolchain not found")

// buildGuests builds those of the names that it can, or of all. A C compiler for WebAssembly may be missing, and is then named.
func buildGuests(ctx context.Context, names ...string) (guests, error) {
	all := guests{}
	for _, g := range []struct {
		name, target string
		build        func(context.Context) ([]byte, error)
	}{
		{helloGuest, "/", func(context.Context) ([]byte, error) { return wasmtime.Wat2Wasm(helloText) }},
		{cGuest, "/", buildC},
		{goGuest, "/", func(ctx context.Context) ([]byte, error) { return buildGo(ctx, "bench/peers/testdata/go") }},
		{handlerGuest, "/", buildTemplate},
		{httpbinGuest, "/get", func(ctx context.Context) ([]byte, error) { return buildGo(ctx, "sdk/examples/httpbin") }},
	} {
		if len(names) > 0 && !slices.Contains(names, g.name) {
			continue
		}
		module, err := g.build(ctx)
		if errors.Is(err, errNoToolchain) {
			fmt.Printf("SKIPPED: guest %q: %v\n", g.name, err)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("guest %s: %w", g.name, err)
		}
		if all[g.name], err = prepare(ctx, module, g.target); err != nil {
			return nil, fmt.Errorf("guest %s: %w", g.name, err)
		}
	}
	return all, nil
}

// buildC compiles the C guest with Debian's clang for WebAssembly.
func buildC(ctx context.Context) ([]byte, error) {
	clang, err := exec.LookPath("clang-19")
	if err != nil {
		return nil, fmt.Errorf("%w: apt-get install clang-19 lld-19 wasi-libc libclang-rt-19-dev-wasm32", errNoToolchain)
	}
	return built(ctx, ".", nil, func(out string) []string {
		return []string{clang, "--target=wasm32-wasi", "--sysroot=/usr", "-O2", "-mexec-model=reactor", "-Wl,--strip-all",
			"bench/peers/testdata/c/hello.c", "-o", out}
	})
}

// buildGo builds the package in dir with the Go toolchain.
func buildGo(ctx context.Context, dir string) ([]byte, error) {
	return built(ctx, dir, []string{"GOOS=wasip1", "GOARCH=wasm"}, func(out string) []string {
		return []string{"go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", out, "."}
	})
}

// built runs a compiler in dir and returns the module it made.
func built(ctx context.Context, dir string, env []string, command func(out string) []string) ([]byte, error) {
	folder, err := os.MkdirTemp("", "selvage-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	out := filepath.Join(folder, "guest.wasm")
	args := command(out)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, text)
	}
	return os.ReadFile(out)
}
