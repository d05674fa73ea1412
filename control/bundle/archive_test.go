package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/selvage-edge/selvage/runtime/function"
)

var (
	plainManifest = []byte("name = \"hello\"\nroutes = [\"hello.example.com/*\"]\n")
	plainModule   = []byte("\x00asm\x01\x00\x00\x00")
)

func pack(t testing.TB, manifest, module []byte) []byte {
	t.Helper()
	b, digest, err := Pack(manifest, module)
	if err != nil {
		t.Fatal(err)
	}
	if digest != function.DigestOf(b) {
		t.Fatal("the digest is not the bytes'")
	}
	return b
}

func TestPackIsDeterministicAndOpens(t *testing.T) {
	module := make([]byte, 3<<20)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range module {
		module[i] = byte(rng.IntN(50))
	}
	a, b := pack(t, plainManifest, module), pack(t, plainManifest, module)
	if !bytes.Equal(a, b) {
		t.Error("two packings of one content differ")
	}
	got, err := Open(a, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Module, module) || !bytes.Equal(got.Manifest.Source, plainManifest) || got.Digest != function.DigestOf(a) {
		t.Error("not what was packed")
	}
}

func TestPackRefuses(t *testing.T) {
	var faults *Faults
	if _, _, err := Pack([]byte("nmae = 'x'"), plainModule); !errors.As(err, &faults) {
		t.Errorf("a wrong manifest: %v", err)
	}
	if _, _, err := Pack(plainManifest, make([]byte, 65<<20)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a large module: %v", err)
	}
}

// put is one entry of a hand-made archive.
type put struct {
	head tar.Header
	data []byte
}

func file(name string, data []byte) put {
	return put{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Format: tar.FormatUSTAR}, data}
}

