package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/snapshot"
	"github.com/selvage-edge/selvage/sdk/abi"
)

// startGoals are the most that start, call and free of a fresh instance may
// take: us, and times what the others take.
var startGoals = map[string]struct{ us, wasmtime, wazero float64 }{
	helloGuest:   {us: 4, wasmtime: 0.25, wazero: 0.05},
	goGuest:      {us: 8},
	handlerGuest: {us: 60},
	httpbinGuest: {us: 200},
}

// room is an engine with guests' programs, as a node's server has them.
type room struct {
	linker *engine.Linker
	sides  []starter
}

// oneEngine is the process's; it ends with it.
var oneEngine = sync.OnceValues(func() (*engine.Engine, error) { return engine.Open(engine.Config{}) })

func openRoom(all guests, names ...string) (*room, error) {
	e, err := oneEngine()
	if err != nil {
		return nil, err
	}
	r := &room{}
	if r.linker, err = e.Link(guest.Imports()); err != nil {
		r.close()
		return nil, err
	}
	for _, name := range names {
		g := all[name]
		if g == nil {
			continue
		}
		side, err := oursOf(e, r.linker, name, g)
		if err != nil {
			r.close()
			return nil, fmt.Errorf("start %s: %w", name, err)
		}
		r.sides = append(r.sides, side)
	}
	return r, nil
}

func (r *room) close() {
	for _, side := range r.sides {
		side.close()
	}
	if r.linker != nil {
		r.linker.Close()
	}
}

// startRows measures start, call and free of a fresh instance of each guest, and
// the same by the others' own calls for those that are no http.Handler.
func startRows(ctx context.Context, s size, all guests) ([]row, error) {
	ours, err := openRoom(all, helloGuest, cGuest, goGuest, handlerGuest, httpbinGuest)
	if err != nil {
		return nil, err
	}
	defer ours.close()
	sides := ours.sides
	for _, name := range []string{helloGuest, cGuest, goGuest} {
		if all[name] == nil {
			continue
		}
		for _, other := range []func(string, []byte) (starter, error){wasmtimeGo, wazeroOne} {
			side, err := other(name, all[name].module)
			if err != nil {
				return nil, err
			}
			defer side.close()
			sides = append(sides, side)
		}
	}
	us, n, err := inTurn(ctx, s, sides)
	if err != nil {
		return nil, err
	}
	var rows []row
	for i, side := range ours.sides {
		goals := startGoals[side.name]
		rows = append(rows, row{Name: "start/" + side.name, Value: us[i], Unit: "us", N: n[i]}.atMost(us[i], goals.us, "us"))
		for j, other := range sides {
			if other.of != side.name {
				continue
			}
			most, ratio := goals.wazero, us[i]/us[j]
			if other.name == "wasmtime-go" {
				most = goals.wasmtime
			}
			rows = append(rows, row{Name: "start/" + side.name + ":" + other.name, Value: us[i], Unit: "us",
				Against: other.name, Ratio: ratio, N: n[j]}.atMost(ratio, most, "x"))
		}
	}
	return rows, nil
}

// scaleRows compares fresh instances a second on two processors, in one process,
// with those on one.
func scaleRows(ctx context.Context, s size, all guests) ([]row, error) {
	if runtime.GOMAXPROCS(0) < 2 {
		return nil, errors.New("scale: there is one processor only")
	}
	r, err := openRoom(all, helloGuest, goGuest, handlerGuest)
	if err != nil {
		return nil, err
	}
	defer r.close()
	var rows []row
	for _, side := range r.sides {
		var one, two []float64
		for range s.rounds {
			for width, rates := range map[int]*[]float64{1: &one, 2: &two} {
				rate, err := startRate(ctx, side, width, s.load/3)
				if err != nil {
					return nil, err
				}
				*rates = append(*rates, rate)
			}
		}
		a, b := median(one), median(two)
		rows = append(rows, row{Name: "scale/" + side.name, Value: b, Unit: "/s", Against: "one core", Ratio: b / a, N: s.rounds,
			goal: ">= 1.5x", met: b/a >= 1.5})
	}
	return rows, nil
}

// startRate has so many goroutines start instances for so long; instances a second.
func startRate(ctx context.Context, side starter, width int, d time.Duration) (float64, error) {
	var group sync.WaitGroup
	counts, errs := make([]int, width), make([]error, width)
	begin := time.Now()
	for i := range width {
		group.Go(func() {
			for time.Since(begin) < d && ctx.Err() == nil {
				if errs[i] = side.start(); errs[i] != nil {
					return
				}
				counts[i]++
			}
		})
	}
	group.Wait()
	took, total := time.Since(begin), 0
	for _, n := range counts {
		total += n
	}
	return float64(total) / took.Seconds(), errors.Join(append(errs, ctx.Err())...)
}

// inTurn runs the sides in turn, round by round, so that a machine that slows
// down slows all of them; it returns each side's median round, in us an
// instance, and its instances. A side's round is s.starts instances, or as many
// as it makes in s.load/4.
func inTurn(ctx context.Context, s size, sides []starter) (us []float64, n []int, err error) {
	rounds := make([][]float64, len(sides))
	n = make([]int, len(sides))
	for i := range s.rounds + 1 {
		for j, side := range sides {
			if err := ctx.Err(); err != nil {
				return nil, nil, err
			}
			begin, done := time.Now(), 0
			for ; done < s.starts && time.Since(begin) < s.load/4; done++ {
				if err := side.start(); err != nil {
					return nil, nil, fmt.Errorf("start %s %s: %w", side.name, side.of, err)
				}
			}
			if i > 0 { // the first round warms
				rounds[j] = append(rounds[j], float64(time.Since(begin).Nanoseconds())/1000/float64(done))
				n[j] += done
			}
		}
	}
	for j := range sides {
		us = append(us, median(rounds[j]))
	}
	return us, n, nil
}

// oursOf is a program started fresh each time: start, poll to the end, free.
func oursOf(e *engine.Engine, l *engine.Linker, name string, g *prepared) (starter, error) {
	artifact, err := e.Compile(g.code)
	if err != nil {
		return starter{}, err
	}
	c, err := e.Load(artifact)
	if err != nil {
		return starter{}, err
	}
	im, err := e.Image(g.image)
	if err != nil {
		return starter{}, err
	}
	entries := []string{abi.ExportHandle}
	if !g.started {
		entries = append(snapshot.Entries(c), entries...)
	}
	p, err := e.Program(engine.ProgramConfig{Code: c, Image: im, Linker: l, Entries: entries})
	if err != nil {
		return starter{}, err
	}
	run := func() error {
		in := new(engine.Instance)
		ev, err := p.Run(in, &engine.StartConfig{MemoryLimit: 128 << 20, Head: g.head})
		if err != nil {
			return err
		}
		defer in.Close()
		for ; ; ev = in.Poll() {
			switch ev.Kind {
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
	return starter{name: name, start: run, close: func() { p.Close(); im.Close(); c.Close() }}, nil
}
