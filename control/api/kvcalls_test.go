package api

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/control/catalog"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

func metadataHeader(b []byte) string {
	return HeaderMetadata + ": " + base64.StdEncoding.EncodeToString(b)
}

// What was put beside a value comes back with it and in listings, is replaced with it and goes with it.
func TestKVMetadata(t *testing.T) {
	f := withNamespace(t)
	most := bytes.Repeat([]byte{0, 0xff}, hostcall.MaxMetadataBytes/2)
	listed := func() string {
		t.Helper()
		var l KeyList
		f.want(200, f.admin("GET", keysOf, nil), &l)
		if len(l.Keys) != 1 {
			t.Fatalf("listed %+v", l)
		}
		return string(l.Keys[0].Metadata)
	}
	for _, meta := range []string{"text", "\x00\r\n\xff", string(most), ""} {
		f.want(200, f.admin("PUT", keysOf+"/k", []byte("v"), metadataHeader([]byte(meta))), nil)
		a := f.admin("GET", keysOf+"/k", nil)
		got, err := base64.StdEncoding.DecodeString(a.Header.Get(HeaderMetadata))
		if err != nil || string(got) != meta || listed() != meta {
			t.Errorf("put %.20q, got %.20q, listed %.20q: %v", meta, got, listed(), err)
		}
		if _, there := a.Header[http.CanonicalHeaderKey(HeaderMetadata)]; there != (meta != "") {
			t.Errorf("metadata of %d bytes: header %v", len(meta), a.Header)
		}
	}
	f.refused(413, "too-large", f.admin("PUT", keysOf+"/k", []byte("w"), metadataHeader(append(most, 'x'))))
	f.refused(400, "invalid-request", f.admin("PUT", keysOf+"/k", []byte("w"), HeaderMetadata+": {}"))
	if a := f.admin("GET", keysOf+"/k", nil); string(a.body) != "v" {
		t.Errorf("what was refused was written: %q", a.body)
	}
}

// A value may be given its end instead of its life; what has ended already is not written.
func TestKVExpires(t *testing.T) {
	f := withNamespace(t)
	ends := time.Now().Add(time.Hour).UnixMilli()
	f.want(200, f.admin("PUT", fmt.Sprintf("%s/k?expires=%d", keysOf, ends), []byte("v")), nil)
	got, err := strconv.ParseInt(f.admin("GET", keysOf+"/k", nil).Header.Get(HeaderExpires), 10, 64)
	if off := got - ends; err != nil || off < -1 || off > time.Minute.Milliseconds() {
		t.Errorf("it ends %d ms later than it was told: %v", off, err)
	}
	f.refused(422, "expired", f.admin("PUT", fmt.Sprintf("%s/k?expires=%d", keysOf, time.Now().UnixMilli()), []byte("w")))
	for _, q := range []string{"expires=0", "expires=-1", "expires=soon", "expires=2030-01-01T00:00:00Z", "expires=99999999999999&ttl=1s", fmt.Sprint("expires=", int64(math.MaxInt64))} {
		f.refused(400, "invalid-request", f.admin("PUT", keysOf+"/k?"+q, []byte("w")))
	}
	if a := f.admin("GET", keysOf+"/k", nil); string(a.body) != "v" {
		t.Errorf("what was refused was written: %q", a.body)
	}
}

const incrementOf = "/v1/projects/default/kv/links/increment/"