func archive(t testing.TB, puts ...put) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, p := range puts {
		if p.head.Size = int64(len(p.data)); p.head.Typeflag != tar.TypeReg {
			p.head.Size = 0
		}
		if err := w.WriteHeader(&p.head); err != nil {
			t.Fatal(err)
		}
		if p.head.Size > 0 {
			if _, err := w.Write(p.data); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func squeeze(t testing.TB, raw []byte, o ...zstd.EOption) []byte {
	t.Helper()
	e, err := zstd.NewWriter(nil, append([]zstd.EOption{zstd.WithEncoderConcurrency(1)}, o...)...)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	return e.EncodeAll(raw, nil)
}

// with returns a plain entry, changed.
func with(p put, change func(*tar.Header)) put {
	change(&p.head)
	return p
}

// hostile returns archives that someone might send, by what is wrong with them.
func hostile(t testing.TB) map[string][]byte {
	man, mod := file(ManifestName, plainManifest), file(moduleName, plainModule)
	good := archive(t, man, mod)
	tarOf := func(puts ...put) []byte { return squeeze(t, archive(t, puts...)) }
	link := func(typ byte, target string) put {
		return put{tar.Header{Typeflag: typ, Name: moduleName, Linkname: target, Format: tar.FormatUSTAR}, nil}
	}
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	w.Write(good)
	w.Close()
	packed := squeeze(t, good)

	corpus := map[string][]byte{
		"nothing":              {},
		"not zstd":             []byte("hello"),
		"a bare tar":           good,
		"gzip":                 gz.Bytes(),
		"an empty tar":         tarOf(),
		"zstd of nothing":      squeeze(t, nil),
		"zstd of text":         squeeze(t, []byte("hello")),
		"no module":            tarOf(man),
		"no manifest":          tarOf(mod),
		"the wrong order":      tarOf(mod, man),
		"the manifest twice":   tarOf(man, man, mod),
		"the module twice":     tarOf(man, mod, mod),
		"one more file":        tarOf(man, mod, file("x", []byte("x"))),
		"dot slash":            tarOf(file("./"+ManifestName, plainManifest), mod),
		"dot dot":              tarOf(man, file("../"+moduleName, plainModule)),
		"absolute":             tarOf(man, file("/etc/passwd", plainModule)),
		"upper case":           tarOf(man, file("MODULE.WASM", plainModule)),
		"a long name":          tarOf(man, file(strings.Repeat("x", 90), plainModule)),
		"a name with a zero":   zeroInName(good),
		"symlink":              tarOf(man, link(tar.TypeSymlink, "/etc/passwd")),
		"hard link":            tarOf(man, link(tar.TypeLink, ManifestName)),
		"device":               tarOf(man, put{tar.Header{Typeflag: tar.TypeChar, Name: moduleName, Devmajor: 1, Devminor: 3, Format: tar.FormatUSTAR}, nil}),
		"block device":         tarOf(man, put{tar.Header{Typeflag: tar.TypeBlock, Name: moduleName, Format: tar.FormatUSTAR}, nil}),
		"fifo":                 tarOf(man, put{tar.Header{Typeflag: tar.TypeFifo, Name: moduleName, Format: tar.FormatUSTAR}, nil}),
		"directory":            tarOf(man, put{tar.Header{Typeflag: tar.TypeDir, Name: moduleName + "/", Format: tar.FormatUSTAR}, nil}),
		"executable":           tarOf(man, with(mod, func(h *tar.Header) { h.Mode = 0o755 })),
		"setuid":               tarOf(man, with(mod, func(h *tar.Header) { h.Mode = 0o4644 })),
		"an owner":             tarOf(man, with(mod, func(h *tar.Header) { h.Uid = 1000 })),
		"an owner's name":      tarOf(man, with(mod, func(h *tar.Header) { h.Uname = "root" })),
		"a time":               tarOf(man, with(mod, func(h *tar.Header) { h.ModTime = time.Unix(1, 0) })),
		"pax records":          tarOf(man, with(mod, func(h *tar.Header) { h.Format = tar.FormatPAX; h.PAXRecords = map[string]string{"SELVAGE.x": "y"} })),
		"a pax name":           tarOf(man, with(mod, func(h *tar.Header) { h.Format = tar.FormatPAX; h.Name = strings.Repeat("y", 300) })),
		"a global pax header":  tarOf(put{tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "g", PAXRecords: map[string]string{"path": "x"}}, nil}, man, mod),
		"gnu format":           tarOf(man, with(mod, func(h *tar.Header) { h.Format = tar.FormatGNU; h.AccessTime = time.Unix(1, 0) })),
		"a gnu sparse file":    squeeze(t, sparse(good)),
		"a negative size":      squeeze(t, resize(good, "-0000000001")),
		"a huge size":          squeeze(t, resize(good, "77777777777")),
		"a size too long":      squeeze(t, resize(good, "00000004000")),
		"a broken checksum":    squeeze(t, flip(good, 150)),
		"cut in the header":    squeeze(t, good[:700]),
		"cut in the padding":   squeeze(t, good[:1536]),
		"no end blocks":        squeeze(t, good[:len(good)-1024]),
		"bytes after the end":  squeeze(t, append(bytes.Clone(good), 1)),
		"zeros after the end":  squeeze(t, append(bytes.Clone(good), make([]byte, 512)...)),
		"padding not zero":     squeeze(t, flip(good, 512+len(plainManifest)+5)),
		"cut zstd":             packed[:len(packed)/2],
		"zstd checksum broken": flip(packed, len(packed)-1),
		"a large manifest":     tarOf(file(ManifestName, append(bytes.Clone(plainManifest), bytes.Repeat([]byte("#"), MaxManifestBytes)...)), mod),
		"a bomb of zeros":      squeeze(t, make([]byte, 200<<20)),
		"a bomb in the module": tarOf(man, file(moduleName, make([]byte, 60<<20))),
		"a window of 512 MiB":  wideWindow(packed),
		"a frame of 1 EiB":     {0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0x10, 1, 0, 0},
		"many frames":          bytes.Repeat(squeeze(t, make([]byte, 1<<20)), 100),
		"a skippable flood":    append(bytes.Repeat(append(binary.LittleEndian.AppendUint32(nil, 0x184D2A50), 0, 0, 0, 0), 1000), squeeze(t, []byte("x"))...),
	}
	return corpus
}

// zeroInName hides the rest of the manifest's name behind a zero byte.
func zeroInName(good []byte) []byte {
	b := bytes.Clone(good)
	b[4] = 0
	return b
}

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

// moduleHeader is where the module's header begins in a plain archive.
const moduleHeader = 1024

// resize says another size of the module, with a right checksum.
func resize(good []byte, octal string) []byte {
	b := bytes.Clone(good)
	copy(b[moduleHeader+124:], octal)
	return checksum(b)
}

// sparse makes the module an old GNU sparse file of 1 TiB.
func sparse(good []byte) []byte {
	b := bytes.Clone(good)
	h := b[moduleHeader:]
	h[156] = 'S'
	copy(h[257:], "ustar  \x00")
	copy(h[386:], "00000000000\x0000000000010\x00")
	copy(h[483:], "\x80\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00")
	return checksum(b)
}

func checksum(b []byte) []byte {
	h := b[moduleHeader : moduleHeader+512]
	copy(h[148:156], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	const digits = "01234567"
	for i := range 6 {
		h[148+i] = digits[sum>>(3*(5-i))&7]
	}
	h[154], h[155] = 0, ' '
	return b
}

// wideWindow rewrites the frame header to ask for a window of 512 MiB.
func wideWindow([]byte) []byte {
	return []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 19 << 3, 1, 0, 0}
}

func TestOpenRefusesHostileArchives(t *testing.T) {
	corpus := hostile(t)
	if len(corpus) < 40 {
		t.Errorf("the corpus has %d archives; keep at least 40", len(corpus))
	}
	for name, packed := range corpus {
		t.Run(name, func(t *testing.T) {
			b, err := Open(packed, Limits{})
			if err == nil {
				t.Fatalf("opened: %+v", b)
			}
			var faults *Faults
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLarge) && !errors.As(err, &faults) {
				t.Errorf("%v: of no known sort", err)
			}
		})
	}
}

