package changes

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

var sample = Batch{
	Log: "kv/default/links", Epoch: 7, From: 10, To: 20, At: time.UnixMilli(1_700_000_000_123).UTC(),
	Changes: []Change{
		{Seq: 11, Key: "a", Op: Put, Size: 1, Sum: [32]byte{1}, Value: []byte("v")},
		{Seq: 13, Key: "\x00\xff", Op: Put, Expires: time.UnixMilli(1_800_000_000_000).UTC(), Size: MaxInline + 1, Sum: [32]byte{2}},
		{Seq: 14, Key: "empty", Op: Put, Sum: [32]byte{3}, Value: []byte{}},
		{Seq: 19, Key: "b", Op: Delete},
		{Seq: 20, Key: "c", Op: Expire},
	},
}

func encode(t testing.TB, b Batch) []byte {
	t.Helper()
	out, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestBatchComesBack(t *testing.T) {
	for name, b := range map[string]Batch{
		"all kinds": sample,
		"watermark": {Log: "catalog", Epoch: 1, From: 5, To: 5, At: time.UnixMilli(0).UTC()},
		"metadata": {Log: "kv/p/n", Epoch: 1, From: 5, To: 9, At: time.UnixMilli(7).UTC(), Changes: []Change{
			{Seq: 6, Key: "a", Op: Put, Size: 1, Value: []byte("v"), Metadata: []byte("\x00about")}, {Seq: 7, Key: "b", Op: Put, Size: 1, Value: []byte("w")}, {Seq: 9, Key: "c", Op: Delete}}},
		"a page":               {Log: "kv/p/n", Epoch: 1, From: 5, To: 9, Head: 10, Changes: []Change{{Seq: 7, Key: "b", Op: Put, Size: 1, Value: []byte("w")}}},
		"a page with metadata": {Log: "kv/p/n", Epoch: 1, From: 5, To: 9, Head: 1 << 60, Changes: []Change{{Seq: 9, Key: "b", Op: Put, Metadata: []byte("m"), Value: []byte{}}}},
		"nothing":              {Log: "catalog", At: time.UnixMilli(-1).UTC()},
	} {
		got, err := DecodeBatch(encode(t, b))
		if err != nil || !reflect.DeepEqual(*got, b) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	change := func(c Change) Batch { return Batch{Log: "l", From: 1, To: 9, Changes: []Change{c}} }
	for name, b := range map[string]Batch{
		"no log":            {},
		"a long log":        {Log: strings.Repeat("l", maxLogBytes+1)},
		"a head at its end": {Log: "l", From: 1, To: 2, Head: 2},
		"a page at a time":  {Log: "l", From: 1, To: 2, Head: 3, At: time.UnixMilli(1)},
		"backwards":         {Log: "l", From: 2, To: 1},
		"at from":           change(Change{Seq: 1, Key: "k", Op: Delete}),
		"after to":          change(Change{Seq: 10, Key: "k", Op: Delete}),
		"no key":            change(Change{Seq: 2, Op: Delete}),
		"a long key":        change(Change{Seq: 2, Key: strings.Repeat("k", maxKeyBytes+1), Op: Delete}),
		"no op":             change(Change{Seq: 2, Key: "k"}),
		"another op":        change(Change{Seq: 2, Key: "k", Op: 9}),
		"a wrong size":      change(Change{Seq: 2, Key: "k", Op: Put, Size: 2, Value: []byte("v")}),
		"large but there":   change(Change{Seq: 2, Key: "k", Op: Put, Size: MaxInline + 1, Value: []byte("v")}),
		"long metadata":     change(Change{Seq: 2, Key: "k", Op: Put, Size: 1, Value: []byte("v"), Metadata: make([]byte, maxMetadata+1)}),
		"metadata of none":  change(Change{Seq: 2, Key: "k", Op: Delete, Metadata: []byte("m")}),
		"twice":             {Log: "l", To: 9, Changes: []Change{{Seq: 2, Key: "k", Op: Delete}, {Seq: 2, Key: "j", Op: Delete}}},
		"out of order":      {Log: "l", To: 9, Changes: []Change{{Seq: 3, Key: "k", Op: Delete}, {Seq: 2, Key: "j", Op: Delete}}},
		"too many":          {Log: "l", To: 1 << 20, Changes: make([]Change, MaxBatchChanges+1)},
	} {
		if out, err := b.Encode(); err == nil {
			t.Errorf("%s: encoded to %d bytes", name, len(out))
		}
	}
}

// Every cut and every flipped bit of the head is refused or is another, whole batch.
func TestDecodeRefusesWhatWasCut(t *testing.T) {
	b := encode(t, sample)
	for n := range b {
		if _, err := DecodeBatch(b[:n]); !errors.Is(err, ErrBatch) {
			t.Fatalf("%d of %d bytes: %v", n, len(b), err)
		}
	}
	if _, err := DecodeBatch(append(bytes.Clone(b), 0)); !errors.Is(err, ErrBatch) {
		t.Errorf("a byte more: %v", err)
	}
	if _, err := DecodeBatch(make([]byte, MaxBatchBytes+1)); !errors.Is(err, ErrBatch) {
		t.Errorf("too large: %v", err)
	}
	other := bytes.Clone(b)
	other[0] = batchPage + 1
	if _, err := DecodeBatch(other); !errors.Is(err, ErrBatch) || !strings.Contains(err.Error(), "upgrade") {
		t.Errorf("another version: %v", err)
	}
}

// There is one encoding: what decodes encodes to the same bytes.
func FuzzDecodeBatch(f *testing.F) {
	f.Add(encode(f, sample))
	f.Add(encode(f, Batch{Log: "catalog", Epoch: 1, From: 5, To: 5}))
	f.Add(encode(f, Batch{Log: "kv/p/n", Epoch: 1, From: 5, To: 9, Head: 12, Changes: []Change{{Seq: 9, Key: "k", Op: Delete}}}))
	f.Add([]byte{1, 1, 'l', 0x80, 0, 0, 0})
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := DecodeBatch(raw)
		if err != nil {
			if !errors.Is(err, ErrBatch) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		again, err := b.Encode()
		if err != nil || !bytes.Equal(again, raw) {
			t.Fatalf("%x became %x, %v", raw, again, err)
		}
	})
}

func FuzzReadFrame(f *testing.F) {
	var b bytes.Buffer
	if err := writeFrame(&b, frameBatch, []byte("payload")); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte{0xff, 0xff, 0xff, 0x00, 1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		r := bytes.NewReader(raw)
		for {
			kind, payload, err := readFrame(r)
			if err != nil {
				return
			}
			var again bytes.Buffer
			if err := writeFrame(&again, kind, payload); err != nil {
				t.Fatal(err)
			}
			if at := len(raw) - r.Len(); !bytes.HasSuffix(raw[:at], again.Bytes()) {
				t.Fatalf("frame %d %x is not in %x", kind, payload, raw[:at])
			}
			if kind == frameNotice {
				decodeNotice(payload)
			}
		}
	})
}

func TestRequestIsValidated(t *testing.T) {
	for name, r := range map[string]Request{
		"nothing":  {},
		"too much": {Logs: make([]Want, MaxLogs+1)},
		"no name":  {Logs: []Want{{}}},
		"twice":    {Logs: []Want{{Log: "a"}, {Log: "a"}}},
		"long":     {Logs: []Want{{Log: strings.Repeat("a", maxLogBytes+1)}}},
	} {
		if r.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
