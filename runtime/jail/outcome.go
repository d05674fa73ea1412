package jail

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/selvage-edge/selvage/runtime/plain"
	"github.com/selvage-edge/selvage/runtime/sealed"
)

// Status is how a piece of work ended.
type Status uint8

// The ways to end. Only Done has an output; the others have a text.
const (
	Done Status = iota + 1
	Declined
	TimedOut
	OutOfMemory
	Crashed
	Killed // from outside: nobody knows what would have become of it
	statusEnd
)

// Valid reports whether s is one of the ways to end.
func (s Status) Valid() bool { return s >= Done && s < statusEnd }

// Outcome is what became of one piece of work, with its bytes still in a
// sealed file, so that a process may hand it on without reading it.
type Outcome struct {
	Status Status
	File   *os.File // the output, or the text that says why not; sealed; may be nil. Close it.
	Wall   time.Duration
	CPU    time.Duration
}

// Close closes the file.
func (o *Outcome) Close() {
	if o.File != nil {
		o.File.Close()
	}
}

// Result reads the outcome as Run gives it back. It closes o.
func (o *Outcome) Result(v Verb) (Result, error) {
	defer o.Close()
	r := Result{Wall: o.Wall, CPU: o.CPU}
	if o.Status != Done {
		return r, o.failure(v)
	}
	if o.File == nil {
		return r, fmt.Errorf("%w: %s gave no output", ErrCrash, v)
	}
	out, err := sealed.Read(o.File, v.MaxOutput())
	if err != nil {
		return r, fmt.Errorf("%w: output of %s: %v", ErrCrash, v, err)
	}
	r.Output = out
	return r, nil
}

func (o *Outcome) failure(v Verb) error {
	text := o.text()
	switch o.Status {
	case Declined:
		return &Refused{Reason: text}
	case TimedOut:
		return explain(ErrTime, v, text)
	case OutOfMemory:
		return explain(ErrMemory, v, text)
	case Killed:
		return explain(ErrKilled, v, text)
	default:
		return explain(ErrCrash, v, text)
	}
}

func explain(kind error, v Verb, text string) error {
	if text == "" {
		return fmt.Errorf("%w (%s)", kind, v)
	}
	return fmt.Errorf("%w (%s): %s", kind, v, text)
}

// text is the helper's own words; they come from a process that may have been
// taken over, so they are bounded and cleaned of what is not text.
func (o *Outcome) text() string {
	if o.File == nil {
		return ""
	}
	b, err := sealed.Read(o.File, maxText)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(plain.Text(string(b), maxText))
}
