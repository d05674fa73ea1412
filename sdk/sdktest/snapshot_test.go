package sdktest

import (
	"fmt"
	"testing"

	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/guesttest"
	"github.com/selvage-edge/selvage/runtime/image"
	"github.com/selvage-edge/selvage/sdk/abi"
)

// start runs the guest's start-up once, as a deployment does, and returns the
// image it leaves behind.
func start(t testing.TB, code []byte, img *image.Image, environ ...string) (*image.Image, error) {
	t.Helper()
	if err := image.CheckSnapshot(code); err != nil {
		return nil, err
	}
	e := guesttest.Engine(t)
	artifact, err := compiled(e, code)
	if err != nil {
		return nil, err
	}
	loaded, err := e.Load(artifact)
	if err != nil {
		return nil, err
	}
	defer loaded.Close()
	mapped, err := e.Image(img)
	if err != nil {
		return nil, err
	}
	defer mapped.Close()
	linker, err := e.Link(guest.Imports())
	if err != nil {
		return nil, err
	}
	defer linker.Close()
	p, err := e.Program(engine.ProgramConfig{
		Code: loaded, Image: mapped, Linker: linker, Entries: []string{abi.ExportInitialize, abi.ExportStart}, Args: []string{"guest"}, Environ: environ,
	})
	if err != nil {
		return nil, err
	}
	defer p.Close()
	return run(p)
}

func run(p *engine.Program) (*image.Image, error) {
	instance, err := p.Start(engine.StartConfig{MemoryLimit: 128 << 20, NoHostCalls: true})
	if err != nil {
		return nil, err
	}
	defer instance.Close()
	for {
		switch ev := instance.Poll(); ev.Kind {
		case engine.Done:
			return instance.Snapshot()
		case engine.Yield:
		default:
			return nil, fmt.Errorf("start-up: %s, exit status %d\n%s", ev.Trap.Message, ev.Trap.ExitStatus, text(instance))
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
