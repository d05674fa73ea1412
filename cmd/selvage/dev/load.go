package dev

import (
	"context"
	"time"

	"github.com/selvage-edge/selvage/control/bundle"
	"github.com/selvage-edge/selvage/edge/invoke"
	"github.com/selvage-edge/selvage/edge/route"
	"github.com/selvage-edge/selvage/edge/serve"
	"github.com/selvage-edge/selvage/runtime/compile"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/image"
	"github.com/selvage-edge/selvage/runtime/pool"
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

// Load makes a module live, on every path of every host. When it fails, the version
// before goes on. It is called by one goroutine.
func (s *Server) Load(ctx context.Context, m *bundle.Manifest, module []byte) (Loaded, error) {
	begin := time.Now()
	if _, err := compile.Scan(module); err != nil {
		return Loaded{}, err
	}
	code, img, err := image.Split(module)
	if err != nil {
		return Loaded{}, err
	}
	if len(m.Bindings.KV) > 0 {
		if err := s.kv.open(ctx); err != nil {
			return Loaded{}, err
		}
	}
	encoded := img.Encode()
	v := function.Version{
		ID: m.ID(), Digest: function.DigestOf(append(append([]byte(nil), m.Source...), module...)),
		Code: function.DigestOf(code), Image: function.DigestOf(encoded), Limits: m.Limits.WithDefaults(), Bindings: m.Bindings,
	}
	v.Limits.CPU = min(v.Limits.CPU*moreCPU, function.Ceiling.CPU)
	f, p, err := s.pool.Prepare(ctx, v, code, encoded)
	if err != nil {
		return Loaded{}, err
	}
	if err := s.swap(f); err != nil {
		f.Release()
		return Loaded{}, err
	}
	return Loaded{Digest: v.Digest, Compile: p.CompileTime, Took: time.Since(begin)}, nil
}

func (s *Server) swap(f *pool.Function) error {
	table, err := route.Build([]serve.Entry{{Pattern: "*/*", Owner: f.Version().ID.String(),
		Target: &serve.Target{Version: f.Version(), Invoker: invoke.New(f, s.ports)}}})
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
