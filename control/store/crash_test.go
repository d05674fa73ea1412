package store

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// TestMain lets the test binary be the process that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("SELVAGE_TEST_WRITER"); dir != "" {
		writer(dir)
	}
	os.Exit(m.Run())
}

// writer writes until it is killed and says each write once it was acknowledged.
func writer(dir string) {
	ctx := context.Background()
	s, err := Open(ctx, Config{Dir: dir, Reserve: 1})
	must(err)
	head, err := s.CatalogHead(ctx)
	must(err)
	for i := head; ; i++ {
		value := fmt.Sprintf("%d-%s", i, strings.Repeat("x", int(i%4096)))
		key := fmt.Sprintf("k%d", i%97)
		rev, err := s.KV().Put(ctx, links, key, []byte(value), whenever)
		must(err)
		fmt.Printf("kv %s %d %s\n", key, rev, value)
		if i%7 == 0 {
			rev, err := s.KV().Delete(ctx, links, key, int64(rev))
			must(err)
			fmt.Printf("rm %s %d\n", key, rev)
		}
		seq, err := s.AppendCatalog(ctx, "release/default/f", []byte(value), i)
		must(err)
		fmt.Printf("cat %d\n", seq)
		if i%10 == 0 {
			d, err := s.PutBlobBytes(ctx, []byte(strings.Repeat(value, 100)))
			must(err)
			fmt.Printf("blob %s\n", d)
			must(s.Audit(ctx, "default", []byte(value)))
			fmt.Println("audit")
		}
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// acked is what a writer was told is durable.
type acked struct {
	kv      map[string]string // "" for deleted
	rev     map[string]uint64
	catalog uint64
	blobs   []function.Digest
	audits  uint64
}

func (a *acked) note(line string) error {
	var key, value string
	var rev uint64
	switch kind, rest, _ := strings.Cut(line, " "); kind {
	case "kv":
		if _, err := fmt.Sscan(rest, &key, &rev, &value); err != nil {
			return err
		}
		a.kv[key], a.rev[key] = value, rev
	case "rm":
		if _, err := fmt.Sscan(rest, &key, &rev); err != nil {
			return err
		}
		a.kv[key], a.rev[key] = "", rev
	case "cat":
		_, err := fmt.Sscan(rest, &a.catalog)
		return err
	case "blob":
		a.blobs = append(a.blobs, function.Digest(rest))
	case "audit":
		a.audits++
	}
	return nil
}

// Every write that was acknowledged before a SIGKILL is there afterwards.
func TestKilledStoreKeepsWhatItAcknowledged(t *testing.T) {
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	dir := t.TempDir()
	all := &acked{kv: map[string]string{}, rev: map[string]uint64{}}
	for round := range rounds {
		runAndKill(t, dir, all, 60+40*round)
		checkAcked(t, dir, all)
	}
	if len(all.blobs) == 0 || all.audits == 0 || all.catalog == 0 {
		t.Fatalf("nothing was tried: %+v", all)
	}
}

// runAndKill starts a writer and kills it while it writes, after it said lines lines.
func runAndKill(t *testing.T, dir string, all *acked, lines int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SELVAGE_TEST_WRITER="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stuck := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer stuck.Stop()
	// A line is one write: one cut short by the kill was not acknowledged to us.
	r := bufio.NewReader(out)
	n := 0
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			break
		}
		if err := all.note(strings.TrimSuffix(line, "\n")); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if n++; n == lines {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	cmd.Wait()
	if n < lines {
		t.Fatalf("the writer stopped after %d lines", n)
	}
}

func checkAcked(t *testing.T, dir string, all *acked) {
	t.Helper()
	ctx := t.Context()
	s, err := Open(ctx, Config{Dir: dir, Reserve: 1})
	if err != nil {
		t.Fatalf("reopen: %v", err)
	}
	defer s.Close()
	for key, value := range all.kv {
		e, err := s.KV().Get(ctx, links, key)
		if err != nil && !isNotFound(err) {
			t.Errorf("%s: %v", key, err)
		}
		// A write that was never acknowledged may have come after the last one that was.
		it, ok := s.kv.find(space(links), key)
		if !ok || it.seq < all.rev[key] || it.seq == all.rev[key] && string(e.Value) != value {
			t.Errorf("%s: %+v with %.20q, acknowledged %.20q at %d", key, it, e.Value, value, all.rev[key])
		}
	}
	if head, err := s.CatalogHead(ctx); err != nil || head < all.catalog {
		t.Errorf("catalog at %d, %v; acknowledged %d", head, err, all.catalog)
	}
	for _, d := range all.blobs {
		if _, err := s.BlobBytes(ctx, d, 1<<20); err != nil {
			t.Errorf("blob: %v", err)
		}
	}
	if n, err := s.VerifyAudit(ctx); err != nil || n < all.audits {
		t.Errorf("audit trail of %d, %v; acknowledged %d", n, err, all.audits)
	}
	if _, err := s.KV().Put(ctx, links, "after", nil, hostcall.PutOptions{IfRevision: hostcall.AnyRevision}); err != nil {
		t.Errorf("write after the crash: %v", err)
	}
}
