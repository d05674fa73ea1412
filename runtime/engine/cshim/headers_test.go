package cshim

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// headers is the include folder of the wasmtime-go module that the build uses.
func headers(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/bytecodealliance/wasmtime-go/v39").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "build", "include")
}

func cc(t *testing.T, source string, args ...string) error {
	t.Helper()
	cmd := exec.Command("cc", append([]string{"-std=gnu11", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-I."}, args...)...)
	if source != "" {
		cmd.Args = append(cmd.Args, "-xc", "-")
		cmd.Stdin = strings.NewReader(source)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Log(string(out))
	}
	return err
}

const together = "#define SELVAGE_REAL_HEADERS\n#include <wasm.h>\n#include <wasmtime.h>\n"

// TestPrototypes compiles our declarations beside the library's own headers.
func TestPrototypes(t *testing.T) {
	include := "-I" + headers(t)
	if err := cc(t, together+"#include \"wt.h\"\n", include); err != nil {
		t.Errorf("wt.h no longer agrees with wasmtime's headers: %v", err)
	}
	drifted := together + "#include \"wt.h\"\nvoid wasmtime_store_delete(int);\n"
	if cc(t, drifted, include) == nil {
		t.Error("a drifted prototype passes: the check checks nothing")
	}
}

// TestVersion holds the headers to the version that engine.Version names.
func TestVersion(t *testing.T) {
	want := "#include <wasmtime.h>\n_Static_assert(WASMTIME_VERSION_MAJOR == 39 && WASMTIME_VERSION_MINOR == 0 && WASMTIME_VERSION_PATCH == 0, \"version\");\n"
	if err := cc(t, want, "-I"+headers(t)); err != nil {
		t.Errorf("the library is not wasmtime 39.0.0: read its advisories, then change engine.Version and SECURITY.md: %v", err)
	}
}

// TestWarnings compiles the room's C with every warning as an error.
func TestWarnings(t *testing.T) {
	files, err := filepath.Glob("*.c")
	if err != nil || len(files) == 0 {
		t.Fatalf("no C files: %v", err)
	}
	if err := cc(t, "", append([]string{"-O2", "-fstack-clash-protection", "-Wshadow", "-Wmissing-prototypes"}, files...)...); err != nil {
		t.Error(err)
	}
}
