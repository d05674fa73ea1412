package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/selvage-edge/selvage/control/api"
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
	t.Run("export and import", w.kvDump)
	t.Run("import goes on", w.kvImportGoesOn)
	t.Run("watch", w.kvWatch)
	t.Run("stats", w.kvStats)
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
	w.selvage(t, "kv", "put", "words", "piped", "@"+piped(t, hostcall.MaxValueBytes)).expect(t, exitOK)
	if r := w.selvage(t, "kv", "get", "words", "piped"); len(r.out) != hostcall.MaxValueBytes {
		t.Errorf("%d bytes of what was piped came back", len(r.out))
	}
	w.selvage(t, "kv", "put", "words", "piped", "@"+piped(t, hostcall.MaxValueBytes+1)).expect(t, exitRefused, "25 MiB")
	w.selvage(t, "kv", "put", "words", "piped", "@"+t.TempDir()).expect(t, exitFailed, "directory")
	w.selvage(t, "kv", "rm", "words", "piped").expect(t, exitOK)
	w.selvage(t, "kv", "rm", "words", "big").expect(t, exitOK)
}

// piped is a named pipe that so many bytes come from.
func piped(t *testing.T, size int64) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	var writing sync.WaitGroup
	writing.Go(func() {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return
		}
		defer f.Close()
		_, _ = f.Write(make([]byte, size)) // who reads may not want all of it
	})
	t.Cleanup(writing.Wait)
	return name
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

