package telemetry

import (
	"io"
	"log/slog"
	"strconv"
	"time"

	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/hostcall"
)

// encoder writes a node's lines as JSON, field by field: every exchange has one, and
// it must cost little. What it writes, ParseLine reads.
type encoder struct {
	pop, node string // `,"pop":"...","node":"..."`, made once
}

func newEncoder(p Place) encoder {
	return encoder{pop: string(appendString([]byte(`,"pop":`), p.PoP)), node: string(appendString([]byte(`,"node":`), p.Node))}
}

func (e encoder) begin(b []byte, at time.Time, level slog.Level, text string, kind Kind) []byte {
	b = append(b, `{"time":"`...)
	b = at.UTC().AppendFormat(b, "2006-01-02T15:04:05.000000Z07:00")
	b = append(append(append(b, `","level":"`...), levelName(level)...), `","msg":`...)
	b = appendString(b, text)
	b = append(append(append(b, `,"kind":"`...), kind...), '"')
	return append(append(b, e.pop...), e.node...)
}

// levelName avoids what Level.String allocates, for the levels there are.
func levelName(l slog.Level) string {
	switch l {
	case slog.LevelDebug:
		return "DEBUG"
	case slog.LevelInfo:
		return "INFO"
	case slog.LevelWarn:
		return "WARN"
	case slog.LevelError:
		return "ERROR"
	}
	return l.String()
}

func text(b []byte, key, value string) []byte { return appendString(append(b, key...), value) }

func number(b []byte, key string, value int64) []byte {
	return strconv.AppendInt(append(b, key...), value, 10)
}

// exchange encodes a record as one line, whose time is when the exchange began.
func (e encoder) exchange(b []byte, r *Record) []byte {
	b = e.begin(b, r.Time, r.level(), "exchange", KindAccess)
	b = text(b, `,"request_id":`, r.RequestID)
	b = append(b, `,"client":"`...)
	b = r.Client.AppendTo(b)
	b = append(b, '"')
	b = text(b, `,"protocol":`, r.Protocol)
	b = text(b, `,"method":`, r.Method)
	b = text(b, `,"host":`, r.Host)
	b = text(b, `,"path":`, r.Path)
	b = number(b, `,"status":`, int64(r.Status))
	b = number(b, `,"bytes_in":`, r.BytesIn)
	b = number(b, `,"bytes_out":`, r.BytesOut)
	b = number(b, `,"first_byte_us":`, r.FirstByte.Microseconds())
	b = number(b, `,"duration_us":`, r.Duration.Microseconds())
	if r.Function != "" {
		b = text(b, `,"project":`, r.Project)
		b = text(b, `,"function":`, r.Function)
		b = text(b, `,"version":`, r.Version.Short())
		b = number(b, `,"cpu_us":`, r.Usage.CPU.Microseconds())
		b = number(b, `,"memory_bytes":`, r.Usage.MemoryBytes)
		b = number(b, `,"host_calls":`, int64(r.Usage.HostCalls))
		b = number(b, `,"crossings":`, int64(r.Usage.Crossings))
	}
	if r.Usage.Queued > 0 {
		b = number(b, `,"queue_us":`, r.Usage.Queued.Microseconds())
	}
	if len(r.Usage.Refused) > 0 {
		b = refusedCalls(b, r.Usage.Refused)
	}
	if r.PassedTo != "" {
		b = text(b, `,"passed_to":`, r.PassedTo)
	}
	if r.PassedBy != "" {
		b = text(b, `,"passed_by":`, r.PassedBy)
	}
	if r.TraceID != "" {
		b = text(b, `,"trace_id":`, r.TraceID)
	}
	if r.Refused != "" {
		b = text(b, `,"refused":`, r.Refused)
	}
	if r.Fault != nil {
		b = e.fault(b, r.Fault)
	}
	return append(b, '}', '\n')
}

// refusedCalls is how often each kind of call was refused.
func refusedCalls(b []byte, all fault.Tally) []byte {
	b = append(b, `,"refused_calls":{`...)
	for i, t := range all {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, t.Refusal.String()), ':')
		b = strconv.AppendInt(b, int64(t.Count), 10)
	}
	return append(b, '}')
}

func (e encoder) fault(b []byte, f *fault.Error) []byte {
	b = text(b, `,"fault":`, f.Kind.String())
	b = text(b, `,"fault_error":`, f.Error())
	if f.Kind.Shed() {
		b = append(b, `,"shed":true`...)
	}
	if f.Limit != "" {
		b = text(b, `,"fault_limit":`, f.Limit)
		b = text(b, `,"fault_knob":`, f.Knob)
	}
	return b
}

// function encodes what a function logged.
func (e encoder) function(b []byte, l *hostcall.Line) []byte {
	b = e.begin(b, l.Time, slog.Level(l.Level), l.Text, KindFunction)
	b = text(b, `,"project":`, l.Function.Project)
	b = text(b, `,"function":`, l.Function.Name)
	b = text(b, `,"version":`, l.Version.Short())
	b = text(b, `,"request_id":`, l.RequestID)
	return append(b, '}', '\n')
}

// Direct is a Recorder that writes each record to W at once, one line for each;
// it waits for W. A node has a Log instead.
type Direct struct {
	W     io.Writer
	Place Place
}

// Record implements Recorder.
func (d Direct) Record(r *Record) {
	_, _ = d.W.Write(newEncoder(d.Place).exchange(nil, r)) // what a failing W lacks, nobody else can have
}
