package engine

import (
	"encoding/binary"
	"time"
)

// recordHeader is the size of what stands before a record's text: time (Unix
// ns, i64), level (i32), length (u32), stream (u8). cshim/log.c writes it.
const recordHeader = 17

// TakeLog returns the records gathered since the last call, and how many were
// dropped over the limit.
func (i *Instance) TakeLog() (records []LogRecord, dropped int) {
	if i.closed {
		return nil, 0
	}
	b, dropped := i.in.Log()
	for len(b) >= recordHeader {
		n := recordHeader + int(binary.NativeEndian.Uint32(b[12:]))
		records = append(records, LogRecord{
			Time:   time.Unix(0, int64(binary.NativeEndian.Uint64(b))),
			Level:  int(int32(binary.NativeEndian.Uint32(b[8:]))),
			Stream: Stream(b[16]),
			Text:   append([]byte(nil), b[recordHeader:n]...),
		})
		b = b[n:]
	}
	i.in.ClearLog()
	return records, dropped
}
