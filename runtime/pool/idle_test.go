package pool_test

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/guesttest"
)

// holding is what a process has of what runs short.
type holding struct {
	files, maps int
	images      int64 // bytes of memory files
	heap        int64
}

func held(t *testing.T) holding {
	t.Helper()
	var h holding
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		path := "/proc/self/fd/" + f.Name()
		var st unix.Stat_t
		if target, err := os.Readlink(path); err == nil && strings.HasPrefix(target, "/memfd:selvage-image") && unix.Stat(path, &st) == nil {
			h.images += st.Blocks * 512
		}
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	h.files, h.maps, h.heap = len(files), bytes.Count(maps, []byte("\n")), int64(m.HeapAlloc)
	return h
}

// numbered is one of many guests: its code differs by the one number, its image by the other.
func numbered(t *testing.T, code, image int) deployed {
	return deploy(t, guesttest.Guest(t, fmt.Sprintf(`(data (i32.const 8) "image %d")
		(func (export "handle") (drop (call $response_write (i32.const 8) (i32.const %d))))`, image, code+1)))
}

// A function that nobody invokes holds no file and no mapping of its own; its image holds one of
// each, its code some mappings: what a process may have of both is limited.
func TestIdleFunctions(t *testing.T) {
	const codes, images, twice = 5, 20, 2
	p, _ := open(t, 0)
	prepare(t, p, numbered(t, codes, images)) // whatever the first one takes
	before := held(t)
	for range twice {
		for c := range codes {
			for i := range images {
				d := numbered(t, c, i)
				d.version.ID = function.ID{Project: "p", Name: fmt.Sprint("f", c, "-", i)}
				prepare(t, p, d)
			}
		}
	}
	after := held(t)
	const functions = codes * images * twice
	t.Logf("%d functions of %d codes and %d images: %d files, %d mappings, %d bytes of images and %d of heap each",
		functions, codes, images, after.files-before.files, after.maps-before.maps, (after.images-before.images)/functions, (after.heap-before.heap)/functions)
	if got := after.files - before.files; got > images {
		t.Errorf("%d files more", got)
	}
	if got := after.maps - before.maps; got > images+6*codes {
		t.Errorf("%d mappings more", got)
	}
}
