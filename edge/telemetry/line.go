package telemetry

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"
	"unicode/utf8"
)

// Kind says what a line of the log is.
type Kind string

// The kinds. The last three are told by the log itself to those who follow it.
const (
	KindAccess   Kind = "access"   // one finished exchange
	KindFunction Kind = "function" // what a function printed or logged
	KindDropped  Kind = "dropped"  // lines were too many: Dropped says how many of whom
	KindNote     Kind = "note"     // of who gathers lines: a node came, or is away
	KindLive     Kind = "live"     // the past was told; what follows is new
)

// MaxLineBytes bounds one encoded line, its end included, of those who follow a log:
// longer ones are in what is written only. Who follows live is told that they were dropped.
const MaxLineBytes = 64 << 10

// maxRefusedKinds bounds RefusedCalls of a line from elsewhere; there are fewer kinds.
const maxRefusedKinds = 64

// Line is one line of a node's log, as those who follow it read it. The fields
// of an exchange are set for KindAccess only.
type Line struct {
	Time      time.Time  `json:"time"`
	Level     slog.Level `json:"level"`
	Text      string     `json:"msg"`
	Kind      Kind       `json:"kind"`
	PoP       string     `json:"pop,omitempty"`
	Node      string     `json:"node,omitempty"`
	Project   string     `json:"project,omitempty"`
	Function  string     `json:"function,omitempty"`
	Version   string     `json:"version,omitempty"`
	RequestID string     `json:"request_id,omitempty"`
	Dropped   int        `json:"dropped,omitempty"`

	Client      string `json:"client,omitempty"`
	Protocol    string `json:"protocol,omitempty"`
	Method      string `json:"method,omitempty"`
	Host        string `json:"host,omitempty"`
	Path        string `json:"path,omitempty"`
	Status      int    `json:"status,omitempty"`
	BytesIn     int64  `json:"bytes_in,omitempty"`
	BytesOut    int64  `json:"bytes_out,omitempty"`
	FirstByteUS int64  `json:"first_byte_us,omitempty"`
	DurationUS  int64  `json:"duration_us,omitempty"`
	CPUUS       int64  `json:"cpu_us,omitempty"`
	MemoryBytes int64  `json:"memory_bytes,omitempty"`
	HostCalls   uint64 `json:"host_calls,omitempty"`
	Crossings   uint64 `json:"crossings,omitempty"`
	Refused     string `json:"refused,omitempty"`
	// RefusedCalls is how often the function's calls were refused, by kind.
	RefusedCalls map[string]int `json:"refused_calls,omitempty"`
	Fault        string         `json:"fault,omitempty"`
	FaultError   string         `json:"fault_error,omitempty"`
	FaultLimit   string         `json:"fault_limit,omitempty"`
	FaultKnob    string         `json:"fault_knob,omitempty"`
	TraceID      string         `json:"trace_id,omitempty"`
}

// ParseLine reads one line of a log; it does not keep b.
func ParseLine(b []byte) (Line, error) {
	var l Line
	if len(b) > MaxLineBytes {
		return l, errors.New("log line: too long")
	}
	if err := json.Unmarshal(b, &l); err != nil {
		return l, fmt.Errorf("log line: %w", err)
	}
	if len(l.RefusedCalls) > maxRefusedKinds {
		return Line{}, errors.New("log line: too many kinds of refused calls")
	}
	return l, nil
}

// lineSize is about a Line without its texts; a test compares it.
const lineSize = 512

// Size is about what the line takes of memory, in bytes.
func (l *Line) Size() int {
	n := lineSize
	for _, s := range []string{l.Text, string(l.Kind), l.PoP, l.Node, l.Project, l.Function, l.Version, l.RequestID, l.Client, l.Protocol,
		l.Method, l.Host, l.Path, l.Refused, l.Fault, l.FaultError, l.FaultLimit, l.FaultKnob, l.TraceID} {
		n += len(s)
	}
	for kind := range l.RefusedCalls {
		n += len(kind) + 64 // a map's entry, half of the map empty
	}
	return n
}

// appendLine encodes what the log tells by itself.
func (l *Line) append(b []byte) []byte {
	text, err := json.Marshal(l)
	if err != nil {
		panic(err) // strings, numbers and a time of this process
	}
	return append(append(b, text...), '\n')
}

const hexDigits = "0123456789abcdef"

// appendString appends s as a JSON string. What is not UTF-8 is replaced.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	done := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' && c != 0x7f {
				i++
				continue
			}
			b = append(b, s[done:i]...)
			b = appendEscape(b, c)
			i++
			done = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			b = append(append(b, s[done:i]...), `\ufffd`...)
			done = i + size
		} else if r == '\u2028' || r == '\u2029' { // line ends to some who read JSON
			b = append(append(b, s[done:i]...), `\u202`...)
			b = append(b, hexDigits[r&0xf])
			done = i + size
		}
		i += size
	}
	return append(append(b, s[done:]...), '"')
}

func appendEscape(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\n':
		return append(b, '\\', 'n')
	case '\r':
		return append(b, '\\', 'r')
	case '\t':
		return append(b, '\\', 't')
	}
	return append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
}
