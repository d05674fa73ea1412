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
	KVOperations:   1000,
	Concurrency:    1000,
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
	KVOperations:   100_000,
	Concurrency:    10_000,
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
	or(&l.KVOperations, Default.KVOperations)
	or(&l.Concurrency, Default.Concurrency)
	return l
}

func or[T comparable](field *T, def T) {
	var zero T
	if *field == zero {
		*field = def
	}
}
