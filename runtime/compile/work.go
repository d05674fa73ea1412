package compile

import (
	"fmt"
	"strings"
	"time"

	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/image"
	"github.com/selvage-edge/selvage/runtime/jail"
	"github.com/selvage-edge/selvage/runtime/snapshot"
)

// Work is what a helper does: the executable hands it to jail.Main. It opens
// the process's engine.
func Work(verb jail.Verb, input []byte) ([]byte, error) {
	switch verb {
	case jail.Compile:
		return compileCode(input)
	case jail.Prepare:
		return prepare(input)
	default:
		return nil, fmt.Errorf("compile: there is no work %q", verb)
	}
}

// maps is for the engine of a helper, which cannot look up what the machine
// allows: one or two instances are all that it runs.
const maps = 16 << 10

func compileCode(code []byte) ([]byte, error) {
	if err := image.CheckRenewable(code); err != nil {
		return nil, refuse(err)
	}
	e, err := engine.Open(engine.Config{Maps: maps})
	if err != nil {
		return nil, err
	}
	artifact, err := e.Compile(code)
	if err != nil {
		return nil, refuse(err)
	}
	return encodeCompiled(e.Fingerprint(), artifact), nil
}

// refuse makes an error the developer's, unless the machine is at fault.
func refuse(err error) error {
	if strings.Contains(err.Error(), "os error 12") || strings.Contains(err.Error(), "annot allocate") {
		return err // ENOMEM: jail tells
	}
	return &jail.Refused{Reason: oneLine(err)}
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// prepare takes a module through everything that can go wrong with it on a
// node, so that it goes wrong here.
func prepare(input []byte) ([]byte, error) {
	mode, module, err := decodePrepare(input)
	if err != nil {
		return nil, err
	}
	found, err := Scan(module)
	if err != nil {
		return nil, refuse(err)
	}
	code, img, err := image.Split(module)
	if err != nil {
		return nil, refuse(err)
	}
	e, err := engine.Open(engine.Config{ParallelCompile: true, Maps: maps})
	if err != nil {
		return nil, err
	}
	// Split computes more than the specification allows to be there: what it took out was not looked at by the compiler.
	if err := e.Validate(module); err != nil {
		return nil, refuse(err)
	}
	p := Prepared{Code: code, Report: Report{Module: found}}
	t, err := p.try(e, img)
	if err != nil {
		return nil, err
	}
	defer t.Code.Close()
	if img, err = p.start(t, mode); err != nil {
		return nil, err
	}
	p.Report.MemoryBytes = img.Size
	p.Image = img.Encode()
	return p.encode(), nil
}

// try compiles, loads and instantiates the code: what fails here would fail on
// every node.
func (p *Prepared) try(e *engine.Engine, img *image.Image) (snapshot.Source, error) {
	began := time.Now()
	artifact, err := e.Compile(p.Code)
	if err != nil {
		return snapshot.Source{}, refuse(err)
	}
	p.Report.Compile, p.Report.Artifact = time.Since(began), len(artifact)
	c, err := e.Load(artifact)
	if err != nil {
		return snapshot.Source{}, err
	}
	l, err := e.Link(guest.Imports())
	if err != nil {
		return snapshot.Source{}, err
	}
	s := snapshot.Source{Engine: e, Linker: l, Module: p.Code, Code: c, Image: img}
	return s, instantiate(s)
}

// instantiate makes one instance and runs none of the guest.
func instantiate(s snapshot.Source) error {
	img, err := s.Engine.Image(s.Image)
	if err != nil {
		return refuse(err)
	}
	defer img.Close()
	program, err := s.Engine.Program(engine.ProgramConfig{Code: s.Code, Image: img, Linker: s.Linker})
	if err != nil {
		return refuse(err)
	}
	defer program.Close()
	in, err := program.Start(engine.StartConfig{MemoryLimit: image.MaxSize})
	if err != nil {
		return refuse(err)
	}
	defer in.Close()
	if e := in.Poll(); e.Kind == engine.Failed {
		return refuse(fmt.Errorf("the module cannot be instantiated: %w", e.Trap))
	}
	return nil
}

// printed is the end of what start-up printed, to follow the error.
func printed(s string) string {
	const most = 2000
	if s = strings.TrimSpace(s); s == "" {
		return ""
	}
	if len(s) > most {
		s = "..." + s[len(s)-most:]
	}
	return "; it printed:\n" + s
}
