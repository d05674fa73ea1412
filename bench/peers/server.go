package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/gob"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/pprof"
	"time"

	"github.com/selvage-edge/selvage/cmd/selvage/node"
	"github.com/selvage-edge/selvage/edge/invoke"
	"github.com/selvage-edge/selvage/edge/limit"
	"github.com/selvage-edge/selvage/edge/listen"
	"github.com/selvage-edge/selvage/edge/route"
	"github.com/selvage-edge/selvage/edge/serve"
	"github.com/selvage-edge/selvage/edge/telemetry"
	"github.com/selvage-edge/selvage/runtime/engine"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guest"
	"github.com/selvage-edge/selvage/runtime/pool"
)

// wire is a prepared guest between the two processes, with the host it answers.
type wire struct {
	Host        string
	Code, Image []byte
	Started     bool
}

func encodeSites(all guests) ([]byte, error) {
	var list []wire
	for host, name := range sites {
		if p := all[name]; p != nil {
			list = append(list, wire{host, p.code, p.encoded, p.started})
		}
	}
	var b bytes.Buffer
	err := gob.NewEncoder(&b).Encode(list)
	return b.Bytes(), err
}

// compiler compiles in this process: the bench has no hostile modules.
type compiler struct{ engine *engine.Engine }

func (c compiler) Artifact(_ context.Context, _ function.Digest, code []byte) ([]byte, bool, time.Duration, error) {
	begin := time.Now()
	a, err := c.engine.Compile(code)
	return a, false, time.Since(begin), err
}

// runServer serves the sites until it is killed: the whole stack of a node's data path, and beside it a bare handler.
// It profiles itself to the file named, if one is.
func runServer(ctx context.Context, profile string) error {
	var list []wire
	if err := gob.NewDecoder(os.Stdin).Decode(&list); err != nil {
		return err
	}
	e, err := engine.Open(engine.Config{})
	if err != nil {
		return err
	}
	p, err := pool.Open(pool.Config{Engine: e, Compiler: compiler{e}, Computing: node.Computing()})
	if err != nil {
		return err
	}
	var entries []serve.Entry
	for _, w := range list {
		target, err := load1(ctx, p, w, 0)
		if err != nil {
			return err
		}
		entries = append(entries, serve.Entry{Pattern: w.Host + "/*", Owner: w.Host, Target: target})
	}
	table, err := route.Build(entries)
	if err != nil {
		return err
	}
	h, err := serve.New(serve.Config{Limiter: limit.New(limit.Config{}), Telemetry: telemetry.New(telemetry.Config{Place: telemetry.Place{PoP: "bench"}})})
	if err != nil {
		return err
	}
	h.SetRoutes(table)
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	headroom := node.Headroom()
	defer runtime.KeepAlive(headroom)
	return listenAndServe(ctx, h)
}

// load1 loads a guest; concurrency 0 is the default limit.
func load1(ctx context.Context, p *pool.Pool, w wire, concurrency int) (*serve.Target, error) {
	v := function.Version{
		ID: function.ID{Project: "bench", Name: w.Host}, Digest: function.DigestOf([]byte(w.Host)),
		Code: function.DigestOf(w.Code), Image: function.DigestOf(w.Image), Started: w.Started, Limits: function.Default,
	}
	if concurrency > 0 {
		v.Limits.Concurrency = concurrency
		v.Limits.QueueWait = function.Ceiling.QueueWait // all come at once, and none is to be shed
	}
	f, _, err := p.Prepare(ctx, v, pool.Bytes(w.Code, w.Image))
	if err != nil {
		return nil, err
	}
	return &serve.Target{Version: f.Version(), Invoker: invoke.New(f, guest.Ports{})}, nil
}

// listenAndServe puts the bare handler and h behind one listener, by host, and prints its address.
func listenAndServe(ctx context.Context, h http.Handler) error {
	cert, err := throwawayCertificate()
	if err != nil {
		return err
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(tcp.Addr().(*net.TCPAddr).AddrPort()))
	if err != nil {
		return err
	}
	body := []byte("hello, world\n")
	s, err := listen.New(listen.Config{TCP: tcp, UDP: udp,
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			host := r.Host
			if h, _, err := net.SplitHostPort(host); err == nil {
				host = h
			}
			if host == memoryHost {
				serveMemory(w)
				return
			}
			if host == bareHost {
				w.Header().Set("Content-Type", "text/plain")
				_, _ = w.Write(body)
				return
			}
			h.ServeHTTP(w, r)
		})})
	if err != nil {
		return err
	}
	fmt.Println(tcp.Addr())
	stop := context.AfterFunc(ctx, func() { _ = s.Close() }) // the run is over
	defer stop()
	return s.Serve()
}

func throwawayCertificate() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"*.edge.localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