func TestKVIncrement(t *testing.T) {
	f := withNamespace(t)
	want := func(query string, value int64) (in Incremented) {
		t.Helper()
		f.want(200, f.admin("POST", incrementOf+"n"+query, nil), &in)
		if in.Value != value || in.Revision == 0 || in.Epoch != f.store.Epoch() {
			t.Errorf("%s: %+v, want %d", query, in, value)
		}
		return in
	}
	first := want("", 1)
	if second := want("?by=41", 42); second.Revision <= first.Revision {
		t.Errorf("revision %d after %d", second.Revision, first.Revision)
	}
	want("?by=-43", -1)
	// Metadata and the end stay; anyone reads the number as text.
	f.want(200, f.admin("PUT", keysOf+"/n?ttl=1h", []byte("7"), metadataHeader([]byte("m"))), nil)
	ends := f.admin("GET", keysOf+"/n", nil).Header.Get(HeaderExpires)
	last := want("?by=0", 7)
	a := f.admin("GET", keysOf+"/n", nil)
	if string(a.body) != "7" || a.Header.Get(HeaderMetadata) == "" || a.Header.Get(HeaderExpires) != ends || a.Header.Get(HeaderRevision) != strconv.FormatUint(last.Revision, 10) {
		t.Errorf("%q, %v; it ended at %s", a.body, a.Header, ends)
	}
	for _, by := range []string{"one", "1.5", "9223372036854775808", "+", "1e3"} {
		f.refused(400, "invalid-request", f.admin("POST", incrementOf+"n?by="+by, nil))
	}
	f.refused(400, "invalid-request", f.admin("POST", fmt.Sprintf("%sn?by=%d", incrementOf, int64(math.MaxInt64)), nil))
	f.want(200, f.admin("PUT", keysOf+"/word", []byte("seven")), nil)
	if p := f.refused(400, "invalid-request", f.admin("POST", incrementOf+"word", nil)); !strings.Contains(p.Detail, "decimal") {
		t.Errorf("a word: %+v", p)
	}
	f.refused(400, "invalid-request", f.admin("POST", incrementOf+strings.Repeat("k", hostcall.MaxKeyBytes+1), nil))
	f.refused(404, "no-namespace", f.admin("POST", "/v1/projects/default/kv/nowhere/increment/n", nil))
	want("?by=0", 7)
}

// A repeated increment with its idempotency key adds once.
func TestKVIncrementOnce(t *testing.T) {
	f := withNamespace(t)
	for range 3 {
		var in Incremented
		f.want(200, f.admin("POST", incrementOf+"n?by=5", nil, HeaderIdempotency+": a"), &in)
		if in.Value != 5 {
			t.Errorf("%+v", in)
		}
	}
}

const readOf = "/v1/projects/default/kv/links/read"

func TestKVReadsMany(t *testing.T) {
	f := withNamespace(t)
	var a, b Written
	f.want(200, f.admin("PUT", keysOf+"/a?ttl=1h", []byte("1"), metadataHeader([]byte("m"))), &a)
	f.want(200, f.admin("PUT", keysOf+"/"+escape("\xff"), []byte{}), &b)
	var got ReadAnswer
	f.want(200, f.admin("POST", readOf, ReadRequest{Keys: [][]byte{[]byte("\xff"), []byte("none"), []byte("a"), []byte("a")}, AtLeast: b.Revision}), &got)
	if len(got.Entries) != 4 || got.AsOf < b.Revision || got.Epoch != f.store.Epoch() || time.Since(got.Time).Abs() > time.Hour {
		t.Fatalf("%+v", got)
	}
	if e := got.Entries[0]; !e.Found || len(e.Value) != 0 || e.Revision != b.Revision || string(e.Key) != "\xff" || !e.Expires.IsZero() {
		t.Errorf("first: %+v", e)
	}
	if e := got.Entries[1]; e.Found || e.Revision != 0 || string(e.Key) != "none" {
		t.Errorf("second: %+v", e)
	}
	for _, e := range got.Entries[2:] {
		if !e.Found || string(e.Value) != "1" || string(e.Metadata) != "m" || e.Revision != a.Revision || e.Expires.IsZero() {
			t.Errorf("a: %+v", e)
		}
	}
}

