package store

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// open opens a store in a folder of its own.
func open(t testing.TB, change ...func(*Config)) *Store {
	t.Helper()
	cfg := Config{Dir: t.TempDir(), MaxBytes: 1 << 30, Reserve: 1}
	for _, c := range change {
		c(&cfg)
	}
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// until waits for a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestConfigReportsEveryFault(t *testing.T) {
	for name, c := range map[string]Config{
		"nowhere":          {},
		"two replicas":     {Dir: "d", Replicas: 2},
		"embedded is one":  {Dir: "d", Replicas: 3},
		"negative":         {Dir: "d", MaxBytes: -1},
		"short tombstones": {Dir: "d", TombstoneLife: time.Millisecond},
		"several of them":  {Replicas: 4, Reserve: -1},
	} {
		if c.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := (&Config{Dir: "d"}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestOneProcessAtATime(t *testing.T) {
	s := open(t)
	if _, err := Open(t.Context(), Config{Dir: s.cfg.Dir}); err == nil {
		t.Fatal("two stores share a folder")
	}
}

func TestEpochOutlivesAndGrows(t *testing.T) {
	dir := t.TempDir()
	reopen := func() *Store {
		s, err := Open(t.Context(), Config{Dir: dir, Reserve: 1})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := reopen()
	first := s.Epoch()
	s.Close()
	s = reopen()
	if s.Epoch() != first || first == 0 {
		t.Fatalf("epoch %d after %d", s.Epoch(), first)
	}
	next, err := s.NewEpoch(t.Context())
	if err != nil || next <= first {
		t.Fatalf("new epoch %d after %d: %v", next, first, err)
	}
	s.Close()
	s = reopen()
	defer s.Close()
	if s.Epoch() != next {
		t.Fatalf("epoch %d, want %d", s.Epoch(), next)
	}
}

func TestFullDiskRefusesAndKeepsServing(t *testing.T) {
	s := open(t)
	ns := hostcall.Namespace{Project: "p", Name: "n"}
	put := func(v string) error {
		_, err := s.KV().Put(t.Context(), ns, "k", []byte(v), hostcall.PutOptions{IfRevision: hostcall.AnyRevision})
		return err
	}
	if err := put("before"); err != nil {
		t.Fatal(err)
	}
	s.disk.reserve = 1 << 60
	if err := put("after"); !errors.Is(err, ErrFull) {
		t.Fatalf("put on a full disk: %v", err)
	}
	if err := s.Health(t.Context()); !errors.Is(err, ErrFull) {
		t.Fatalf("health on a full disk: %v", err)
	}
	if _, err := s.PutBlobBytes(t.Context(), []byte("x")); !errors.Is(err, ErrFull) {
		t.Fatalf("blob on a full disk: %v", err)
	}
	if e, err := s.KV().Get(t.Context(), ns, "k"); err != nil || string(e.Value) != "before" {
		t.Fatalf("read on a full disk: %q, %v", e.Value, err)
	}
	s.disk.reserve = 1
	if err := put("after"); err != nil {
		t.Fatalf("put after space was freed: %v", err)
	}
}

func TestBoundOfTheStore(t *testing.T) {
	s := open(t, func(c *Config) { c.MaxBytes = 4 << 20 })
	ns := hostcall.Namespace{Project: "p", Name: "n"}
	value := make([]byte, 1<<20)
	var err error
	for i := 0; i < 8 && err == nil; i++ {
		_, err = s.KV().Put(t.Context(), ns, string(rune('a'+i)), value, hostcall.PutOptions{IfRevision: hostcall.AnyRevision})
	}
	if !errors.Is(err, ErrFull) {
		t.Fatalf("writing past the bound: %v", err)
	}
	if err := s.Audit(t.Context(), "p", []byte("it was refused")); err != nil {
		t.Fatalf("recording that: %v", err)
	}
	if _, err := s.KV().Get(t.Context(), ns, "a"); err != nil {
		t.Fatalf("reading at the bound: %v", err)
	}
}

func TestCloseEndsWhatWaits(t *testing.T) {
	s := open(t)
	if err := s.Health(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.kv.wrote(1 << 40)
	if _, _, err := s.KV().List(ctx, hostcall.Namespace{Project: "p", Name: "n"}, "", "", 1); !errors.Is(err, hostcall.ErrUnavailable) {
		t.Fatalf("list that cannot be current: %v", err)
	}
}

// What the promises rest on cannot be seen from outside: a killed process loses
// nothing even without it, a machine that loses power does.
func TestEmbeddedServerSyncsAndListensNowhere(t *testing.T) {
	s := open(t)
	if c := s.srv.JetStreamConfig(); !c.SyncAlways || c.MaxStore != s.cfg.MaxBytes {
		t.Errorf("jetstream runs with %+v", c)
	}
	if a := s.srv.Addr(); a != nil {
		t.Errorf("it listens on %v", a)
	}
}
