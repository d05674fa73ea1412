package jail

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/selvage-edge/selvage/runtime/sealed"
)

// confined is the second argument of a child that has confined itself.
const confined = "confined"

// Main is the whole life of a child: the executable calls it with what follows
// `helper` on its command line and exits with what it returns. It confines the
// process, hands the input to work and gives back what work returns. The input
// must not be written. An error that is a Refused is for the developer; any
// other is a crash.
func Main(args []string, work func(Verb, []byte) ([]byte, error)) int {
	verb, ok := parseArgs(args)
	if !ok {
		fmt.Fprintln(os.Stderr, "selvage helper is started by selvage itself, for work on untrusted bytes")
		return exitUsage
	}
	if len(args) == 1 {
		fmt.Fprintln(os.Stderr, confine(table[verb], args[0]))
		return exitConfine
	}
	if err := settle(table[verb]); err != nil {
		fmt.Fprintln(os.Stderr, "helper:", err)
		return exitConfine
	}
	if verb == probe {
		return exitDone
	}
	return serve(verb, work)
}

// processors is Go's own variable: how many to use.
const processors = "GOMAXPROCS"

// settle does what only the process that does the work can do for itself, before
// it looks at the work.
func settle(l limits) error {
	if err := os.Unsetenv(processors); err != nil {
		return err
	}
	if err := dieAtOnce(); err != nil {
		return err
	}
	if l.unfiltered {
		return nil
	}
	return lock()
}

func parseArgs(args []string) (Verb, bool) {
	if len(args) == 0 || len(args) > 2 || (len(args) == 2 && args[1] != confined) {
		return 0, false
	}
	return parseVerb(args[0])
}

func serve(verb Verb, work func(Verb, []byte) ([]byte, error)) int {
	l := table[verb]
	// The parent keeps the time; this is for a parent that is gone.
	time.AfterFunc(l.wall+5*time.Second, func() { os.Exit(exitConfine) })
	debug.SetMemoryLimit(int64(l.data / 2))
	input, _, err := sealed.Map(os.Stdin, l.input)
	if err != nil {
		fmt.Fprintln(os.Stderr, "input:", err)
		return exitUsage
	}
	out, err := work(verb, input)
	return answer(l, out, err)
}

func answer(l limits, out []byte, err error) int {
	code := exitDone
	var no *Refused
	switch {
	case errors.As(err, &no):
		code, out = exitDeclined, []byte(no.Reason)[:min(len(no.Reason), maxText)]
	case errors.Is(err, syscall.ENOMEM), err != nil && noMemory(err.Error()):
		return exitMemory
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		return 1
	case int64(len(out)) > l.output:
		code, out = exitDeclined, fmt.Appendf(nil, "the result has %d bytes; the limit is %d", len(out), l.output)
	}
	if err := sealed.Fill(os.NewFile(outputFD, "output"), out); err != nil {
		fmt.Fprintln(os.Stderr, "output:", err)
		return 1
	}
	return code
}
