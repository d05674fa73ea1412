package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
)

// v2 makes a header of version 2.
func v2(command, kind byte, body ...[]byte) string {
	all := bytes.Join(body, nil)
	b := append([]byte(signature), command, kind)
	return string(append(binary.BigEndian.AppendUint16(b, uint16(len(all))), all...))
}

func tlv(kind byte, value string) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(value))), value...)
}

// summed sets the checksum that the header's last four bytes have room for.
func summed(header string) string {
	b := []byte(header)
	binary.BigEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return string(b)
}

var (
	four = []byte{192, 0, 2, 1, 198, 51, 100, 2, 0x0f, 0xa0, 1, 0xbb}
	six  = append(append(netip.MustParseAddr("2001:db8::1").AsSlice(), netip.MustParseAddr("2001:db8::2").AsSlice()...), 0x0f, 0xa0, 1, 0xbb)
	crc  = tlv(typeCRC, "\x00\x00\x00\x00")
)

// headers are well-formed ones, and whose connections they say these are; "": the balancer's.
var headers = map[string]string{
	"PROXY TCP4 192.0.2.1 198.51.100.2 4000 443\r\n":  "192.0.2.1:4000",
	"PROXY TCP6 2001:db8::1 2001:db8::2 4000 443\r\n": "[2001:db8::1]:4000",
	"PROXY TCP6 ::ffff:192.0.2.1 ::1 4000 443\r\n":    "192.0.2.1:4000",
	"PROXY UNKNOWN\r\n": "",
	"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f 65535 1\r\n": "",
	v2(relay, tcp4, four): "192.0.2.1:4000",
	v2(relay, tcp6, six):  "[2001:db8::1]:4000",
	v2(relay, tcp4, four, tlv(0x01, "h2"), tlv(0x04, "")): "192.0.2.1:4000",
	summed(v2(relay, tcp4, four, tlv(0x02, "a.b"), crc)):  "192.0.2.1:4000",
	v2(relay, unixes, make([]byte, 216)):                  "",
	v2(relay, unspec, []byte("anything")):                 "",
	v2(local, unspec):                                     "",
	v2(local, tcp4, four):                                 "",
}

// What follows a header is left for who reads next, in whatever pieces it comes.
func TestHeaders(t *testing.T) {
	for header, want := range headers {
		for _, pieces := range []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return r }, iotest.OneByteReader} {
			r := strings.NewReader(header + "\x16\x03\x01rest")
			got, err := Read(pieces(r))
			if err != nil || got.IsValid() != (want != "") || got.IsValid() && got.String() != want {
				t.Errorf("%q: %v, %v; want %s", header, got, err, want)
			}
			if rest, _ := io.ReadAll(r); string(rest) != "\x16\x03\x01rest" {
				t.Errorf("%q: it leaves %q", header, rest)
			}
		}
		if len(header) > 16 && strings.HasPrefix(header, signature) || strings.HasPrefix(header, "PROXY") {
			if _, err := Read(strings.NewReader(header[:len(header)-1])); !errors.Is(err, ErrHeader) {
				t.Errorf("%q cut off: %v", header, err)
			}
		}
	}
}

var malformed = []string{
	"", "PROXY ", "GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00",
	"PROXY TCP4 192.0.2.1 198.51.100.2 4000 443\n", "PROXY TCP4 192.0.2.1 198.51.100.2 4000\r\n",
	"PROXY TCP4 192.0.2.1 198.51.100.2 04000 443\r\n", "PROXY TCP4 192.0.2.1 198.51.100.2 70000 443\r\n", "PROXY TCP4 192.0.2.1 198.51.100.2 -1 443\r\n",
	"PROXY TCP4 2001:db8::1 2001:db8::2 4000 443\r\n", "PROXY TCP6 192.0.2.1 192.0.2.2 4000 443\r\n", "PROXY TCP6 fe80::1%eth0 ::1 4000 443\r\n",
	"PROXY TCP4  192.0.2.1 198.51.100.2 4000 443\r\n", "PROXY UDP4 192.0.2.1 198.51.100.2 4000 443\r\n", "PROXY tcp4 192.0.2.1 198.51.100.2 4000 443\r\n",
	"PROXY TCP4 0.0.0.0 198.51.100.2 4000 443\r\n", "PROXY TCP4 224.0.0.1 198.51.100.2 4000 443\r\n",
	"PROXY UNKNOWN " + strings.Repeat("x", 200) + "\r\n",
	v2(0x11, tcp4, four), v2(0x22, tcp4, four), v2(relay, 0x12, four), v2(relay, 0x41, four), v2(relay, tcp4, four[:11]), v2(relay, tcp6, six[:35]),
	v2(relay, tcp4, four, []byte{1}), v2(relay, tcp4, four, []byte{1, 0, 9, 0}), v2(relay, tcp4, four, tlv(typeCRC, "abc")), v2(relay, tcp4, four, crc),
	v2(relay, tcp4, four, tlv(0x30, strings.Repeat("x", maxV2))), v2(relay, tcp4, append([]byte{255, 0, 0, 0}, make([]byte, 8)...), []byte{9}),
}

func TestMalformedHeaders(t *testing.T) {
	for _, header := range malformed {
		if got, err := Read(strings.NewReader(header)); !errors.Is(err, ErrHeader) || got.IsValid() {
			t.Errorf("%q: %v, %v", header, got, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	for header := range headers {
		f.Add([]byte(header + "rest"))
	}
	for _, header := range malformed {
		f.Add([]byte(header))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		got, err := Read(r)
		used := len(b) - r.Len()
		if used > 16+maxV2 || err != nil && got.IsValid() {
			t.Fatalf("%d bytes were read, %v, %v", used, got, err)
		}
		if err != nil {
			return
		}
		// The header alone says the same, and nothing less does.
		if again, err := Read(bytes.NewReader(b[:used])); err != nil || again != got {
			t.Fatalf("alone: %v, %v; want %v", again, err, got)
		}
		if _, err := Read(bytes.NewReader(b[:used-1])); err == nil {
			t.Fatalf("cut off, it is taken all the same")
		}
		if got.IsValid() && (got.Addr().Is4In6() || got.Addr().Zone() != "") {
			t.Fatalf("%v is not canonical", got)
		}
	})
}

func TestAs(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if got := As(a, netip.MustParseAddrPort("192.0.2.1:4000")).RemoteAddr().String(); got != "192.0.2.1:4000" {
		t.Errorf("%s", got)
	}
}
