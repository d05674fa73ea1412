package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/selvage-edge/selvage/control/changes"
	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/control/store"
	"github.com/selvage-edge/selvage/edge/kv"
	"github.com/selvage-edge/selvage/edge/replica"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// The kv/1m rows: a replicated namespace of a million keys of 100 B. A change stream's server and a
// follower, with a real key's signatures, over loopback in this process; what the server reads is
// made up, because to write a million keys durably takes longer than all other rows, so the
// store's own part in catching up is not in the figure. Then another process opens the copy.
const (
	copyKeys  = 1_000_000
	copyReads = 100_000   // of keys at random, before its memory is looked at
	copyPss   = 300 << 20 // bytes, at most
	copyStart = 3         // s, at most
	copyRate  = 100_000   // keys/s, at least
	copyLog   = "kv/bench/million"
	copyCache = 128 << 20 // a node's limits.kv_cache_bytes
)

var copySpace = hostcall.Namespace{Project: "bench", Name: "million"}

func copyKey(n uint64) string { return fmt.Sprintf("key-%012d", n) }

// noOrigin is away.
type noOrigin struct{ hostcall.KV }

func (noOrigin) Get(context.Context, hostcall.Namespace, string) (hostcall.Entry, error) {
	return hostcall.Entry{}, hostcall.ErrUnavailable
}

// million is a store whose log has copyKeys changes.
type million struct{}

var _ changes.Source = million{}

func (million) Epoch() uint64               { return 1 }
func (million) Head(string) (uint64, error) { return copyKeys, nil }

func (million) Subscribe([]string) (*store.Subscription, error) {
	return &store.Subscription{C: make(chan struct{})}, nil
}

func (million) Reaches(context.Context, string, uint64, uint64) (bool, error) { return true, nil }
func (million) Contradicts(context.Context, string, store.Change) (bool, error) {
	return false, nil
}

func (million) Read(_ context.Context, _ string, after uint64, o store.ReadOptions) (store.Page, error) {
	p := store.Page{From: after, To: min(after+uint64(o.Changes), copyKeys)}
	sum := sha256.Sum256(hotValue)
	for seq := after + 1; seq <= p.To; seq++ {
		p.Changes = append(p.Changes, store.Change{Seq: seq, Key: copyKey(seq), Op: store.OpPut, Size: uint32(len(hotValue)), Sum: sum, Value: hotValue})
	}
	if p.To < copyKeys {
		p.More = copyKeys
	}
	return p, nil
}

// copySink keeps the copy and tells the node's KV, as a node's agent does.
type copySink struct {
	copy  *replica.Copy
	kv    *kv.Store
	whole chan struct{}
	once  sync.Once
}

func (s *copySink) Reset(context.Context, string, uint64) error {
	return errors.New("the log begins again")
}

func (s *copySink) Apply(_ context.Context, b *changes.Batch) error {
	told, list := kv.Changes{Epoch: b.Epoch, From: b.From, To: b.To, At: b.At}, make([]replica.Change, len(b.Changes))
	for i := range b.Changes {
		c := &b.Changes[i]
		value := append([]byte{}, c.Value...)
		told.List = append(told.List, kv.Change{Key: c.Key, Revision: c.Seq, Value: value})
		list[i] = replica.Change{Key: c.Key, Value: replica.Value{Revision: c.Seq, Value: value}}
	}
	s.kv.Apply(copySpace, told)
	if err := s.copy.Apply(replica.Position{Epoch: b.Epoch, Seq: b.To}, list, len(list) == 0); err != nil {
		return err
	}
	if s.copy.Whole() {
		s.once.Do(func() { close(s.whole) })
	}
	return nil
}

