package bundle

import (
	"fmt"
	"io"
	"strings"

	"github.com/selvage-edge/selvage/runtime/fault"
	"github.com/selvage-edge/selvage/runtime/function"
)

// WriteFaults writes the catalogue of faults as a table.
func WriteFaults(w io.Writer) {
	fmt.Fprintf(w, "| fault | status | limit | key | meaning |\n|---|---|---|---|---|\n")
	for _, k := range fault.Kinds() {
		limit := k.Fixed()
		if limit == "" {
			limit = defaultOf(k.Knob())
		}
		fmt.Fprintf(w, "| `%s` | %d | %s | %s | the function %s |\n", k, k.Status(), limit, quoted(k.Knob()), k.Text())
	}
}

// WriteRefusals writes the catalogue of refusals as a table.
func WriteRefusals(w io.Writer) {
	fmt.Fprintf(w, "| refusal | what the function reads | limit | key | meaning |\n|---|---|---|---|---|\n")
	for _, r := range fault.Refusals() {
		fmt.Fprintf(w, "| `%s` | %s | %s | %s | %s |\n", r, r.Status(), defaultOf(r.Knob()), quoted(r.Knob()), r.Text())
	}
}

func quoted(knob string) string {
	if knob == "" {
		return ""
	}
	return "`" + knob + "`"
}

// defaultOf is the default of the limit that a key sets; empty if the key sets none.
func defaultOf(knob string) string {
	name, ok := strings.CutPrefix(knob, "limits.")
	if !ok {
		return ""
	}
	for _, k := range limitKeys {
		if k.name == name {
			return k.value(function.Default)
		}
	}
	return ""
}
