package native

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/runtime/hostcall"
	"github.com/selvage-edge/selvage/sdk/abi"
)

func TestHeadRoundTrip(t *testing.T) {
	want := Head{
		Body: true, ContentLength: -1, Method: "POST", Scheme: "https", Authority: "a.test:8443", Target: "/x?y", Protocol: "HTTP/3.0",
		Metadata: []Pair{{"pop", "fra"}}, Headers: []Pair{{"A", "1"}, {"A", ""}},
	}
	got, err := DecodeHead(want.Append(nil))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
}

func TestHeadLayout(t *testing.T) {
	h := Head{ContentLength: 2, Method: "M", Scheme: "s", Authority: "a", Target: "t", Protocol: "p", Headers: []Pair{{"n", "v"}}}
	want := "\x00\x00\x00\x00" + "\x02\x00\x00\x00\x00\x00\x00\x00" +
		"\x01\x00\x00\x00M" + "\x01\x00\x00\x00s" + "\x01\x00\x00\x00a" + "\x01\x00\x00\x00t" + "\x01\x00\x00\x00p" +
		"\x00\x00\x00\x00" + "\x01\x00\x00\x00" + "\x01\x00\x00\x00n" + "\x01\x00\x00\x00v"
	if got := string(h.Append(nil)); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestDecodeRefuses(t *testing.T) {
	u32 := func(n uint32) string { return string(binary.LittleEndian.AppendUint32(nil, n)) }
	for name, in := range map[string]string{
		"nothing":              "",
		"half a count":         "\x01\x00",
		"count without pairs":  u32(1),
		"count beyond reason":  u32(1 << 31),
		"length beyond end":    u32(1) + u32(1<<31) + "a" + u32(0),
		"no value":             u32(1) + u32(1) + "abcd",
		"bytes after the list": u32(0) + "x",
	} {
		if pairs, err := DecodePairs([]byte(in)); err == nil {
			t.Errorf("%s: got %v", name, pairs)
		}
	}
}

func TestFetchRequestRoundTrip(t *testing.T) {
	in := AppendPairs(AppendString(AppendString(nil, "PUT"), "https://b.test/"), []Pair{{"A", "b"}})
	in = binary.LittleEndian.AppendUint32(in, abi.FlagBody)
	got, err := DecodeFetchRequest(in)
	want := FetchRequest{Method: "PUT", URL: "https://b.test/", Headers: []Pair{{"A", "b"}}, Body: true}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestHTTPRequest(t *testing.T) {
	for name, f := range map[string]FetchRequest{
		"no scheme":     {Method: "GET", URL: "b.test/x"},
		"file":          {Method: "GET", URL: "file:///etc/passwd"},
		"user":          {Method: "GET", URL: "https://u:p@b.test/"},
		"connect":       {Method: "CONNECT", URL: "https://b.test/"},
		"method":        {Method: "GE T", URL: "https://b.test/"},
		"splitting":     {Method: "GET", URL: "https://b.test/", Headers: []Pair{{"A", "b\r\nHost: evil"}}},
		"name":          {Method: "GET", URL: "https://b.test/", Headers: []Pair{{"A B", "b"}}},
		"length":        {Method: "PUT", URL: "https://b.test/", Body: true, Headers: []Pair{{"Content-Length", "-1"}}},
		"control chars": {Method: "GET", URL: "https://b.test/\n"},
	} {
		if r, err := httpRequest(&f); err == nil {
			t.Errorf("%s: got %v", name, r)
		}
	}
	r, err := httpRequest(&FetchRequest{Method: "PUT", URL: "https://b.test/x?y", Body: true, Headers: []Pair{
		{"host", "evil"}, {"connection", "close"}, {"content-length", "5"}, {"x-a", "1"}, {"X-A", "2"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if r.Host != "b.test" || r.ContentLength != 5 || fmt.Sprint(r.Header) != "map[X-A:[1 2]]" {
		t.Errorf("host %q, length %d, headers %v", r.Host, r.ContentLength, r.Header)
	}
}

func TestStatusOf(t *testing.T) {
	for want, err := range map[int64]error{
		abi.StatusOK:          nil,
		abi.StatusNotFound:    hostcall.ErrNotFound,
		abi.StatusConflict:    fmt.Errorf("kv: %w", hostcall.ErrConflict),
		abi.StatusDenied:      hostcall.ErrDenied,
		abi.StatusTooLarge:    hostcall.ErrTooLarge,
		abi.StatusInvalid:     hostcall.ErrInvalid,
		abi.StatusUnavailable: &net.OpError{Op: "dial", Err: errors.New("refused")},
		abi.StatusInternal:    errors.New("bug"),
	} {
		if got := statusOf(err); got != want {
			t.Errorf("%v: got %d, want %d", err, got, want)
		}
	}
}

// listing is a KV of keys alone.
type listing struct {
	hostcall.KV
	keys []string
}

func (l *listing) List(_ context.Context, _ hostcall.Namespace, _, cursor string, limit int) ([]hostcall.KeyInfo, string, error) {
	var page []hostcall.KeyInfo
	for _, k := range l.keys {
		if "opaque:"+k > cursor || cursor == "" {
			if len(page) == limit {
				return page, "opaque:" + page[limit-1].Key, nil
			}
			page = append(page, hostcall.KeyInfo{Key: k, Revision: 7, Expires: time.UnixMilli(9)})
		}
	}
	return page, "", nil
}

func TestListPagesFitTheBuffer(t *testing.T) {
	kv := &listing{}
	for i := range 100 {
		kv.keys = append(kv.keys, fmt.Sprintf("key-%03d-%s", i, strings.Repeat("x", i)))
	}
	for _, room := range []int{600, 1000, 5000, 1 << 20} {
		var got []string
		page := kvPage{room: room, encode: encodePage}
		for {
			encoded, err := page.list(t.Context(), kv, 1000)
			if err != nil || encoded == nil || len(encoded) > room {
				t.Fatalf("room %d: %d bytes, %v", room, len(encoded), err)
			}
			r := reader{rest: string(encoded)}
			for range r.u32() {
				got = append(got, r.str())
				if r.u64() != 7 || r.u64() != 9 {
					t.Fatal("revision or expiry")
				}
			}
			page.cursor = r.str()
			if err := r.end("page"); err != nil {
				t.Fatal(err)
			}
			if page.cursor == "" {
				break
			}
		}
		if !reflect.DeepEqual(got, kv.keys) {
			t.Errorf("room %d: got %d keys: %v", room, len(got), got)
		}
	}
	small := kvPage{room: 20, encode: encodePage}
	if encoded, err := small.list(t.Context(), kv, 1000); encoded != nil || err != nil {
		t.Errorf("room for no key: got %q, %v", encoded, err)
	}
}

func FuzzDecodePairs(f *testing.F) {
	f.Add(AppendPairs(nil, []Pair{{"a", "b"}, {"", ""}}))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		pairs, err := DecodePairs(b)
		if err == nil && !bytes.Equal(AppendPairs(nil, pairs), b) {
			t.Errorf("%q decodes to %v, which encodes to something else", b, pairs)
		}
	})
}

func FuzzDecodeHead(f *testing.F) {
	h := Head{Body: true, Method: "GET", Headers: []Pair{{"a", "b"}}}
	whole := h.Append(nil)
	f.Add(whole)
	f.Add(whole[:len(whole)-1])                                                   // the last value is cut
	f.Add(append(bytes.Clone(whole), 0))                                          // something behind it
	f.Add(append(bytes.Clone(whole[:len(whole)-5]), 0xff, 0xff, 0xff, 0xff, 'b')) // a length that wraps
	f.Add((&Head{Method: "POST", Headers: []Pair{{"cookie", "a=1"}, {"cookie", "b=2"}, {"empty", ""}}}).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := DecodeHead(b)
		if err != nil {
			return
		}
		if again, err := DecodeHead(h.Append(nil)); err != nil || !reflect.DeepEqual(again, h) {
			t.Errorf("%+v does not come back: %+v, %v", h, again, err)
		}
	})
}

func FuzzDecodeFetchRequest(f *testing.F) {
	for _, u := range []string{"https://a.test/", "https://a.test/?a HTTP/1.1", "http://user@a.test/", "https:opaque", "//a.test/", "https://a.test:0/\r\nX: y"} {
		f.Add(AppendPairs(AppendString(AppendString(nil, "GET"), u), []Pair{{"content-length", "3"}, {"host", "b.test"}}))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		req, err := DecodeFetchRequest(b)
		if err != nil {
			return
		}
		if r, err := httpRequest(&req); err == nil && (r.URL.Host == "" || r.Host != r.URL.Host) {
			t.Errorf("%+v became a request to %q at %q", req, r.Host, r.URL.Host)
		}
	})
}

func FuzzDecodeWaits(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0, 0, 0, abi.WaitRead | abi.WaitWrite, 0, 0, 0, 1, 0, 0, 0, abi.WaitHead, 0, 0, 0})
	f.Add(bytes.Repeat([]byte{0xff}, 2*abi.WaitSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := decodeWaits(nil, b)
		if err == nil && len(list) != len(b)/abi.WaitSize {
			t.Errorf("%d entries of %d bytes", len(list), len(b))
		}
		for _, w := range list {
			if w.events == 0 || w.events > abi.WaitRead|abi.WaitWrite|abi.WaitHead {
				t.Errorf("events %#x", w.events)
			}
		}
	})
}