func TestOpenHoldsLittle(t *testing.T) {
	for _, name := range []string{"a bomb of zeros", "a window of 512 MiB", "a frame of 1 EiB", "many frames", "a huge size", "a gnu sparse file"} {
		packed := hostile(t)[name]
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		_, _ = Open(packed, Limits{})
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
			t.Errorf("%s: %d MiB allocated", name, n>>20)
		}
	}
}

func TestOpenLimits(t *testing.T) {
	packed := pack(t, plainManifest, plainModule)
	for _, l := range []Limits{{PackedBytes: 10}, {UnpackedBytes: 7}} {
		if _, err := Open(packed, l); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%+v: %v", l, err)
		}
	}
}

func TestOpenNoticesEveryFlippedByte(t *testing.T) {
	packed := pack(t, plainManifest, plainModule)
	for i := range packed {
		b, err := Open(flip(packed, i), Limits{})
		if err == nil && b.Digest == function.DigestOf(packed) {
			t.Errorf("byte %d: the same digest", i)
		}
	}
}

func FuzzOpen(f *testing.F) {
	for _, packed := range hostile(f) {
		if len(packed) < 16<<10 {
			f.Add(packed)
		}
	}
	good, _, err := Pack(plainManifest, plainModule)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, packed []byte) {
		b, err := Open(packed, Limits{UnpackedBytes: 1 << 20})
		if err != nil {
			return
		}
		again, _, err := Pack(b.Manifest.Source, b.Module)
		if err != nil {
			t.Fatalf("opened, but cannot be packed: %v", err)
		}
		if _, err := Open(again, Limits{}); err != nil {
			t.Fatal(err)
		}
	})
}