func TestKVReadsManyRefuses(t *testing.T) {
	f := withNamespace(t)
	many := make([][]byte, hostcall.MaxReadKeys)
	for i := range many {
		many[i] = fmt.Append(nil, i)
	}
	var got ReadAnswer
	f.want(200, f.admin("POST", readOf, ReadRequest{Keys: many}), &got)
	if len(got.Entries) != len(many) {
		t.Errorf("%d entries", len(got.Entries))
	}
	for name, body := range map[string]any{
		"none":            ReadRequest{},
		"nothing":         nil,
		"one too many":    ReadRequest{Keys: append(many, []byte("k"))},
		"an empty key":    ReadRequest{Keys: [][]byte{{}}},
		"a long key":      ReadRequest{Keys: [][]byte{make([]byte, hostcall.MaxKeyBytes+1)}},
		"the future":      ReadRequest{Keys: many[:1], AtLeast: math.MaxUint64},
		"no base64":       []byte(`{"keys":["*"]}`),
		"another field":   []byte(`{"keys":["YQ=="],"strong":true}`),
		"two values":      []byte(`{"keys":["YQ=="]}{}`),
		"half a document": []byte(`{"keys":["YQ=="`),
	} {
		if p := f.refused(400, "invalid-request", f.admin("POST", readOf, body)); p.Detail == "" || p.Hint == "" {
			t.Errorf("%s: %+v", name, p)
		}
	}
	f.refused(404, "no-namespace", f.admin("POST", "/v1/projects/default/kv/nowhere/read", ReadRequest{Keys: many[:1]}))
	f.refused(400, "invalid-request", f.admin("GET", keysOf+"/a?at_least=18446744073709551615", nil))
	f.refused(400, "invalid-request", f.admin("GET", keysOf+"/a?at_least=soon", nil))
}

// Answers are bounded in bytes too, with a hint to ask for fewer.
func TestKVReadsManyBytes(t *testing.T) {
	f := withNamespace(t)
	for _, k := range []string{"a", "b"} {
		f.want(200, f.admin("PUT", keysOf+"/"+k, make([]byte, hostcall.MaxReadBytes/2+1)), nil)
	}
	if p := f.refused(413, "too-large", f.admin("POST", readOf, ReadRequest{Keys: [][]byte{[]byte("a"), []byte("b")}})); !strings.Contains(p.Detail, "fewer") {
		t.Errorf("%+v", p)
	}
	f.want(200, f.admin("POST", readOf, ReadRequest{Keys: [][]byte{[]byte("a"), []byte("c")}}), nil)
}

func TestNamespaceMaxStale(t *testing.T) {
	f := withNamespace(t)
	const path = "/v1/projects/default/kv/links"
	put := func(body string) Namespace {
		t.Helper()
		var n Namespace
		f.want(200, f.admin("PUT", path, []byte(body)), &n)
		return n
	}
	least, most := catalog.MinMaxStale.Milliseconds(), catalog.MaxMaxStale.Milliseconds()
	for _, ms := range []int64{least, most, 60_000} {
		if n := put(fmt.Sprintf(`{"max_stale_ms":%d}`, ms)); n.MaxStaleMS != ms {
			t.Errorf("%+v, want %d", n, ms)
		}
	}
	// Not named, it stays; 0 takes it away.
	if n := put(`{}`); n.MaxStaleMS != 60_000 {
		t.Errorf("%+v", n)
	}
	var list NamespaceList
	f.want(200, f.admin("GET", "/v1/projects/default/kv", nil), &list)
	if len(list.Namespaces) != 1 || list.Namespaces[0].MaxStaleMS != 60_000 {
		t.Errorf("%+v", list)
	}
	for _, ms := range []int64{-1, 1, least - 1, most + 1, math.MaxInt64} {
		if p := f.refused(400, "invalid-request", f.admin("PUT", path, []byte(fmt.Sprintf(`{"max_stale_ms":%d}`, ms)))); !strings.Contains(p.Detail, "max_stale_ms") {
			t.Errorf("%d: %+v", ms, p)
		}
	}
	f.refused(400, "invalid-request", f.admin("PUT", path, []byte(`{"max_stale_ms":"1m"}`)))
	f.refused(400, "invalid-request", f.admin("PUT", path, []byte(`{"max_stale":60}`)))
	if n := put(`{}`); n.MaxStaleMS != 60_000 {
		t.Errorf("what was refused was done: %+v", n)
	}
	if n := put(`{"max_stale_ms":0}`); n.MaxStaleMS != 0 {
		t.Errorf("%+v", n)
	}
}