func TestDecodeKeysRefuses(t *testing.T) {
	for name, s := range map[string]string{
		"nothing": "", "no keys": "\x00\x00\x00\x00", "101 keys": "\x65\x00\x00\x00", "cut": "\x01\x00\x00\x00\x02\x00\x00\x00a",
		"no length": "\x01\x00\x00\x00\x02", "more": "\x01\x00\x00\x00\x01\x00\x00\x00ab", "huge": "\x01\x00\x00\x00\xff\xff\xff\xffa",
	} {
		if keys, ok := decodeKeys(s); ok {
			t.Errorf("%s became %q", name, keys)
		}
	}
}

// What a guest passes for keys is those keys or refused.
func FuzzDecodeKeys(f *testing.F) {
	f.Add("\x02\x00\x00\x00\x01\x00\x00\x00a\x00\x00\x00\x00")
	f.Add("\x01\x00\x00\x00\xff\xff\xff\xffa")
	f.Fuzz(func(t *testing.T, s string) {
		keys, ok := decodeKeys(s)
		if !ok {
			return
		}
		again := binary.LittleEndian.AppendUint32(nil, uint32(len(keys)))
		for _, k := range keys {
			again = AppendString(again, k)
		}
		if string(again) != s {
			t.Fatalf("%q became %q", s, again)
		}
	})
}