// What was exported and imported elsewhere is the same; an export that was cut off goes on.
func (w *world) kvDump(t *testing.T) {
	dir := t.TempDir()
	file, again := filepath.Join(dir, "words"), filepath.Join(dir, "again")
	w.selvage(t, "kv", "create", "copy").expect(t, exitOK)
	var made exported
	w.json(t, &made, "kv", "export", "words", file)
	text := read(t, file)
	if made.Keys < 3 || int64(strings.Count(text, "\n")) != made.Keys || made.AsOf == 0 || !strings.Contains(text, `{"key":"a","value":"alpha","metadata":"the first","expires":"20`) {
		t.Fatalf("%+v\n%s", made, text)
	}
	w.selvage(t, "kv", "export", "words", file).expect(t, exitUsage, "is there already", "--resume")
	w.selvage(t, "kv", "import", "copy", file).expect(t, exitOK, "keys written")
	if r := w.selvage(t, "kv", "export", "copy", "-"); r.out != text || !strings.Contains(r.errout, "revision") {
		t.Errorf("the copy is\n%s(%s), not\n%s", r.out, r.errout, text)
	}
	// Cut off within the second line.
	first := strings.Index(text, "\n") + 1
	cut := func(note string) {
		t.Helper()
		if err := errors.Join(os.WriteFile(again, []byte(text[:first+5]), 0o600), os.WriteFile(again+".note", []byte(note), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	of := func(as uint64) string {
		return fmt.Sprintf(`{"namespace":"default/words","epoch":%d,"as_of":%d,"begun":true}`, made.Epoch, as)
	}
	cut(of(made.AsOf - 1))
	var on exported
	w.json(t, &on, "kv", "export", "words", again, "--resume")
	if got := read(t, again); got != text || on.AsOf != made.AsOf-1 {
		t.Errorf("gone on, as of %d, with:\n%s", on.AsOf, got)
	}
	w.selvage(t, "kv", "export", "words", again, "--resume").expect(t, exitUsage, "it is whole")
	cut(of(made.AsOf))
	for refused, args := range map[string][]string{
		"an export of default/words": {"copy", again},
		`not of default/words`:       {"words", again, "--prefix", "b"},
	} {
		w.selvage(t, append([]string{"kv", "export", "--resume"}, args...)...).expect(t, exitUsage, refused)
	}
	cut(`{"namespace":"default/words","epoch":1,"as_of":1,"begun":true}`)
	w.selvage(t, "kv", "export", "words", again, "--resume").expect(t, exitFailed, "began anew")
	cut("some text")
	w.selvage(t, "kv", "export", "words", again, "--resume").expect(t, exitUsage, "no note of an export")
	if got := read(t, again); !strings.HasPrefix(text, got) || len(got) < first {
		t.Errorf("refused, and left:\n%s", got)
	}
	if r := w.selvage(t, "kv", "export", "words", "-", "--cursor", "YQ"); text[first:] != r.out || strings.Contains(r.errout, "revision") {
		t.Errorf("after a: %s(%s)", r.out, r.errout)
	}
	if r := w.selvage(t, "kv", "export", "words", "-", "--prefix", "bin"); strings.Count(r.out, "\n") != 1 {
		t.Errorf("by prefix: %s", r.out)
	}
	cut(of(1))
	if err := os.WriteFile(again, []byte("some text\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.selvage(t, "kv", "export", "words", again, "--resume").expect(t, exitFailed, "line 1", "JSON object")
	if got := read(t, again); got != "some text\n" {
		t.Errorf("a file of others was changed: %q", got)
	}
}

func (w *world) kvImportGoesOn(t *testing.T) {
	dir := t.TempDir()
	file, note := filepath.Join(dir, "in"), filepath.Join(dir, "note")
	lines := func(third string) {
		t.Helper()
		text := `{"key":"x","value":"1"}` + "\n" + `{"key":"old","value":"1","expires":"2020-01-01T00:00:00Z"}` + "\n" + third + "\n" + `{"key_base64":"/w==","value":"4"}` + "\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lines(`{"key":"y","valu":"1"}`)
	w.selvage(t, "kv", "import", "copy", file, "--dry-run").expect(t, exitFailed, "line 3", `"valu"`)
	w.selvage(t, "kv", "get", "copy", "x").expect(t, exitRefused, "no key")
	w.selvage(t, "kv", "import", "copy", file, "--resume", note).expect(t, exitFailed, "line 3", `"valu"`, "up to line 2", "the same --resume")
	w.selvage(t, "kv", "get", "copy", "x").expect(t, exitOK, "1")
	w.selvage(t, "kv", "import", "words", file, "--resume", note).expect(t, exitUsage, "default/copy")
	w.selvage(t, "kv", "put", "copy", "x", "2").expect(t, exitOK)
	lines(`{"key":"y","value":"1"}`)
	var sum imported
	w.json(t, &sum, "kv", "import", "copy", file, "--resume", note)
	if sum.Resumed != 2 || sum.Written != 2 || sum.Over != 0 || sum.Done.Line != 4 {
		t.Errorf("%+v", sum)
	}
	if _, err := os.Stat(note); err == nil {
		t.Error("the note is still there")
	}
	w.selvage(t, "kv", "get", "copy", "x", "y", "\xff").expect(t, exitOK, "2", "4") // x was not written again
	w.selvage(t, "kv", "import", "copy", file).expect(t, exitOK, "3 keys written", "1 left out")
	w.selvage(t, "kv", "import", "copy", file, "--from-line", "4").expect(t, exitOK, "1 keys written")
	w.selvage(t, "kv", "import", "nowhere", file).expect(t, exitRefused, "line 1", "selvage kv create nowhere", "--from-line 1")
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (w *world) kvWatch(t *testing.T) {
	w.selvage(t, "kv", "create", "seen").expect(t, exitOK)
	var put struct{ Revision uint64 }
	w.json(t, &put, "kv", "put", "seen", "a", "1", "--metadata", "m")
	w.selvage(t, "kv", "put", "seen", "b\xff", "2").expect(t, exitOK)
	w.selvage(t, "kv", "rm", "seen", "b\xff").expect(t, exitOK)
	w.selvage(t, "kv", "watch", "seen", "--since", "0", "--once").expect(t, exitOK, fmt.Sprintf("%d put a 1 metadata m", put.Revision), `delete "b\xff"`)
	since := fmt.Sprint(put.Revision)
	if r := w.selvage(t, "kv", "watch", "seen", "--since", since, "--once"); strings.Contains(r.out, "put a") || !strings.Contains(r.out, "delete") {
		t.Errorf("since %s: %s", since, r.out)
	}
	if r := w.selvage(t, "kv", "watch", "seen", "--since", "0", "--prefix", "a", "--once"); strings.Contains(r.out, "delete") {
		t.Errorf("by prefix: %s", r.out)
	}
	w.selvage(t, "kv", "watch", "seen", "--since", "9999999", "--once").expect(t, exitOK, "-- gap", "put a 1")
	w.selvage(t, "kv", "watch", "seen", "--since=-2").expect(t, exitUsage, "--since -2")
	w.selvage(t, "kv", "watch", "nowhere").expect(t, exitRefused, "selvage kv create nowhere")
	// One that is under way is told of what comes, and ends after it.
	done := make(chan result)
	go func() {
		done <- w.selvage(t, "kv", "watch", "seen", "--since", since, "--prefix", "c", "--count", "2", "--json")
	}()
	w.selvage(t, "kv", "put", "seen", "c1", "3").expect(t, exitOK)
	w.selvage(t, "kv", "put", "seen", "c2", "4").expect(t, exitOK)
	r := <-done
	r.expect(t, exitOK, `"type":"open"`, `"key":"c1"`, `"key":"c2"`, `"value":"3"`)
	if strings.Index(r.out, "c1") > strings.Index(r.out, "c2") {
		t.Errorf("out of order: %s", r.out)
	}
}

func (w *world) kvStats(t *testing.T) {
	var s api.NamespaceStats
	w.json(t, &s, "kv", "stats", "seen")
	if s.Keys != 3 || s.Bytes != 1+1+1+2*(2+1) || len(s.PoPs) != 1 || s.PoPs[0].Nodes != 1 || s.PoPs[0].Reported.IsZero() {
		t.Errorf("%+v", s)
	}
	w.selvage(t, "kv", "stats", "seen").expect(t, exitOK, "seen: 3 keys", "HITS", "all", "READS AT MOST SO OLD", "10ms")
	w.selvage(t, "kv", "stats", "nowhere").expect(t, exitRefused, "selvage kv create nowhere")
}
