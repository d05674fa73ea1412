// Package snapshot runs a guest's start-up once and keeps the result as an
// image, so that no request runs it again.
package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/image"
	"github.com/selvage-edge/selvage/sdk/abi"
)

// Why no snapshot was taken. Start-up then runs with every request.
var (
	ErrInexact  = errors.New("the result of start-up is more than memory and numbers, which is what an image holds")
	ErrHostCall = errors.New("start-up made a host call that waits, which only a request may do")
	ErrTime     = errors.New("start-up took too long")
	ErrMemory   = errors.New("start-up used too much memory")
	ErrFailed   = errors.New("start-up failed")
)

// Limits bound start-up. They are wider than a request's: it runs once.
type Limits struct {
	CPU         time.Duration
	Wall        time.Duration
	MemoryBytes int64
	LogBytes    int // of what start-up prints
}

// Default are the limits at deploy.
var Default = Limits{CPU: 20 * time.Second, Wall: 40 * time.Second, MemoryBytes: 512 << 20, LogBytes: 4 << 10}

// Source is what a snapshot is made from: the two halves of a module, the code
// also as the engine has it.
type Source struct {
	Engine *engine.Engine
	Linker *engine.Linker
	Module []byte // the code's bytes
	Code   *engine.Code
	Image  *image.Image // before start-up
}

// Result is what start-up led to.
type Result struct {
	Image   *image.Image // nil if no snapshot was taken
	CPU     time.Duration
	Wall    time.Duration
	Asked   engine.Asked
	Printed string // on stdout and stderr, and by the log call; bounded
}

// Take runs start-up on a fresh instance and returns its memory and globals,
// after an instance made of them has been compared with them. In start-up a
// guest may use what needs no waiting: clocks, randomness, arguments and output.
// The error is one of this package's, wrapped, when no snapshot can be taken of
// this guest; the Result then still says what was printed.
func Take(s Source, l Limits) (Result, error) {
	if err := image.CheckSnapshot(s.Module); err != nil {
		return Result{}, fmt.Errorf("%w: %w", ErrInexact, err)
	}
	r, err := s.run(s.Image, Entries(s.Code), l)
	if err != nil {
		return r, err
	}
	return r, s.verify(r.Image, l)
}

// Args are a guest's arguments, at start-up as in a request: they would be frozen otherwise.
var Args = []string{"function"}

// Entries are the exports of code that make up start-up, in order.
func Entries(code *engine.Code) []string {
	var names []string
	for _, name := range []string{image.StartExport, abi.ExportInitialize, abi.ExportStart} {
		if code.HasFunc(name) {
			names = append(names, name)
		}
	}
	return names
}

// run starts an instance of img and runs entries to their end.
func (s Source) run(img *image.Image, entries []string, l Limits) (Result, error) {
	prepared, err := s.Engine.Image(img)
	if err != nil {
		return Result{}, err
	}
	defer prepared.Close()
	p, err := s.Engine.Program(engine.ProgramConfig{
		Code: s.Code, Image: prepared, Linker: s.Linker, Entries: entries, Args: Args,
	})
	if err != nil {
		return Result{}, err
	}
	defer p.Close()
	in, err := p.Start(engine.StartConfig{MemoryLimit: l.MemoryBytes, LogLimit: l.LogBytes, NoHostCalls: true})
	if err != nil {
		return Result{}, fmt.Errorf("%w: %w", ErrFailed, err)
	}
	defer in.Close()
	return finish(in, l)
}

func finish(in *engine.Instance, l Limits) (Result, error) {
	began := time.Now()
	err := poll(in, l, began)
	r := Result{CPU: in.Usage().CPU, Wall: time.Since(began), Asked: in.Asked(), Printed: printed(in)}
	if err != nil {
		return r, err
	}
	if r.Image, err = in.Snapshot(); err != nil {
		return r, fmt.Errorf("%w: %w", ErrInexact, err)
	}
	return r, nil
}

// poll runs the guest until its entries have returned. It yields every tick.
func poll(in *engine.Instance, l Limits, began time.Time) error {
	for {
		e := in.Poll()
		switch e.Kind {
		case engine.Done:
			return nil
		case engine.Failed:
			return failure(e.Trap, l)
		case engine.Call:
			return fmt.Errorf("%w (call %d)", ErrHostCall, e.Op)
		}
		if cpu := in.Usage().CPU; cpu > l.CPU {
			return fmt.Errorf("%w: more than %s of processor time", ErrTime, l.CPU)
		}
		if time.Since(began) > l.Wall {
			return fmt.Errorf("%w: more than %s", ErrTime, l.Wall)
		}
	}
}

func failure(t *engine.Trap, l Limits) error {
	switch {
	case t.Code == engine.TrapHostCall:
		return fmt.Errorf("%w: %s", ErrHostCall, t.Message)
	case t.GrowRefused:
		return fmt.Errorf("%w: the limit is %d MiB", ErrMemory, l.MemoryBytes>>20)
	case t.Code == engine.TrapExit:
		return fmt.Errorf("%w: it exited with status %d", ErrFailed, t.ExitStatus)
	default:
		return fmt.Errorf("%w: %s: %w", ErrFailed, t.Code, t)
	}
}

func printed(in *engine.Instance) string {
	records, dropped := in.TakeLog()
	var b strings.Builder
	for _, r := range records {
		b.Write(bytes.ToValidUTF8(r.Text, []byte("?")))
		if r.Stream == engine.LogCall {
			b.WriteByte('\n')
		}
	}
	if dropped > 0 {
		fmt.Fprintf(&b, "… and %d more", dropped)
	}
	return b.String()
}

// verify makes an instance of img and compares it with img: what requests will
// start from is what start-up left.
func (s Source) verify(img *image.Image, l Limits) error {
	again, err := s.run(img, nil, l)
	if err != nil {
		return fmt.Errorf("snapshot: the image does not start: %w", err)
	}
	if !bytes.Equal(again.Image.Encode(), img.Encode()) {
		return errors.New("snapshot: an instance of the image differs from it; this is a fault of the platform, please report it")
	}
	return nil
}
