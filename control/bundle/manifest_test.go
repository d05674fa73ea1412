package bundle

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/selvage-edge/selvage/runtime/function"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestManifestErrors compares what is said of wrong manifests with golden files.
func TestManifestErrors(t *testing.T) {
	files, err := filepath.Glob("testdata/manifest/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) { golden(t, file) })
	}
}

func golden(t *testing.T, file string) {
	a, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, err = ParseManifest(ManifestName, a.Files[0].Data)
	var faults *Faults
	if !errors.As(err, &faults) {
		t.Fatalf("got %v, want faults", err)
	}
	got := faults.Error() + "\n"
	if *update {
		a.Files = []txtar.File{a.Files[0], {Name: "errors", Data: []byte(got)}}
		if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want := string(a.Files[1].Data); got != want {
		t.Errorf("got\n%swant\n%s(run go test -update if this is better)", got, want)
	}
}

const full = `
project = "shop"
name = "cart"
routes = ["Shop.example.com/cart/*", "*.example.org/*"]
snapshot = "required"

[build]
command = "make"
output = "out/cart.wasm"

[limits]
cpu = "100ms"
wall = "1m"
memory = "256MiB"
request_body = "1 MiB"
response_head = "16KiB"
log = "1KiB"
subrequests = 3
subrequests_now = 2
subrequest_body = "2GiB"
host_calls = 5000
kv_operations = 10
concurrency = 5
queue = 7
queue_wait = "2s"
weight = 30

[[kv]]
name = "items"

[[kv]]
name = "orders"
namespace = "orders-2"
access = "write"

[[backends]]
name = "pay"
url = "https://Pay.example.com:8443"
private = true
connect_timeout = "1s"
tls_timeout = "2s"
first_byte_timeout = "3s"
between_bytes_timeout = "4s"
total_timeout = "5s"

[variables]
GREETING = "hello"

[placement]
include = ["region = eu", "pop=nyc"]
exclude = ["pop=fra"]
residency = true
`

func TestManifestInFull(t *testing.T) {
	got, err := ParseManifest(ManifestName, []byte(full))
	if err != nil {
		t.Fatal(err)
	}
	want := &Manifest{
		Project: "shop", Name: "cart",
		Routes: []string{"shop.example.com/cart/*", "*.example.org/*"},
		Build:  Build{Command: "make", Output: "out/cart.wasm"}, Snapshot: function.SnapshotRequired,
		Limits: function.Limits{
			CPU: 100 * time.Millisecond, Wall: time.Minute, MemoryBytes: 256 << 20, RequestBody: 1 << 20, ResponseHead: 16 << 10,
			LogBytes: 1 << 10, Subrequests: 3, SubrequestsNow: 2, SubrequestBody: 2 << 30, HostCalls: 5000, KVOperations: 10, Concurrency: 5,
			Queue: 7, QueueWait: 2 * time.Second, Weight: 30,
		},
		Bindings: function.Bindings{
			KV: []function.KVBinding{{Name: "items", Namespace: "items"}, {Name: "orders", Namespace: "orders-2", Write: true}},
			Backends: []function.Backend{{
				Name: "pay", URL: "https://pay.example.com:8443", Private: true,
				Timeouts: function.Timeouts{
					Connect: time.Second, TLS: 2 * time.Second, FirstByte: 3 * time.Second, Between: 4 * time.Second, Total: 5 * time.Second,
				},
			}},
			Variables: map[string]string{"GREETING": "hello"},
		},
		Placement: function.Placement{Include: []string{"region=eu", "pop=nyc"}, Exclude: []string{"pop=fra"}, Residency: true},
		Source:    []byte(full),
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestManifestAtItsLeast(t *testing.T) {
	got, err := ParseManifest(ManifestName, []byte("name = 'hello'"))
	if err != nil {
		t.Fatal(err)
	}
	if got.Project != "default" || got.Build.Output != "hello.wasm" || got.Limits != (function.Limits{}) || got.ID().String() != "default/hello" {
		t.Errorf("got %+v", got)
	}
}

func TestManifestTooLong(t *testing.T) {
	long := "name = 'x'\n#" + strings.Repeat("x", MaxManifestBytes)
	if _, err := ParseManifest(ManifestName, []byte(long)); err == nil || !strings.Contains(err.Error(), "at most 65536") {
		t.Error(err)
	}
}

// TestManifestsOfTheTree reads the manifests that ship with the product.
func TestManifestsOfTheTree(t *testing.T) {
	files, err := filepath.Glob("../../sdk/examples/*/" + ManifestName)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseManifest(file, source); err != nil {
			t.Error(err)
		}
	}
}

func FuzzManifest(f *testing.F) {
	files, _ := filepath.Glob("testdata/manifest/*.txtar")
	for _, file := range files {
		if a, err := txtar.ParseFile(file); err == nil {
			f.Add(a.Files[0].Data)
		}
	}
	f.Add([]byte(full))
	f.Add([]byte("name='''x''''\n[[a.b]]\nc=[[1,2],[{d='}'}]]\n[a.b.e]\n[[a.b]]"))
	f.Fuzz(func(t *testing.T, source []byte) {
		m, err := ParseManifest(ManifestName, source)
		var faults *Faults
		if err != nil && !errors.As(err, &faults) || (err == nil) == (m == nil) {
			t.Fatalf("got %v, %v", m, err)
		}
		if faults != nil {
			checkPlaces(t, faults, source)
		}
	})
}

// checkPlaces checks that every fault stands somewhere in the file.
func checkPlaces(t *testing.T, faults *Faults, source []byte) {
	lines := strings.Split(string(source), "\n")
	for _, f := range faults.List {
		if f.Line < 1 || f.Line > len(lines) || f.Column < 1 || f.Column > len(lines[f.Line-1])+1 {
			t.Errorf("%+v is outside the file's %d lines", f, len(lines))
		}
	}
}
