package guesttest

import (
	"sync"
	"testing"

	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/image"
	"github.com/selvage-edge/selvage/sdk/abi"
)

// host is the one engine of the test's process.
var host = sync.OnceValues(func() (*engine.Engine, error) { return engine.Open(engine.Config{}) })

// Engine opens the engine, once; nobody closes it.
func Engine(t testing.TB) *engine.Engine {
	t.Helper()
	e, err := host()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// linker is linked once: its imports are the same for every program.
var linker = sync.OnceValues(func() (*engine.Linker, error) {
	e, err := host()
	if err != nil {
		return nil, err
	}
	return e.Link(guest.Imports())
})

// Program makes a module ready to start, compiling it here and now.
func Program(t testing.TB, module []byte) *engine.Program {
	t.Helper()
	e := Engine(t)
	code, img := Split(t, module)
	artifact, err := e.Compile(code)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := e.Load(artifact)
	if err != nil {
		t.Fatal(err)
	}
	defer loaded.Close()
	mapped, err := e.Image(img)
	if err != nil {
		t.Fatal(err)
	}
	defer mapped.Close()
	l, err := linker()
	if err != nil {
		t.Fatal(err)
	}
	p, err := e.Program(engine.ProgramConfig{
		Code: loaded, Image: mapped, Linker: l, Entries: entries(loaded), Args: []string{"guest"}, Environ: []string{"COLOUR=red"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// Split is image.Split.
func Split(t testing.TB, module []byte) (code []byte, img *image.Image) {
	t.Helper()
	code, img, err := image.Split(module)
	if err != nil {
		t.Fatal(err)
	}
	return code, img
}

func entries(c *engine.Code) []string {
	var names []string
	for _, name := range []string{image.StartExport, abi.ExportInitialize, abi.ExportStart, abi.ExportHandle} {
		if c.HasFunc(name) {
			names = append(names, name)
		}
	}
	return names
}
