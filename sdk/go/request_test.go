package edge

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

// record is an exchange that keeps what is answered.
type record struct {
	body    io.Reader
	heads   []int
	headers []string // of the final head: "name: value"
	out     strings.Builder
	flushes int
	aborted bool
	fails   error
	came    []string // trailers of the request: names and values
	sent    []string // trailers of the answer: "name: value"
}

func (x *record) readTrailers() (string, error) {
	var list pairList
	for i := 0; i < len(x.came); i += 2 {
		list.add(x.came[i], x.came[i+1])
	}
	return string(list.bytes()), nil
}

func (x *record) writeTrailers(trailers []byte) error {
	d := decoder{s: string(trailers)}
	d.pairs(func(name, value string) { x.sent = append(x.sent, name+": "+value) })
	return errors.Join(d.err, x.fails)
}

func (x *record) readBody(p []byte) (int, error) { return x.body.Read(p) }

func (x *record) writeHead(status int, headers []byte) error {
	x.heads = append(x.heads, status)
	x.headers = nil
	d := decoder{s: string(headers)}
	d.pairs(func(name, value string) { x.headers = append(x.headers, name+": "+value) })
	return errors.Join(d.err, x.fails)
}

func (x *record) writeBody(p []byte) error {
	x.out.Write(p)
	return x.fails
}

func (x *record) flush() error { x.flushes++; return x.fails }
func (x *record) abort()       { x.aborted = true }

// head encodes a request head.
func head(flags uint32, length int64, parts [5]string, metadata, headers [][2]string) string {
	b := appendU32(nil, flags)
	b = appendU32(appendU32(b, uint32(length)), uint32(length>>32))
	for _, s := range parts {
		b = appendString(b, s)
	}
	for _, list := range [][][2]string{metadata, headers} {
		var p pairList
		for _, pair := range list {
			p.add(pair[0], pair[1])
		}
		b = append(b, p.bytes()...)
	}
	return string(b)
}

func TestNewRequest(t *testing.T) {
	h := head(flagBody, -1, [5]string{"POST", "https", "[2001:db8::1]:8443", "/a%2Fb?c=d", "HTTP/3.0"},
		[][2]string{{metaPoP, "fra"}, {metaClient, "[2001:db8::2]:99"}, {"unknown", "x"}},
		[][2]string{{"accept", "a"}, {"Accept", "b"}, {"host", "other"}, {"x-one", "1"}})
	r, cancel, err := newRequest(h, &record{body: strings.NewReader("body")})
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r.Body)
	if string(body) != "body" || err != nil {
		t.Errorf("body %q, %v", body, err)
	}
	if r.URL.Path != "/a/b" || r.URL.RawPath != "/a%2Fb" || r.RequestURI != "/a%2Fb?c=d" || r.Host != "[2001:db8::1]:8443" {
		t.Errorf("%v %q %q", r.URL, r.RequestURI, r.Host)
	}
	if r.TLS == nil || r.TLS.ServerName != "[2001:db8::1]" || r.TLS.NegotiatedProtocol != "h3" {
		t.Errorf("TLS %+v", r.TLS)
	}
	if got := r.Header["Accept"]; len(r.Header) != 2 || len(got) != 2 || got[1] != "b" || r.Header.Get("X-One") != "1" {
		t.Errorf("header %v", r.Header)
	}
	if m := Info(r.Context()); m.PoP != "fra" || m.Client.Port() != 99 || r.RemoteAddr != "[2001:db8::2]:99" {
		t.Errorf("%+v %q", m, r.RemoteAddr)
	}
	if r.ContentLength != -1 || r.TransferEncoding != nil || r.ProtoMajor != 3 {
		t.Errorf("length %d, %v, %s", r.ContentLength, r.TransferEncoding, r.Proto)
	}
	if cancel(); r.Context().Err() == nil {
		t.Error("the context does not end")
	}
}

func TestNewRequestRefuses(t *testing.T) {
	for name, h := range map[string]string{
		"empty":    "",
		"protocol": head(0, 0, [5]string{"GET", "http", "h", "/", "SPDY"}, nil, nil),
		"target":   head(0, 0, [5]string{"GET", "http", "h", "no slash", "HTTP/1.1"}, nil, nil),
	} {
		if _, _, err := newRequest(h, &record{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestRequestBodyAfterClose(t *testing.T) {
	b := &requestBody{x: &record{body: strings.NewReader("body")}}
	_ = b.Close()
	if _, err := b.Read(make([]byte, 1)); err != http.ErrBodyReadAfterClose {
		t.Errorf("read: %v", err)
	}
}

func TestRequestBodyOfAClientThatLeft(t *testing.T) {
	b := &requestBody{x: &record{body: io.MultiReader(strings.NewReader("bo"), failing{ErrClosed})}}
	got, err := io.ReadAll(b)
	if string(got) != "bo" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%q, %v", got, err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func FuzzNewRequest(f *testing.F) {
	f.Add(head(0, 0, [5]string{"GET", "http", "h", "/", "HTTP/1.1"}, [][2]string{{metaPoP, "p"}}, [][2]string{{"A", "b"}}))
	for _, head := range rehearsalHeads() {
		f.Add(head)
	}
	f.Add("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")
	f.Fuzz(func(t *testing.T, s string) {
		r, cancel, err := newRequest(s, &record{body: strings.NewReader("")})
		if err != nil {
			return
		}
		defer cancel()
		if r.URL == nil || r.Header == nil || r.Body == nil || r.Context() == nil {
			t.Errorf("incomplete: %+v", r)
		}
	})
}

func FuzzDecodePage(f *testing.F) {
	f.Add("\x01\x00\x00\x00\x01\x00\x00\x00k\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	f.Add("\x00\x00\x00\x00\x00\x00\x00\x00")
	f.Add("\xff\xff\xff\xff\x01\x00\x00\x00k") // more keys than bytes
	f.Add("\x01\x00\x00\x00\xff\xff\xff\xffk\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	f.Fuzz(func(t *testing.T, s string) {
		if page, err := decodePage(s); err == nil && len(page.Keys)*20 > len(s) {
			t.Errorf("%d keys out of %d bytes", len(page.Keys), len(s))
		}
	})
}
