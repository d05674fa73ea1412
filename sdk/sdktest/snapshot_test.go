package sdktest

import (
	"fmt"
	"sync"
	"testing"

	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/guesttest"
	"github.com/selvage-edge/selvage/runtime/image"
	"github.com/selvage-edge/selvage/runtime/snapshot"
	"github.com/selvage-edge/selvage/sdk/abi"
)

// source loads a module's halves, as a deployment does.
func source(t testing.TB, module []byte) snapshot.Source {
	t.Helper()
	code, img := guesttest.Split(t, module)
	e := guesttest.Engine(t)
	artifact, err := compiled(e, code)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := e.Load(artifact)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(loaded.Close)
	linker, err := e.Link(guest.Imports())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(linker.Close)
	return snapshot.Source{Engine: e, Linker: linker, Module: code, Code: loaded, Image: img}
}

// started returns the image that start-up leaves behind. It is taken once per
// module and test run.
func started(t testing.TB, module []byte) *image.Image {
	t.Helper()
	digest := function.DigestOf(module)
	if img, ok := images.Load(digest); ok {
		return img.(*image.Image)
	}
	r, err := snapshot.Take(source(t, module), snapshot.Default)
	if err != nil {
		t.Fatalf("%v\n%s", err, r.Printed)
	}
	images.Store(digest, r.Image)
	return r.Image
}

var images sync.Map // by the module's digest

// startWith runs start-up with an environment and returns why it failed.
func startWith(t testing.TB, s snapshot.Source, environ ...string) error {
	t.Helper()
	mapped, err := s.Engine.Image(s.Image)
	if err != nil {
		t.Fatal(err)
	}
	defer mapped.Close()
	p, err := s.Engine.Program(engine.ProgramConfig{
		Code: s.Code, Image: mapped, Linker: s.Linker, Entries: []string{abi.ExportInitialize, abi.ExportStart}, Args: []string{"guest"}, Environ: environ,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	return run(p)
}

func run(p *engine.Program) error {
	instance, err := p.Start(engine.StartConfig{MemoryLimit: 128 << 20, NoHostCalls: true})
	if err != nil {
		return err
	}
	defer instance.Close()
	for {
		switch ev := instance.Poll(); ev.Kind {
		case engine.Done:
			return nil
		case engine.Failed:
			return fmt.Errorf("%s, exit status %d\n%s", ev.Trap.Message, ev.Trap.ExitStatus, text(instance))
		}
	}
}

// text is what the guest logged.
func text(i *engine.Instance) string {
	records, _ := i.TakeLog()
	s := ""
	for _, r := range records {
		s += string(r.Text)
	}
	return s
}
