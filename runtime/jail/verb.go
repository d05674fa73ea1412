package jail

import "time"

// probe is a verb of our own: a child that confines itself and ends. It shows
// at Open which confinement this machine allows.
const probe Verb = 0xff

// limits bound one verb. They hold in the child (rlimits, input and output
// sizes) and in the parent (wall clock), and nobody can ask for more.
type limits struct {
	name   string
	wall   time.Duration // then the whole process group is killed
	cpu    time.Duration // RLIMIT_CPU, whole seconds
	data   uint64        // RLIMIT_DATA, bytes: private memory that can be written
	space  uint64        // RLIMIT_AS, bytes: addresses, reservations included
	file   uint64        // RLIMIT_FSIZE, bytes: any one file, memory files included
	input  int64         // bytes taken
	output int64         // bytes given back

	unfiltered, unwalled bool // in tests only: without seccomp, without Landlock, to show what each is for
}

// table is written only here, and by this package's tests before they start.
//
// Measured on go-httpbin, 15 MB of standard Go: 13 s of processor time, 490 MB of
// data, 6.4 GB of addresses (every linear memory reserves 4 GiB and never touches
// most of it) and 39 MB of output. Processor time is what a compile bomb costs a
// node, so that is the tight one: a machine four times slower still passes. The
// wall is wide because helpers share a small machine with the data path, at a
// lower priority.
var table = map[Verb]limits{
	Compile: {name: "compile", wall: 5 * time.Minute, cpu: 90 * time.Second,
		data: 2 << 30, space: 64 << 30, file: 512 << 20, input: 64 << 20, output: 512 << 20},
	Prepare: {name: "prepare", wall: 5 * time.Minute, cpu: 120 * time.Second,
		data: 3 << 30, space: 64 << 30, file: 1 << 30, input: 64<<20 + 256, output: 512 << 20},
	probe: {name: "probe", wall: 10 * time.Second, cpu: 5 * time.Second,
		data: 1 << 30, space: 64 << 30, file: 1 << 20, input: 0, output: 0},
}

// openFiles is RLIMIT_NOFILE: what a Go process and one engine need.
const openFiles = 64

// maxText bounds what a helper may say in words: a refusal, or how it crashed.
const maxText = 64 << 10

// Valid reports whether v is a verb that Run takes.
func (v Verb) Valid() bool { return v == Compile || v == Prepare }

// String returns the verb's word on the command line.
func (v Verb) String() string {
	if l, ok := table[v]; ok {
		return l.name
	}
	return "unknown"
}

// MaxInput is how many bytes of input v takes.
func (v Verb) MaxInput() int64 { return table[v].input }

// MaxOutput is how many bytes v gives back at most.
func (v Verb) MaxOutput() int64 { return table[v].output }

func parseVerb(s string) (Verb, bool) {
	for v, l := range table {
		if l.name == s {
			return v, true
		}
	}
	return 0, false
}