func copyRows(ctx context.Context) ([]row, error) {
	dir, err := os.MkdirTemp("", "selvage-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	took, err := catchUp(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("catch up: %w", err)
	}
	got, err := openCopy(ctx, filepath.Join(dir, "replica"))
	if err != nil {
		return nil, fmt.Errorf("open the copy: %w", err)
	}
	rate := copyKeys / took.Seconds()
	return []row{
		{Name: "kv/1m:catch-up", Value: rate, Unit: "keys/s", N: copyKeys, goal: fmt.Sprintf(">= %d keys/s", copyRate), met: rate >= copyRate},
		row{Name: "kv/1m:start", Value: got.Seconds, Unit: "s", N: 1}.atMost(got.Seconds, copyStart, " s"),
		row{Name: "kv/1m:pss", Value: float64(got.Pss), Unit: "bytes", N: copyReads}.atMost(float64(got.Pss), copyPss, " bytes"),
	}, nil
}

// catchUp follows the log from its beginning until the copy is whole.
func catchUp(ctx context.Context, dir string) (time.Duration, error) {
	id, _, err := identity.Init(filepath.Join(dir, "identity"), identity.InitOptions{})
	if err != nil {
		return 0, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	server := &http.Server{Handler: changes.NewServer(changes.ServerConfig{Source: million{}, Seal: changes.SealWith(id.Changes)}), ReadHeaderTimeout: time.Second}
	go func() { _ = server.Serve(l) }() // Close ends it
	defer server.Close()
	db, _, err := replica.Open(replica.Config{Dir: filepath.Join(dir, "replica")})
	if err != nil {
		return 0, err
	}
	defer db.Close()
	s, err := kv.New(kv.Config{Origin: noOrigin{}, Bytes: copyCache})
	if err != nil {
		return 0, err
	}
	defer s.Close()
	sink := &copySink{copy: db.Copy(copySpace), kv: s, whole: make(chan struct{})}
	f := changes.NewFollower(changes.FollowerConfig{Sink: sink, Verify: changes.VerifyWith(id.Anchor),
		Open: func(ctx context.Context, r changes.Request) (io.ReadCloser, error) {
			return openChanges(ctx, "http://"+l.Addr().String()+changes.Path, r)
		}})
	running, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { defer close(ended); _ = f.Run(running) }() // its context's error only
	defer func() { stop(); <-ended }()
	begin := time.Now()
	f.Follow(changes.Want{Log: copyLog})
	select {
	case <-sink.whole:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	took := time.Since(begin)
	if keys, _ := sink.copy.Size(); keys != copyKeys {
		return 0, fmt.Errorf("the copy has %d keys, want %d", keys, copyKeys)
	}
	return took, nil
}

func openChanges(ctx context.Context, url string, r changes.Request) (io.ReadCloser, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(q)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, errors.New(resp.Status)
	}
	return resp.Body, nil
}

// opened is what the process that opened the copy says.
type opened struct {
	Seconds float64 // until the first key was read
	Pss     int64
}

func openCopy(ctx context.Context, dir string) (o opened, err error) {
	exe, err := os.Executable()
	if err != nil {
		return o, err
	}
	cmd := exec.CommandContext(ctx, exe, "-replica", dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return o, err
	}
	return o, json.Unmarshal(out, &o)
}

// runCopy opens the copy, reads a key, then many, and says how long the first took and
// how much memory all took.
func runCopy(ctx context.Context, dir string) error {
	var o opened
	begin := time.Now()
	db, discarded, err := replica.Open(replica.Config{Dir: dir})
	if err = errors.Join(err, discarded); err != nil {
		return err
	}
	defer db.Close()
	s, err := kv.New(kv.Config{Origin: noOrigin{}, Bytes: copyCache})
	if err != nil {
		return err
	}
	defer s.Close()
	s.Attach(copySpace, db.Copy(copySpace))
	r := rand.New(rand.NewPCG(1, 2))
	for i := range copyReads {
		e, err := s.Get(ctx, copySpace, copyKey(1+r.Uint64N(copyKeys)))
		if err != nil || !bytes.Equal(e.Value, hotValue) {
			return fmt.Errorf("read %d: %d bytes: %w", i, len(e.Value), err)
		}
		if i == 0 {
			o.Seconds = time.Since(begin).Seconds()
		}
	}
	if o.Pss, err = pss(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(o)
}
