package dev

import (
	"bytes"
	"context"
	"log/slog"
	"time"

	"github.com/selvage-edge/selvage/control/bundle"
	"github.com/selvage-edge/selvage/edge/invoke"
	"github.com/selvage-edge/selvage/edge/route"
	"github.com/selvage-edge/selvage/edge/serve"
	"github.com/selvage-edge/selvage/runtime/compile"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/hostcall"
	"github.com/selvage-edge/selvage/runtime/image"
	"github.com/selvage-edge/selvage/runtime/pool"
	"github.com/selvage-edge/selvage/runtime/symbol"
)

// moreCPU is what a limit on processor time is multiplied by: the code is not optimized,
// and start-up is part of each request.
const moreCPU = 10

// Loaded tells of a version that is live.
type Loaded struct {
	Digest  function.Digest
	Compile time.Duration // 0 when its code was compiled before
	Took    time.Duration
}

// halves is a module taken apart, and checked; a save that leaves it as it is need not do that again.
type halves struct {
	module, code, image []byte
	digests             struct{ code, image function.Digest }
	symbols             *symbol.Table
}

func take(module []byte) (*halves, error) {
	if _, err := compile.Scan(module); err != nil {
		return nil, err
	}
	code, img, err := image.Split(module)
	if err != nil {
		return nil, err
	}
	h := &halves{module: module, code: code, image: img.Encode(), symbols: symbol.New(module)}
	h.digests.code, h.digests.image = function.DigestOf(h.code), function.DigestOf(h.image)
	return h, nil
}

// Load makes a module live, on every path of every host. When it fails, the version
// before goes on. It is called by one goroutine, and keeps the module.
func (s *Server) Load(ctx context.Context, m *bundle.Manifest, module []byte) (Loaded, error) {
	begin := time.Now()
	h := s.halves
	if h == nil || !bytes.Equal(h.module, module) {
		var err error
		if h, err = take(module); err != nil {
			return Loaded{}, err
		}
	}
	if len(m.Bindings.KV) > 0 {
		if err := s.kv.open(ctx); err != nil {
			return Loaded{}, err
		}
	}
	v := function.Version{
		ID: m.ID(), Digest: function.DigestOf(append(append([]byte(nil), m.Source...), module...)),
		Code: h.digests.code, Image: h.digests.image, Limits: m.Limits.WithDefaults(), Bindings: m.Bindings,
	}
	v.Limits.CPU = min(v.Limits.CPU*moreCPU, function.Ceiling.CPU)
	f, p, err := s.pool.Prepare(ctx, v, pool.Bytes(h.code, h.image))
	if err != nil {
		return Loaded{}, err
	}
	if err := s.swap(f, h.symbols); err != nil {
		f.Release()
		return Loaded{}, err
	}
	s.halves = h
	return Loaded{Digest: v.Digest, Compile: p.CompileTime, Took: time.Since(begin)}, nil
}

func (s *Server) swap(f *pool.Function, symbols *symbol.Table) error {
	ports := s.ports
	ports.Log = sources{s.log, symbols}
	table, err := route.Build([]serve.Entry{{Pattern: "*/*", Owner: f.Version().ID.String(),
		Target: &serve.Target{Version: f.Version(), Invoker: invoke.New(f, ports)}}})
	if err != nil {
		return err
	}
	s.routes.SetRoutes(table)
	if s.now != nil {
		s.now.Release()
	}
	s.now = f
	return nil
}

// sources adds file and line to the frames of faults.
type sources struct {
	hostcall.LogSink
	symbols *symbol.Table
}

// Log implements hostcall.LogSink.
func (s sources) Log(l hostcall.Line) {
	if l.Level >= int(slog.LevelError) {
		l.Text = s.symbols.Annotate(l.Text)
	}
	s.LogSink.Log(l)
}
