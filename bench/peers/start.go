package main

import (
	"context"
	"fmt"
	"time"

	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/image"
)

// startRows measures start, call and free of a fresh instance.
func startRows(ctx context.Context, s size, hello []byte, template *prepared) ([]row, error) {
	e, err := engine.Open(engine.Config{})
	if err != nil {
		return nil, err
	}
	defer e.Close()
	linker, err := e.Link(guest.Imports())
	if err != nil {
		return nil, err
	}
	defer linker.Close()
	code, img, err := image.Split(hello)
	if err != nil {
		return nil, err
	}
	ours, err := oursOf(e, linker, "hello", code, img, []string{"handle"}, nil)
	if err != nil {
		return nil, err
	}
	defer ours.close()
	theirs, err := wasmtimeGo(hello)
	if err != nil {
		return nil, err
	}
	defer theirs.close()
	zero, err := wazeroOne(hello)
	if err != nil {
		return nil, err
	}
	defer zero.close()
	goGuest, err := oursOf(e, linker, "go", template.code, template.image, template.entries, template.head)
	if err != nil {
		return nil, err
	}
	defer goGuest.close()
	us, err := inTurn(ctx, s, []starter{ours, theirs, zero, goGuest})
	if err != nil {
		return nil, err
	}
	n := s.rounds * s.starts
	return []row{
		{Name: "start/hello", Value: us[0], Unit: "us", N: n},
		{Name: "start/hello:wasmtime-go", Value: us[0], Unit: "us", Against: theirs.name, Ratio: us[0] / us[1], N: n, goal: "<= 0.25", met: us[0]/us[1] <= 0.25},
		{Name: "start/hello:wazero", Value: us[0], Unit: "us", Against: zero.name, Ratio: us[0] / us[2], N: n, goal: "<= 0.05", met: us[0]/us[2] <= 0.05},
		{Name: "start/go", Value: us[3], Unit: "us", N: n},
	}, nil
}

// inTurn runs the sides in turn, round by round, so that a machine that slows
// down slows all of them; it returns each side's median round, in us an instance.
func inTurn(ctx context.Context, s size, sides []starter) ([]float64, error) {
	rounds := make([][]float64, len(sides))
	for i := range s.rounds + 1 {
		for j, side := range sides {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			begin := time.Now()
			for range s.starts {
				if err := side.start(); err != nil {
					return nil, fmt.Errorf("start %s: %w", side.name, err)
				}
			}
			if i > 0 { // the first round warms
				rounds[j] = append(rounds[j], float64(time.Since(begin).Nanoseconds())/1000/float64(s.starts))
			}
		}
	}
	us := make([]float64, len(sides))
	for j := range sides {
		us[j] = median(rounds[j])
	}
	return us, nil
}

// oursOf is a program started fresh each time: start, poll to the end, free.
func oursOf(e *engine.Engine, l *engine.Linker, name string, code []byte, img *image.Image, entries []string, head []byte) (starter, error) {
	artifact, err := e.Compile(code)
	if err != nil {
		return starter{}, err
	}
	c, err := e.Load(artifact)
	if err != nil {
		return starter{}, err
	}
	im, err := e.Image(img)
	if err != nil {
		return starter{}, err
	}
	p, err := e.Program(engine.ProgramConfig{Code: c, Image: im, Linker: l, Entries: entries})
	if err != nil {
		return starter{}, err
	}
	run := func() error {
		in, err := p.Start(engine.StartConfig{MemoryLimit: 128 << 20, Head: head})
		if err != nil {
			return err
		}
		defer in.Close()
		for {
			switch ev := in.Poll(); ev.Kind {
			case engine.Done:
				if len(in.Response().Body) == 0 {
					return errSilent
				}
				return nil
			case engine.Yield:
			default:
				return fmt.Errorf("%+v, trap %+v", ev, ev.Trap)
			}
		}
	}
	return starter{name, run, func() { p.Close(); im.Close(); c.Close() }}, nil
}
