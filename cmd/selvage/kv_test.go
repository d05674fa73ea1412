package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// What the kv commands say and how they end, on a fleet.
func TestKVCommands(t *testing.T) {
	w := openWorld(t, "127.0.0.141")
	w.selvage(t, "kv", "create", "words", "--max-stale", "1m").expect(t, exitOK, "max stale 1m0s")
	w.selvage(t, "kv", "create", "words", "--max-stale", "1s").expect(t, exitUsage, "--max-stale 1s", "30s")
	w.selvage(t, "kv", "create", "words").expect(t, exitOK, "max stale 1m0s")
	w.selvage(t, "kv", "ls").expect(t, exitOK, "words", "cached", "1m0s")
	t.Run("values", w.kvValues)
	t.Run("limits", w.kvLimits)
	t.Run("many", w.kvMany)
	t.Run("increment", w.kvIncrement)
}

func (w *world) kvValues(t *testing.T) {
	file := filepath.Join(t.TempDir(), "meta")
	if err := os.WriteFile(file, []byte("\xff\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.selvage(t, "kv", "put", "words", "a", "alpha", "--ttl=1h", "--metadata", "the first").expect(t, exitOK, "revision")
	w.selvage(t, "kv", "put", "words", "bin\xff", "@"+file, "--metadata-file", file).expect(t, exitOK)
	w.selvage(t, "kv", "put", "words", "a", "b", "--metadata", "x", "--metadata-file", file).expect(t, exitUsage, "metadata-file")
	if r := w.selvage(t, "kv", "get", "words", "a"); r.out != "alpha" {
		t.Errorf("a is %q", r.out)
	}
	if r := w.selvage(t, "kv", "get", "words", "a", "--metadata"); r.out != "the first" {
		t.Errorf("its metadata is %q", r.out)
	}
	if r := w.selvage(t, "kv", "get", "words", "bin\xff"); r.out != "\xff\x00" {
		t.Errorf("bytes are %q", r.out)
	}
	var e shownEntry
	w.json(t, &e, "kv", "get", "words", "a")
	if !e.Found || e.Key != "a" || *e.Value != "alpha" || string(e.ValueBase64) != "alpha" || *e.Metadata != "the first" || e.Revision == 0 ||
		e.Expires == nil || !e.Expires.After(e.Time) || e.AsOf < e.Revision || e.Epoch == 0 || e.StaleMS != 0 {
		t.Errorf("%+v", e)
	}
	e = shownEntry{}
	w.json(t, &e, "kv", "get", "words", "bin\xff")
	if e.Key != "" || string(e.KeyBase64) != "bin\xff" || e.Value != nil || string(e.ValueBase64) != "\xff\x00" || string(e.MetadataBase64) != "\xff\x00" || e.Expires != nil {
		t.Errorf("%+v", e)
	}
	w.selvage(t, "kv", "get", "words", "none").expect(t, exitRefused, `namespace words has no key "none"`, "selvage kv ls words")
	w.selvage(t, "kv", "get", "nowhere", "a").expect(t, exitRefused, "selvage kv create nowhere")
	w.selvage(t, "kv", "list", "words").expect(t, exitOK, "KEY", "EXPIRES", "a", `"bin\xff"`)
	w.selvage(t, "kv", "ls", "words", "--metadata").expect(t, exitOK, "METADATA", "the first", `"\xff\x00"`)
	if r := w.selvage(t, "kv", "ls", "words", "--keys-only"); r.out != "a\n\"bin\\xff\"\n" {
		t.Errorf("keys only: %q", r.out)
	}
}

// json runs a command with --json and reads its result.
func (w *world) json(t *testing.T, out any, args ...string) {
	t.Helper()
	r := w.selvage(t, append(args, "--json")...)
	r.expect(t, exitOK)
	if err := json.Unmarshal([]byte(r.out), out); err != nil {
		t.Fatalf("%v: %s", err, r.out)
	}
}

func (w *world) kvLimits(t *testing.T) {
	big := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(big, make([]byte, hostcall.MaxValueBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"put", "words", "big", "@" + big},
		{"put", "words", "k", "v", "--metadata", strings.Repeat("m", hostcall.MaxMetadataBytes+1)},
		{"put", "words", "k", "v", "--metadata-file", big},
		{"put", "words", strings.Repeat("k", hostcall.MaxKeyBytes+1), "v"},
		{"put", "words", "", "v"},
		{"get", "words", "a", strings.Repeat("k", hostcall.MaxKeyBytes+1)},
	} {
		w.selvage(t, append([]string{"kv"}, args...)...).expect(t, exitRefused, "25 MiB", "1 KiB", "512 bytes")
	}
	if err := os.Truncate(big, hostcall.MaxValueBytes); err != nil {
		t.Fatal(err)
	}
	w.selvage(t, "kv", "put", "words", "big", "@"+big).expect(t, exitOK)
	if r := w.selvage(t, "kv", "get", "words", "big"); len(r.out) != hostcall.MaxValueBytes {
		t.Errorf("%d bytes came back", len(r.out))
	}
	w.selvage(t, "kv", "rm", "words", "big").expect(t, exitOK)
}

// More keys than one answer takes, and more bytes.
func (w *world) kvMany(t *testing.T) {
	keys := []string{"kv", "get", "words", "a"}
	for range hostcall.MaxReadKeys {
		keys = append(keys, "none")
	}
	w.selvage(t, keys...).expect(t, exitRefused, "alpha", "the first", "(not there)", `no key "none"`)
	var all []shownEntry
	w.json(t, &all, "kv", "get", "words", "a", "bin\xff", "a")
	if len(all) != 3 || !all[0].Found || string(all[1].KeyBase64) != "bin\xff" || all[2].Revision != all[0].Revision || all[0].Expires == nil || *all[0].Metadata != "the first" {
		t.Errorf("%+v", all)
	}
	half := filepath.Join(t.TempDir(), "half")
	if err := os.WriteFile(half, make([]byte, hostcall.MaxReadBytes/2+1), 0o600); err != nil {
		t.Fatal(err)
	}
	w.selvage(t, "kv", "put", "words", "h1", "@"+half).expect(t, exitOK)
	w.selvage(t, "kv", "put", "words", "h2", "@"+half).expect(t, exitOK)
	w.selvage(t, "kv", "get", "words", "h1", "a", "h2").expect(t, exitOK, "alpha", "(16777217 bytes)")
	w.selvage(t, "kv", "rm", "words", "h1").expect(t, exitOK)
	w.selvage(t, "kv", "rm", "words", "h2").expect(t, exitOK)
}

func (w *world) kvIncrement(t *testing.T) {
	for _, c := range []struct{ by, want string }{{"", "1\n"}, {"--by=41", "42\n"}, {"--by=-43", "-1\n"}} {
		args := []string{"kv", "increment", "words", "n"}
		if c.by != "" {
			args = append(args, c.by)
		}
		if r := w.selvage(t, args...); r.out != c.want || r.code != exitOK {
			t.Errorf("%s: %+v", c.by, r)
		}
	}
	w.selvage(t, "kv", "increment", "words", "a").expect(t, exitRefused, "no decimal number")
	w.selvage(t, "kv", "increment", "words", "n", "--by=some").expect(t, exitUsage, "--by")
	var sum struct {
		Value    int64
		Revision uint64
	}
	w.json(t, &sum, "kv", "increment", "words", "n", "--by=2")
	if sum.Value != 1 || sum.Revision == 0 {
		t.Errorf("%+v", sum)
	}
}
