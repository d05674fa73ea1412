package image

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

func sample() *Image {
	return &Image{
		Size: 4 * PageSize,
		Runs: []Run{{0, []byte("start")}, {70000, bytes.Repeat([]byte("x"), 5000)}, {4*PageSize - 1, []byte{9}}},
		Globals: []Global{
			{Index: 0, Type: typeI32, Bits: 1 << 20}, {Index: 7, Type: typeI64, Bits: 1<<64 - 1}, {Index: 9, Type: typeF32, Bits: 0x3f800000}, {Index: 10, Type: typeF64, Bits: 5},
		},
	}
}

func TestCodec(t *testing.T) {
	for _, want := range []*Image{sample(), {}, {Size: PageSize}} {
		b := want.Encode()
		if !bytes.Equal(b, want.Encode()) {
			t.Error("the same image gives other bytes")
		}
		got, err := Decode(b, want.Size)
		if err != nil || got.Size != want.Size || len(got.Runs) != len(want.Runs) || !reflect.DeepEqual(got.Globals, want.Globals) {
			t.Fatalf("%+v, %v", got, err)
		}
		for i := range want.Runs {
			if got.Runs[i].Offset != want.Runs[i].Offset || !bytes.Equal(got.Runs[i].Data, want.Runs[i].Data) {
				t.Errorf("run %d differs", i)
			}
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := sample().Encode()
	if _, err := Decode(good, 3*PageSize); err == nil {
		t.Error("an image over the limit is accepted")
	}
	for i := range good {
		if _, err := Decode(good[:i], MaxSize); err == nil {
			t.Errorf("the first %d bytes are accepted", i)
		}
	}
	for name, b := range map[string][]byte{
		"magic":   append([]byte("SVIN"), good[4:]...),
		"version": append([]byte("SVIM\x02"), good[5:]...),
		"tail":    append(bytes.Clone(good), 0),
	} {
		if _, err := Decode(b, MaxSize); err == nil || !strings.Contains(err.Error(), "decode image") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, m := range map[string]*Image{
		"size":           {Size: 100},
		"overlap":        {Size: PageSize, Runs: []Run{{0, []byte("ab")}, {1, []byte("c")}}},
		"outside":        {Size: PageSize, Runs: []Run{{PageSize, []byte("a")}}},
		"global's type":  {Globals: []Global{{Type: 0x70}}},
		"global's order": {Globals: []Global{{Index: 1, Type: typeI32}, {Index: 1, Type: typeI32}}},
	} {
		if m.Validate() == nil {
			t.Errorf("%s is valid", name)
		}
		if name == "size" || name == "overlap" {
			continue // cannot be written down
		}
		if _, err := Decode(m.Encode(), MaxSize); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// frame wraps a plain body as Encode does.
func frame(plain []byte) []byte {
	out := binary.AppendUvarint(append([]byte(formatMagic), formatVersion), uint64(len(plain)))
	return encoder().EncodeAll(plain, out)
}

// Small inputs that announce much must not make Decode allocate it.
func TestDecodeAllocatesLittle(t *testing.T) {
	many := binary.AppendUvarint([]byte{16, 0}, 1<<40)
	huge := append(binary.AppendUvarint(append([]byte(formatMagic), formatVersion), 1<<29), frame([]byte{0, 0, 0})[6:]...)
	bomb := frame(make([]byte, 64<<20))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, b := range [][]byte{frame(many), huge, bomb} {
		if _, err := Decode(b, 1<<20); err == nil {
			t.Error("accepted")
		}
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 96<<20 {
		t.Errorf("%d bytes allocated", grown)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(sample().Encode(), true)
	f.Add((&Image{}).Encode(), true)
	f.Add([]byte{4, 1, 3, typeI32, 0, 0, 0, 0, 0, 0, 0, 1, 1, 5, 2, 'a', 'b'}, false)
	f.Fuzz(func(t *testing.T, b []byte, framed bool) {
		if !framed {
			b = frame(b) // so that the inside is reached
		}
		m, err := Decode(b, 1<<20)
		if err != nil {
			return
		}
		if m.Size > 1<<20 || m.Validate() != nil {
			t.Fatalf("an invalid image: %v", m.Validate())
		}
		again, err := Decode(m.Encode(), 1<<20)
		if err != nil || again.Size != m.Size || len(again.Runs) != len(m.Runs) || len(again.Globals) != len(m.Globals) {
			t.Fatalf("does not come back: %v", err)
		}
	})
}
