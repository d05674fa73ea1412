package function

import "time"

// Default are the limits of a manifest that names none.
var Default = Limits{
	CPU:            50 * time.Millisecond,
	Wall:           30 * time.Second,
	MemoryBytes:    128 << 20,
	RequestBody:    100 << 20,
	ResponseHead:   32 << 10,
	LogBytes:       64 << 10,
	Subrequests:    32,
	SubrequestsNow: 6,
	SubrequestBody: 100 << 20,
	HostCalls:      1_000_000,
	KVOperations:   1000,
	Concurrency:    1000,
	Queue:          100,
	QueueWait:      time.Second,
	Weight:         10,
}

// Ceiling are the platform's: a manifest asking for more is refused.
var Ceiling = Limits{
	CPU:            30 * time.Second,
	Wall:           15 * time.Minute,
	MemoryBytes:    1 << 30,
	RequestBody:    1 << 30,
	ResponseHead:   32 << 10,
	LogBytes:       1 << 20,
	Subrequests:    1000,
	SubrequestsNow: 64,
	SubrequestBody: 10 << 30,
	HostCalls:      100_000_000,
	KVOperations:   100_000,
	Concurrency:    10_000,
	Queue:          10_000,
	QueueWait:      30 * time.Second,
	Weight:         100,
}

// DefaultTimeouts are those of a backend that names none; CeilingTimeouts are the
// platform's.
var (
	DefaultTimeouts = Timeouts{Connect: 5 * time.Second, TLS: 5 * time.Second, FirstByte: 10 * time.Second, Between: 30 * time.Second}
	CeilingTimeouts = Timeouts{Connect: time.Minute, TLS: time.Minute, FirstByte: 15 * time.Minute, Between: 15 * time.Minute, Total: 15 * time.Minute}
)

// WithDefaults returns t with every zero field set to its default.
func (t Timeouts) WithDefaults() Timeouts {
	or(&t.Connect, DefaultTimeouts.Connect)
	or(&t.TLS, DefaultTimeouts.TLS)
	or(&t.FirstByte, DefaultTimeouts.FirstByte)
	or(&t.Between, DefaultTimeouts.Between)
	return t
}

// WithDefaults returns l with every zero field set to its default.
func (l Limits) WithDefaults() Limits {
	or(&l.CPU, Default.CPU)
	or(&l.Wall, Default.Wall)
	or(&l.MemoryBytes, Default.MemoryBytes)
	or(&l.RequestBody, Default.RequestBody)
	or(&l.ResponseHead, Default.ResponseHead)
	or(&l.LogBytes, Default.LogBytes)
	or(&l.Subrequests, Default.Subrequests)
	or(&l.SubrequestsNow, Default.SubrequestsNow)
	or(&l.SubrequestBody, Default.SubrequestBody)
	or(&l.HostCalls, Default.HostCalls)
	or(&l.KVOperations, Default.KVOperations)
	or(&l.Concurrency, Default.Concurrency)
	or(&l.Queue, Default.Queue)
	or(&l.QueueWait, Default.QueueWait)
	or(&l.Weight, Default.Weight)
	return l
}

func or[T comparable](field *T, def T) {
	var zero T
	if *field == zero {
		*field = def
	}
}
