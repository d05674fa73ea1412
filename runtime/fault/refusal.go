package fault

import "fmt"

// Refusal is one way in which the node says no to a call and the guest goes on:
// it reads a status below zero and may do something else.
type Refusal uint8

// The refusals. Names (String) are stable: logs, metrics and alerts use them.
const (
	LogFull        Refusal = iota + 1 // a log record beyond the allowance
	SecondHead                        // a response head after the one that was set or sent
	LargeHead                         // a response head beyond its limit
	Subrequests                       // one subrequest more than a request may make
	SubrequestsNow                    // one more at once
	NotBound                          // a subrequest to what no backend of the manifest is, or in a loop
	Address                           // a subrequest to an address that may not be reached
	BadSubrequest                     // a subrequest that is not HTTP: method, URL, header name or value
	LargeAnswer                       // a subrequest's response beyond its limit
	Ended                             // a call on a body that has ended, or a handle that was given back or never was
	BadWait                           // a wait for events that there are not, or for too many at once
	KVOperations                      // one KV call more than a request may make
	KVNow                             // one more at once, of those that go on beside the guest
	KVDenied                          // a namespace that is not bound, or not for writing
)

var refusals = [...]struct{ name, text, knob, status string }{
	LogFull:        {"log", "log records beyond the allowance", "limits.log", "StatusOK"},
	SecondHead:     {"second-head", "a second response head", "", "StatusState"},
	LargeHead:      {"large-head", "a response head beyond its limit", "limits.response_head", "StatusTooLarge"},
	Subrequests:    {"subrequests", "more subrequests than a request may make", "limits.subrequests", "StatusLimit"},
	SubrequestsNow: {"subrequests-now", "more subrequests at once than a request may make", "limits.subrequests_now", "StatusLimit"},
	NotBound:       {"not-bound", "a subrequest to what is not bound", "backends", "StatusDenied"},
	Address:        {"address", "a subrequest to an address that may not be reached", "backends.private", "StatusDenied"},
	BadSubrequest:  {"bad-subrequest", "a subrequest that is not HTTP", "", "StatusInvalid"},
	LargeAnswer:    {"large-answer", "a subrequest's response beyond its limit", "limits.subrequest_body", "StatusTooLarge"},
	Ended:          {"ended", "a call on what has ended", "", "StatusState, StatusInvalid"},
	BadWait:        {"bad-wait", "a wait that is not of the call's form", "", "StatusInvalid, StatusTooLarge"},
	KVOperations:   {"kv-operations", "more KV calls than a request may make", "limits.kv_operations", "StatusLimit"},
	KVNow:          {"kv-now", "more KV calls at once than a request may make", "", "StatusLimit"},
	KVDenied:       {"kv-denied", "a KV namespace that is not bound, or not for writing", "kv", "StatusDenied"},
}

// Refusals lists them, in order.
func Refusals() []Refusal {
	all := make([]Refusal, 0, len(refusals)-1)
	for r := LogFull; int(r) < len(refusals); r++ {
		all = append(all, r)
	}
	return all
}

func (r Refusal) known() bool { return r != 0 && int(r) < len(refusals) }

// String returns the stable name.
func (r Refusal) String() string {
	if !r.known() {
		return fmt.Sprintf("refusal(%d)", uint8(r))
	}
	return refusals[r].name
}

// Text says what was refused: "a second response head".
func (r Refusal) Text() string {
	if !r.known() {
		return "a call"
	}
	return refusals[r].text
}

// Knob is the manifest key, or table, that changes the answer; empty if there is none.
func (r Refusal) Knob() string {
	if !r.known() {
		return ""
	}
	return refusals[r].knob
}

// Status names what the guest reads (sdk/abi).
func (r Refusal) Status() string {
	if !r.known() {
		return ""
	}
	return refusals[r].status
}

// Refused is how often one invocation was refused in one way.
type Refused struct {
	Refusal Refusal
	Count   int
	Limit   string // the limit that was reached, with its unit; empty if none
	Detail  string // of the first time; for the developer
}

// String is the line for the function's log.
func (r Refused) String() string {
	s := "refused " + r.Refusal.Text()
	if r.Count != 1 {
		s += fmt.Sprintf(", %d times", r.Count)
	}
	knob := r.Refusal.Knob()
	switch {
	case r.Limit != "" && knob != "":
		s += " (limit " + r.Limit + "; raise it with " + knob + ")"
	case r.Limit != "":
		s += " (limit " + r.Limit + ")"
	case knob != "":
		s += " (see " + knob + " in selvage.toml)"
	}
	if r.Detail != "" {
		s += ": " + r.Detail
	}
	return s
}

// Tally counts the refusals of one invocation; nil is none.
type Tally []Refused

// Add counts n refusals. Limit and detail of the first time are kept.
func (t *Tally) Add(r Refusal, n int, limit, detail string) {
	if n <= 0 {
		return
	}
	for i := range *t {
		if have := &(*t)[i]; have.Refusal == r {
			have.Count += n
			return
		}
	}
	*t = append(*t, Refused{Refusal: r, Count: n, Limit: limit, Detail: detail})
}
