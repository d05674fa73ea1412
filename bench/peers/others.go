package main

import (
	"context"
	"errors"
	"fmt"

	wasmtime "github.com/bytecodealliance/wasmtime-go/v39"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// starter runs one fresh instance of hello from start to free.
type starter struct {
	name  string
	start func() error
	close func()
}

// helloBody is how many bytes hello answers; each side checks that it did.
const helloBody = 13

var errSilent = errors.New("the guest did not answer")

// wasmtimeGo is hello through wasmtime-go's own calls: a store, an instance by the linker, a call.
func wasmtimeGo(wasm []byte) (starter, error) {
	engine := wasmtime.NewEngine()
	module, err := wasmtime.NewModule(engine, wasm)
	if err != nil {
		return starter{}, fmt.Errorf("wasmtime-go: %w", err)
	}
	linker := wasmtime.NewLinker(engine)
	var answered int32
	if err := linker.FuncWrap("selvage_v1", "response_head", func(_, _, _ int32) int32 { return 0 }); err != nil {
		return starter{}, fmt.Errorf("wasmtime-go: %w", err)
	}
	if err := linker.FuncWrap("selvage_v1", "response_write", func(_, n int32) int32 { answered = n; return n }); err != nil {
		return starter{}, fmt.Errorf("wasmtime-go: %w", err)
	}
	run := func() error {
		answered = 0
		store := wasmtime.NewStore(engine)
		defer store.Close()
		inst, err := linker.Instantiate(store, module)
		if err != nil {
			return err
		}
		if _, err := inst.GetFunc(store, "handle").Call(store); err != nil {
			return err
		}
		if answered != helloBody {
			return errSilent
		}
		return nil
	}
	return starter{"wasmtime-go", run, engine.Close}, nil
}

// wazeroOne is hello on wazero's compiler.
func wazeroOne(wasm []byte) (starter, error) {
	ctx := context.Background()
	rt := wazero.NewRuntime(ctx)
	var answered uint32
	_, err := rt.NewHostModuleBuilder("selvage_v1").
		NewFunctionBuilder().WithFunc(func(_, _, _ uint32) uint32 { return 0 }).Export("response_head").
		NewFunctionBuilder().WithFunc(func(_, n uint32) uint32 { answered = n; return n }).Export("response_write").
		Instantiate(ctx)
	if err != nil {
		return starter{}, fmt.Errorf("wazero: %w", err)
	}
	module, err := rt.CompileModule(ctx, wasm)
	if err != nil {
		return starter{}, fmt.Errorf("wazero: %w", err)
	}
	conf := wazero.NewModuleConfig().WithName("").WithStartFunctions()
	run := func() error {
		answered = 0
		var inst api.Module
		inst, err := rt.InstantiateModule(ctx, module, conf)
		if err != nil {
			return err
		}
		if _, err := inst.ExportedFunction("handle").Call(ctx); err != nil {
			return err
		}
		if answered != helloBody {
			return errSilent
		}
		return inst.Close(ctx)
	}
	return starter{"wazero", run, func() { _ = rt.Close(ctx) }}, nil
}
