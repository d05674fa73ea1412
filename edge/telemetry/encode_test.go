package telemetry

import (
	"encoding/json"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// What the encoder writes is one line of JSON, and ParseLine reads the same from it.
func TestLinesAreRead(t *testing.T) {
	r := sample
	r.Time = time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)
	r.Client = netip.MustParseAddrPort("[2001:db8::1]:443")
	r.Path, r.Refused = "/\"\\\n\u2028é\xff\x00", "loop"
	e := newEncoder(Place{PoP: "fra", Node: "n1"})
	l, err := ParseLine(e.exchange(nil, &r))
	if err != nil {
		t.Fatal(err)
	}
	want := Line{Time: r.Time, Level: slog.LevelWarn, Text: "exchange", Kind: KindAccess, PoP: "fra", Node: "n1", Project: "shop", Function: "cart",
		Version: r.Version.Short(), RequestID: "00ff", Client: "[2001:db8::1]:443", Protocol: "HTTP/2.0", Method: "GET", Host: "a.example",
		Path: "/\"\\\n\u2028é\ufffd\x00", Status: 504, BytesIn: 3, BytesOut: 5, FirstByteUS: 1000, DurationUS: 70000, CPUUS: 50000,
		MemoryBytes: 2 << 20, HostCalls: 4, Crossings: 2, Refused: "loop", Fault: "cpu", FaultError: r.Fault.Error(), FaultLimit: "50ms", FaultKnob: "limits.cpu"}
	if !reflect.DeepEqual(l, want) {
		t.Errorf("got  %+v\nwant %+v", l, want)
	}
	if _, err := ParseLine([]byte(`{"msg":"` + strings.Repeat("x", MaxLineBytes) + `"}`)); err == nil {
		t.Error("a line without an end was read")
	}
}

func FuzzStrings(f *testing.F) {
	for _, s := range []string{"", "plain", "\"\\\n\r\t\x00\x7f", "é\u2028\u2029\xff\xc3", "</script>"} {
		f.Add(s, 4)
	}
	e := newEncoder(Place{PoP: "p"})
	f.Fuzz(func(t *testing.T, s string, level int) {
		line := e.function(nil, &hostcall.Line{Text: s, Level: level % 1000, RequestID: s, Function: function.ID{Project: s, Name: "f"}})
		if strings.Count(string(line), "\n") != 1 {
			t.Fatalf("%q is not one line", line)
		}
		l, err := ParseLine(line)
		if (err != nil) != (len(line) > MaxLineBytes) {
			t.Fatalf("%d bytes, %q: %v", len(line), line, err)
		}
		if err != nil {
			return
		}
		if want := strings.ToValidUTF8(s, ""); strings.ReplaceAll(l.Text, "\ufffd", "") != strings.ReplaceAll(want, "\ufffd", "") || l.Text != l.Project {
			t.Errorf("%q became %q", s, l.Text)
		}
	})
}

func FuzzParseLine(f *testing.F) {
	f.Add([]byte(`{"time":"2026-03-01T12:00:00Z","level":"INFO+2","kind":"access","status":200}`))
	f.Add([]byte(`{"level":7}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseLine(b)
		if err != nil {
			return
		}
		if _, err := json.Marshal(l); err != nil {
			if y := l.Time.Year(); y >= 0 && y <= 9999 {
				t.Errorf("%q is read and not written: %v", b, err)
			}
		}
	})
}

func TestLevels(t *testing.T) {
	for kind, want := range map[*fault.Error]slog.Level{nil: slog.LevelInfo, {Kind: fault.Canceled}: slog.LevelInfo, {Kind: fault.CPU}: slog.LevelWarn, {Kind: fault.Internal}: slog.LevelError} {
		if got := (&Record{Fault: kind}).level(); got != want {
			t.Errorf("%v is %v, want %v", kind, got, want)
		}
	}
}

func BenchmarkRecord(b *testing.B) {
	log := NewLog(discard{}, LogConfig{Place: Place{PoP: "fra", Node: "n1"}})
	defer log.Close()
	b.ReportAllocs()
	for b.Loop() {
		log.Record(&sample)
	}
}
