package main

import (
	"context"
	"errors"
	"fmt"

	wasmtime "github.com/bytecodealliance/wasmtime-go/v39"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/selvage-edge/selvage/sdk/abi"
)

// starter runs one fresh instance of a guest from start to free.
type starter struct {
	name  string // the guest, or who runs it
	of    string // the guest, where name is who runs it
	start func() error
	close func()
}

var errSilent = errors.New("the guest did not answer")

// wasmtimeGo runs a guest through wasmtime-go's own calls: a store, an instance
// by the linker, a call of each entry.
func wasmtimeGo(name string, wasm []byte) (starter, error) {
	engine := wasmtime.NewEngine()
	module, err := wasmtime.NewModule(engine, wasm)
	if err != nil {
		return starter{}, fmt.Errorf("wasmtime-go: %w", err)
	}
	linker := wasmtime.NewLinker(engine)
	var answered int32
	err = errors.Join(linker.DefineWasi(),
		linker.FuncWrap(abi.Module, "request_read", func(_, _ int32) int32 { return 0 }),
		linker.FuncWrap(abi.Module, "response_head", func(_, _, _ int32) int32 { return 0 }),
		linker.FuncWrap(abi.Module, "response_write", func(_, n int32) int32 { answered = n; return n }))
	if err != nil {
		return starter{}, fmt.Errorf("wasmtime-go: %w", err)
	}
	run := func() error {
		answered = 0
		store := wasmtime.NewStore(engine)
		defer store.Close()
		if name != helloGuest { // which needs none
			store.SetWasi(wasmtime.NewWasiConfig())
		}
		inst, err := linker.Instantiate(store, module)
		if err != nil {
			return err
		}
		for _, entry := range []string{abi.ExportInitialize, abi.ExportHandle} {
			f := inst.GetFunc(store, entry)
			if f == nil {
				continue
			}
			if _, err := f.Call(store); err != nil {
				return err
			}
		}
		if answered == 0 {
			return errSilent
		}
		return nil
	}
	return starter{name: "wasmtime-go", of: name, start: run, close: engine.Close}, nil
}

// wazeroOne runs a guest on wazero's compiler.
func wazeroOne(name string, wasm []byte) (starter, error) {
	ctx := context.Background()
	rt := wazero.NewRuntime(ctx)
	var answered uint32
	_, err := rt.NewHostModuleBuilder(abi.Module).
		NewFunctionBuilder().WithFunc(func(_, _ uint32) uint32 { return 0 }).Export("request_read").
		NewFunctionBuilder().WithFunc(func(_, _, _ uint32) uint32 { return 0 }).Export("response_head").
		NewFunctionBuilder().WithFunc(func(_, n uint32) uint32 { answered = n; return n }).Export("response_write").
		Instantiate(ctx)
	if err == nil {
		_, err = wasi_snapshot_preview1.Instantiate(ctx, rt)
	}
	if err != nil {
		return starter{}, fmt.Errorf("wazero: %w", err)
	}
	module, err := rt.CompileModule(ctx, wasm)
	if err != nil {
		return starter{}, fmt.Errorf("wazero: %w", err)
	}
	conf := wazero.NewModuleConfig().WithName("").WithStartFunctions()
	if _, ok := module.ExportedFunctions()[abi.ExportInitialize]; ok {
		conf = conf.WithStartFunctions(abi.ExportInitialize)
	}
	run := func() error {
		answered = 0
		inst, err := rt.InstantiateModule(ctx, module, conf)
		if err != nil {
			return err
		}
		if _, err := inst.ExportedFunction(abi.ExportHandle).Call(ctx); err != nil {
			return err
		}
		if answered == 0 {
			return errSilent
		}
		return inst.Close(ctx)
	}
	return starter{name: "wazero", of: name, start: run, close: func() { _ = rt.Close(ctx) }}, nil
}
