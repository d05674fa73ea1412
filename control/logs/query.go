package logs

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"time"

	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/edge/telemetry"
)

// MaxTail bounds the lines of the past that one answer tells.
const MaxTail = 10_000

// Query says what is asked for.
type Query struct {
	Project  string // "": all, and exchanges that reached no function
	Function string
	PoP      string
	Kind     telemetry.Kind // "": function and access
	Level    string         // debug, info, warn or error; "": all
	Request  string         // an exchange's ID
	Since    time.Duration  // how far back; 0: nothing of the past
	Tail     int            // the newest of those lines, at most; default 1000
	Follow   bool           // go on with what comes
}

// Validate reports every fault of q.
func (q *Query) Validate() error {
	var errs []error
	for what, name := range map[string]string{"project": q.Project, "function": q.Function, "pop": q.PoP} {
		if name != "" {
			errs = append(errs, identity.CheckName(what, name))
		}
	}
	if q.Kind != "" && q.Kind != telemetry.KindAccess && q.Kind != telemetry.KindFunction {
		errs = append(errs, fmt.Errorf("kind %.40q: want access or function", q.Kind))
	}
	var l slog.Level
	if q.Level != "" && l.UnmarshalText([]byte(q.Level)) != nil {
		errs = append(errs, fmt.Errorf("level %.40q: want debug, info, warn or error", q.Level))
	}
	if len(q.Request) > 64 {
		errs = append(errs, errors.New("request: an ID has at most 64 characters"))
	}
	if q.Since < 0 {
		errs = append(errs, fmt.Errorf("since %v: want 0 or more, such as 10m", q.Since))
	}
	if q.Tail < 0 || q.Tail > MaxTail {
		errs = append(errs, fmt.Errorf("tail %d: want 0 to %d", q.Tail, MaxTail))
	}
	return errors.Join(errs...)
}

// Values is q as a URL's query, and ParseQuery its inverse.
func (q *Query) Values() url.Values {
	v := url.Values{}
	for name, text := range map[string]string{"project": q.Project, "function": q.Function, "pop": q.PoP, "kind": string(q.Kind), "level": q.Level, "request": q.Request} {
		if text != "" {
			v.Set(name, text)
		}
	}
	v.Set("since", q.Since.String())
	v.Set("tail", strconv.Itoa(q.Tail))
	v.Set("follow", strconv.FormatBool(q.Follow))
	return v
}

// ParseQuery reads and validates a query; what it does not name has its default.
func ParseQuery(v url.Values) (Query, error) {
	q := Query{Project: v.Get("project"), Function: v.Get("function"), PoP: v.Get("pop"), Kind: telemetry.Kind(v.Get("kind")),
		Level: v.Get("level"), Request: v.Get("request"), Tail: 1000}
	var errs []error
	var err error
	if s := v.Get("since"); s != "" {
		if q.Since, err = time.ParseDuration(s); err != nil {
			errs = append(errs, fmt.Errorf("since=%.40q: want a duration such as 10m", s))
		}
	}
	if s := v.Get("tail"); s != "" {
		if q.Tail, err = strconv.Atoi(s); err != nil {
			errs = append(errs, fmt.Errorf("tail=%.40q: want a number", s))
		}
	}
	if s := v.Get("follow"); s != "" {
		if q.Follow, err = strconv.ParseBool(s); err != nil {
			errs = append(errs, fmt.Errorf("follow=%.40q: want true or false", s))
		}
	}
	return q, errors.Join(append(errs, q.Validate())...)
}

func (q *Query) filter() telemetry.Filter {
	f := telemetry.Filter{Project: q.Project, Function: q.Function, Kind: q.Kind, Request: q.Request, AnyLevel: q.Level == ""}
	_ = f.Level.UnmarshalText([]byte(q.Level)) // Validate has read it
	return f
}
